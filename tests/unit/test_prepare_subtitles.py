"""Subtitles come from files, lines, LMDBs and the formats of VIOLIN and HowTo100M, and become the field's lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hero_sdk.errors import SubtitleError
from hero_sdk.types import Subtitle
from hero_train.data.corpus import read_all_subtitles
from hero_train.errors import DataError
from hero_train.prepare.report import Report
from hero_train.prepare.subtitles import ENTITIES, gather_subtitles
from tests.unit.releases import VIOLIN, lines_of, run, write_arrays, write_json, write_lines, write_text
from tests.unit.tiny_videos import write_srt

SPOKEN = (Subtitle(0.0, 3.0, "we look for the gem"), Subtitle(3.0, 6.0, "here it is"))
SUB = [{"text": one.text, "start": one.start, "end": one.end} for one in SPOKEN]
SECONDS = {"text": [one.text for one in SPOKEN], "start": [0, 3], "end": [3, 6]}
LINE = {"desc_id": 1, "desc": "a query", "vid_name": "v", "ts": [1.0, 3.0]}


def srt(folder: Path) -> Path:
    write_srt(folder / "subtitles" / "v.srt", [one.text for one in SPOKEN])
    return folder / "subtitles"


def csv_files(folder: Path) -> Path:
    """As HowTo100M's captions are released for each video."""
    rows = "".join(f"{one.start},{one.end},{one.text}\n" for one in SPOKEN)
    write_text(folder / "captions" / "v.csv", "start,end,text\n" + rows)
    return folder / "captions"


SOURCES: dict[str, Any] = {
    "srt": srt,
    "lines": lambda folder: write_lines(
        folder / "sub.jsonl", [{"vid_name": "v", "sub": SUB}, {"vid_name": "w", "sub": []}]
    ),
    "one line": lambda folder: write_lines(folder / "sub.jsonl", [{"vid_name": "v", "sub": SUB}]),
    "howto100m": lambda folder: write_json(folder / "raw_caption.json", {"v": SECONDS, "other": {}}),
    "howto100m csv": csv_files,
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_same(tmp_path: Path, name: str) -> None:
    source = SOURCES[name](tmp_path)
    report = Report()
    assert gather_subtitles(source, ["v", "silent"], 0, report) == {"v": SPOKEN}
    assert not report.dropped
    features = write_arrays(tmp_path / "features", {"v": 8, "silent": 8})
    lines = [LINE, {**LINE, "desc_id": 2, "vid_name": "silent"}]
    file = write_lines(tmp_path / "tvr.jsonl", lines)
    summary = run(tmp_path / "set", "tvr", features, files={"train": file}, subtitles=source)
    assert read_all_subtitles(tmp_path / "set" / "subtitles.jsonl", ["v", "silent"]) == {"v": SPOKEN, "silent": ()}
    assert (summary.subtitles.videos, summary.subtitles.subtitles, summary.subtitles.without_frames) == (1, 2, 0)


def test_violin_counts_in_milliseconds_of_the_clip_or_of_the_episode(tmp_path: Path) -> None:
    report = Report()
    found = gather_subtitles(write_json(tmp_path / "violin.json", VIOLIN), list(VIOLIN), 0, report)
    assert found == {
        "dh_s08e07_clip_020_032": (Subtitle(0.5, 2.0, "who is there"), Subtitle(2.5, 9.0, "it is only me")),
        "gt3ntYidpvs_clip_000_012": (Subtitle(0.12, 1.629, "get down"),),
        "fr_s01e01_clip_100_112": (Subtitle(1.0, 2.5, "how you doing"),),
    }


def test_text_keeps_its_white_space_and_loses_its_entities(tmp_path: Path) -> None:
    """The authors tokenise subtitles with their leading space."""
    sub = [{"text": " Chase : That&#39;s all &amp; more", "start": 0.862, "end": 1.862}]
    report = Report()
    found = gather_subtitles(write_lines(tmp_path / "sub.jsonl", [{"vid_name": "v", "sub": sub}]), ["v"], 0, report)
    assert found == {"v": (Subtitle(0.862, 1.862, " Chase : That's all & more"),)}
    assert report.mended == {ENTITIES: 1}


def test_subtitles_that_own_no_frame_are_counted(tmp_path: Path) -> None:
    sub = [{"text": "a", "start": 0.1, "end": 4.0}, {"text": "b", "start": 0.2, "end": 0.3}]
    sub += [{"text": "after the video", "start": 60, "end": 61}]
    source = write_lines(tmp_path / "sub.jsonl", [{"vid_name": "v", "sub": sub}])
    features = write_arrays(tmp_path / "features", {"v": 8})
    file = write_lines(tmp_path / "tvr.jsonl", [LINE])
    summary = run(tmp_path / "set", "tvr", features, files={"train": file}, subtitles=source)
    assert (summary.subtitles.subtitles, summary.subtitles.without_frames) == (3, 2)


def test_a_piece_has_what_is_spoken_during_it(tmp_path: Path) -> None:
    sub = [{"text": str(start), "start": start, "end": start + 4} for start in (0, 57, 60, 118, 130)]
    lines = [{"vid_name": "film", "sub": sub}, {"vid_name": "film.3", "sub": SUB}]
    found = gather_subtitles(write_lines(tmp_path / "sub.jsonl", lines), ["film.1", "film.3", "film.9"], 60, Report())
    assert found == {
        "film.1": (Subtitle(0.0, 1.0, "57"), Subtitle(0.0, 4.0, "60"), Subtitle(58.0, 60.0, "118")),
        "film.3": SPOKEN,
    }


BROKEN: dict[str, tuple[Any, str]] = {
    "not JSON": ("{", "Line 2 is not JSON"),
    "no video": ({"sub": SUB}, r"Line 2 has the entries \['sub'\]; expected vid_name and sub"),
    "no list": ({"vid_name": "w", "sub": "text"}, "Line 2 has sub 'text'; expected a list"),
    "no time": ({"vid_name": "w", "sub": [{"text": "a", "start": 1}]}, "expected an object with text, start and end"),
    "ends before it starts": (
        {"vid_name": "w", "sub": [{"text": "a", "start": 2, "end": 1}]},
        "expected seconds with 0 <=",
    ),
    "half a character": ('{"vid_name": "w", "sub": [{"text": "\\ud83d", "start": 0, "end": 1}]}', "half a character"),
    "twice": ({"vid_name": "v", "sub": SUB}, "has subtitles for the second time"),
    "not UTF-8": (b'{"vid_name": "w", "sub": [{"text": "\xe9", "start": 0, "end": 1}]}', "Line 2 is not UTF-8"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_subtitles_that_cannot_be_read_are_named_and_left_out(tmp_path: Path, kind: str) -> None:
    record, reason = BROKEN[kind]
    source = write_lines(tmp_path / "sub.jsonl", [{"vid_name": "v", "sub": SUB}, record])
    features = write_arrays(tmp_path / "features", {"v": 8, "w": 8})
    file = write_lines(tmp_path / "tvr.jsonl", [LINE, {**LINE, "desc_id": 2, "vid_name": "w"}])
    with pytest.raises(DataError, match=rf"1 of 2 records cannot be read \(.*sub\.jsonl:.*{reason}"):
        run(tmp_path / "set", "tvr", features, files={"train": file}, subtitles=source)
    assert not (tmp_path / "set").exists()
    summary = run(tmp_path / "set", "tvr", features, files={"train": file}, subtitles=source, damaged_share=0.5)
    assert [line["vid_name"] for line in lines_of(tmp_path / "set" / "subtitles.jsonl")] == ["v"]
    assert summary.dropped == {"subtitles that cannot be read": 1}
    assert summary.splits["train"].annotations == 2, "the video is silent, and its annotations stay"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"v": {"text": ["a"], "start": [0], "end": []}}, "has neither sub, as in VIOLIN, nor text, start and end"),
        ({"v": 3}, "has neither sub"),
        ({"v": {"sub": [["a", 3]], "span": [0, 4]}}, "in milliseconds"),
        ({"v": {"sub": [["a", [0, 1]]], "span": [0]}}, "in milliseconds"),
    ],
)
def test_an_entry_of_a_document_that_cannot_be_read(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    report = Report()
    assert gather_subtitles(write_json(tmp_path / "sub.json", content), ["v"], 0, report) == {}
    (dropped,) = report.dropped
    assert dropped.id == "v"
    assert message in dropped.reason


@pytest.mark.parametrize("content", ["start,end\n0,1\n", "start,end,text\n0,x,a\n", "start,end,text\n3,1,a\n", "\0"])
def test_a_table_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    write_text(tmp_path / "captions" / "v.csv", content)
    report = Report()
    assert gather_subtitles(tmp_path / "captions", ["v"], 0, report) == {}
    assert [one.id for one in report.dropped] == ["v"]


def test_a_subtitle_file_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    write_text(tmp_path / "subtitles" / "v.srt", "no cue at all")
    report = Report()
    assert gather_subtitles(tmp_path / "subtitles", ["v"], 0, report) == {}
    assert "has no cue with text" in report.dropped[0].reason


def test_a_source_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises((DataError, SubtitleError), match=r"There is no .*nowhere"):
        gather_subtitles(tmp_path / "nowhere", ["v"], 0, Report())
