"""A corpus that several processes open, fill and tidy up at the same moment; what they meet is timed here with threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lancedb
import numpy as np
import pytest

from hero_sdk import CorpusError, EncodedVideo, InputError
from hero_sdk.corpus import table
from hero_sdk.corpus.rows import Identity, corpus_schema, video_row
from hero_sdk.corpus.table import VideoTable

IDENTITY = Identity("f", 4, 1.5)
VIDEO = EncodedVideo(np.ones((5, 4), np.float32), 1.5, 7.5, ())


def test_writers_that_tidy_up_at_the_same_time_all_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "COMPACT_AFTER", 4)
    VideoTable.open(tmp_path, create=IDENTITY)

    def write(writer: int) -> None:
        mine = VideoTable.open(tmp_path)
        for number in range(30):
            mine.insert(video_row(f"{writer}-{number}", VIDEO, None, IDENTITY), replace=False)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    assert VideoTable.open(tmp_path).count() == 90


def test_another_failure_of_tidying_up_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = VideoTable.open(tmp_path, create=IDENTITY)

    def fail(self: object, **options: object) -> None:
        raise RuntimeError("lance error: no space left on device")

    monkeypatch.setattr(type(corpus._table), "optimize", fail)
    with pytest.raises(CorpusError, match="cannot be optimised: lance error: no space left"):
        corpus.optimize()


def test_a_corpus_that_another_process_makes_in_between_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_folder, made = Path.iterdir, []

    def make_first(folder: Path) -> Iterator[Path]:
        if folder == tmp_path and not made:
            made.append(True)
            lancedb.connect(str(tmp_path)).create_table(table.TABLE, schema=corpus_schema(IDENTITY))
        return list_folder(folder)

    monkeypatch.setattr(Path, "iterdir", make_first)
    assert VideoTable.open(tmp_path, create=IDENTITY).identity == IDENTITY
    assert made


def test_a_corpus_that_another_process_is_making_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "CREATION_SECONDS", 30.0)
    (tmp_path / "videos.lance").mkdir()

    def make() -> None:
        time.sleep(0.2)
        lancedb.connect(str(tmp_path)).create_table(table.TABLE, schema=corpus_schema(IDENTITY))

    maker = threading.Thread(target=make)
    maker.start()
    try:
        opened = VideoTable.open(tmp_path, create=IDENTITY)
    finally:
        maker.join()
    opened.insert(video_row("a", VIDEO, None, IDENTITY), replace=False)
    assert opened.count() == 1


def test_videos_are_removed_all_or_none_in_one_commit(tmp_path: Path) -> None:
    corpus = VideoTable.open(tmp_path, create=IDENTITY)
    for video_id in "abcd":
        corpus.insert(video_row(video_id, VIDEO, None, IDENTITY), replace=False)
    before = corpus._table.version
    with pytest.raises(InputError, match="has no video 'x', 'y'"):
        corpus.delete(["a", "x", "y"])
    assert (corpus.count(), corpus._table.version) == (4, before)
    corpus.delete(["a", "c"])
    assert [row["video_id"] for row in corpus.column()] == ["b", "d"]
    assert corpus._table.version == before + 1
