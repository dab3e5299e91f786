"""What a corpus refuses to open or to take, and what holds when several processes use it: real LanceDB folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hero_sdk import (
    CorpusError,
    EncodedVideo,
    FingerprintError,
    Hero,
    InputError,
)
from hero_sdk.corpus import table
from hero_sdk.corpus.rows import Identity, video_row
from hero_sdk.corpus.table import VideoTable
from tests.unit.corpora import make_query, make_video
from tests.unit.numpy_engine import HIDDEN, NumpyEngine, make_manifest


@pytest.fixture
def hero() -> Hero:
    return Hero(NumpyEngine())


def test_another_bundle_is_refused_by_name(hero: Hero, tmp_path: Path) -> None:
    hero.corpus(tmp_path).add_encoded("a", make_video(0))
    other = Hero(NumpyEngine(make_manifest("e" * 64)))
    with pytest.raises(FingerprintError, match=rf"{'f' * 64}.*{'e' * 64}"):
        other.corpus(tmp_path)


@pytest.mark.parametrize(
    ("embeddings", "interval", "message"),
    [
        (np.zeros((3, HIDDEN + 1)), 1.5, "shape"),
        (np.zeros((0, HIDDEN)), 1.5, "at least one clip"),
        (np.zeros(HIDDEN), 1.5, "shape"),
        (np.zeros((3, HIDDEN)), 2.0, "clips of 2.0 s"),
        (np.full((3, HIDDEN), np.nan), 1.5, "float16"),
        (np.full((3, HIDDEN), 1e5), 1.5, "float16"),
    ],
)
def test_embeddings_that_do_not_belong_are_refused(
    hero: Hero, tmp_path: Path, embeddings: np.ndarray, interval: float, message: str
) -> None:
    corpus = hero.corpus(tmp_path)
    with pytest.raises(InputError, match=message):
        corpus.add_encoded("a", EncodedVideo(embeddings.astype(np.float32), interval, 4.5, ()))
    assert len(corpus) == 0


def test_only_a_corpus_is_opened(hero: Hero, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="holds no corpus"):
        hero.corpus(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(CorpusError, match="is no corpus"):
        hero.corpus(tmp_path / "file")
    with pytest.raises(CorpusError, match="is no corpus"):
        hero.corpus(tmp_path)
    (tmp_path / "below" / "videos.lance").mkdir(parents=True)
    with pytest.raises(CorpusError, match="cannot be opened"):
        hero.corpus(tmp_path / "below")


def test_a_table_of_something_else_is_no_corpus(hero: Hero, tmp_path: Path) -> None:
    import lancedb

    lancedb.connect(tmp_path).create_table("videos", [{"video_id": "a"}])
    with pytest.raises(CorpusError, match="format None"):
        hero.corpus(tmp_path)
    with pytest.raises(CorpusError, match="incomplete"):
        Identity.from_metadata({b"hero:format": b"1", b"hero:fingerprint": b"x"}, "here")


@pytest.mark.parametrize("part", ["data", "_versions"])
@pytest.mark.parametrize("damage", ["missing", "junk", "empty"])
def test_a_damaged_corpus_is_said_to_be_damaged(hero: Hero, tmp_path: Path, part: str, damage: str) -> None:
    corpus = hero.corpus(tmp_path)
    corpus.add_encoded("a", make_video(0))
    for file in (tmp_path / "videos.lance" / part).iterdir():
        if damage == "missing":
            file.unlink()
        else:
            file.write_bytes(b"junk" * 100 if damage == "junk" else b"")
    with pytest.raises(CorpusError, match=r"cannot be .* damaged corpus must be indexed again"):
        hero.corpus(tmp_path).search(make_query(0))


READER = """
import sys, time, numpy as np
from tests.unit.numpy_engine import HIDDEN, NumpyEngine
from hero_sdk import Hero, Query
corpus = Hero(NumpyEngine()).corpus(sys.argv[1], create=False)
vector = np.random.default_rng(1).standard_normal(HIDDEN).astype(np.float32)
print("ready", flush=True)
query = Query("x", vector, vector)
before = corpus.search(query, videos=["first"])
queries, deadline = 0, time.monotonic() + 60
while "last" not in corpus:
    assert time.monotonic() < deadline
    assert corpus.search(query, 50)
    assert corpus.search(query, videos=["first"]) == before
    queries += 1
print(queries, len(corpus), flush=True)
"""


def test_two_processes_read_while_one_writes(hero: Hero, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "COMPACT_AFTER", 16)
    corpus = hero.corpus(tmp_path)
    corpus.add_encoded("first", make_video(0))
    command = [sys.executable, "-W", "error", "-c", READER, str(tmp_path)]
    readers = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""},
        )
        for _ in range(2)
    ]
    try:
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n", reader.communicate()
        for number in range(60):
            corpus.add_encoded(str(number), make_video(number))
        for number in range(0, 60, 3):
            corpus.remove(str(number))
        corpus.add_encoded("last", make_video(0))
        for reader in readers:
            out, error = reader.communicate(timeout=60)
            assert reader.returncode == 0, error
            queries, videos = map(int, out.split())
            assert queries > 0
            assert videos == 42
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()


def test_two_writers_cannot_both_add_an_id(tmp_path: Path) -> None:
    """What the primary key in the schema is for: without it, both commits succeed and the id is there twice."""
    from concurrent.futures import ThreadPoolExecutor

    identity = Identity("f", HIDDEN, 1.5)
    VideoTable.open(tmp_path, create=identity)
    writers = [VideoTable.open(tmp_path) for _ in range(2)]

    def write(writer: VideoTable, video_id: str) -> int:
        try:
            writer.insert(video_row(video_id, make_video(0), None, identity), replace=False)
        except InputError:
            return 0
        return 1

    with ThreadPoolExecutor(2) as pool:
        for number in range(12):
            assert sum(pool.map(write, writers, [str(number)] * 2)) == 1
    assert writers[0].count() == 12
