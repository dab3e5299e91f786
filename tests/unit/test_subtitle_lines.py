"""Subtitles are read from a folder or from one file of the field's format, the same either way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hero_sdk.types import Subtitle
from hero_train.data.corpus import read_all_subtitles
from hero_train.errors import DataError
from tests.unit.tiny_videos import write_srt

LINES = ["we look for the gem", "here it is"]
SUB = [{"text": line, "start": 3.0 * number, "end": 3.0 * (number + 1)} for number, line in enumerate(LINES)]


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_a_folder_and_a_file_give_the_same(tmp_path: Path) -> None:
    write_srt(tmp_path / "folder" / "one.srt", LINES)
    file = write(tmp_path / "subtitles.jsonl", {"vid_name": "other", "sub": []}, {"vid_name": "one", "sub": SUB})
    expected = {"one": (Subtitle(0.0, 3.0, LINES[0]), Subtitle(3.0, 6.0, LINES[1])), "silent": ()}
    for source in (tmp_path / "folder", file):
        assert read_all_subtitles(source, ["one", "silent", "one"]) == expected
    assert read_all_subtitles(None, ["one"]) == {"one": ()}


def test_subtitles_are_sorted_and_their_text_is_left_alone(tmp_path: Path) -> None:
    sub = [{"text": " B : &lt;b&gt;", "start": 4, "end": 5}, {"text": "", "start": 1.5, "end": 2}]
    found = read_all_subtitles(write(tmp_path / "subtitles.jsonl", {"vid_name": "one", "sub": sub}), ["one"])
    assert found["one"] == (Subtitle(1.5, 2.0, ""), Subtitle(4.0, 5.0, " B : &lt;b&gt;"))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"sub": []}, r"has the entries \['sub'\]; expected vid_name and sub"),
        ({"vid_name": 3, "sub": []}, "expected vid_name and sub"),
        ({"vid_name": "one"}, "has sub None; expected a list"),
        ({"vid_name": "one", "sub": [{"text": "a", "start": 0}]}, "has the subtitle .*; expected an object with text"),
        ({"vid_name": "one", "sub": [{"text": 5, "start": 0, "end": 1}]}, "expected an object with text"),
        ({"vid_name": "one", "sub": ["a"]}, "expected an object with text"),
        ({"vid_name": "one", "sub": [{"text": "a", "start": 2, "end": 1}]}, "expected seconds with 0 <= start <= end"),
        ({"vid_name": "one", "sub": [{"text": "a", "start": 0, "end": float("nan")}]}, "expected seconds"),
        ({"vid_name": "whole", "sub": []}, "has subtitles of whole, as an earlier line has"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    file = write(tmp_path / "subtitles.jsonl", {"vid_name": "whole", "sub": SUB}, record)
    with pytest.raises(DataError, match=f"Line 2 of .*{message}"):
        read_all_subtitles(file, ["one", "whole"])


def test_a_video_that_nobody_asked_for_may_be_damaged(tmp_path: Path) -> None:
    file = write(tmp_path / "subtitles.jsonl", {"vid_name": "one", "sub": SUB}, {"vid_name": "other", "sub": None})
    assert len(read_all_subtitles(file, ["one"])["one"]) == 2
