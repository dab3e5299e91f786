"""Subtitles in the field's format: one JSON object per video, ``{"vid_name", "sub": [{"text", "start", "end"}, ...]}``."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

from hero_sdk.errors import SubtitleError
from hero_sdk.subtitles import sort_subtitles
from hero_sdk.types import Subtitle
from hero_train.data.annotations import read_json_lines
from hero_train.errors import DataError


def read_subtitle_lines(path: Path, wanted: Container[str]) -> dict[str, tuple[Subtitle, ...]]:
    """Subtitles of videos by id, sorted by start; videos that the file does not name are left out.

    Raises:
        DataError: no such file, or a line about one of the videos that cannot be used; the message names the line.
    """
    found: dict[str, tuple[Subtitle, ...]] = {}
    for number, content in read_json_lines(path):
        where = f"Line {number} of {path}"
        video_id = subtitled_video(content, where)
        if video_id not in wanted:
            continue
        if video_id in found:
            raise DataError(f"{where} has subtitles of {video_id}, as an earlier line has; every video has one line.")
        found[video_id] = parse_subtitles(content.get("sub"), where)
    return found


def subtitled_video(content: dict[str, Any], where: str) -> str:
    """The id of the video that a line is about.

    Raises:
        DataError: it names none; the message begins with ``where``.
    """
    if not isinstance(content.get("vid_name"), str):
        raise DataError(f"{where} has the entries {sorted(content)}; expected vid_name and sub.")
    return str(content["vid_name"])


def parse_subtitles(lines: Any, where: str) -> tuple[Subtitle, ...]:
    """The entry ``sub`` of a line, sorted by start; the text is as it stands there.

    Raises:
        DataError: not a list of objects with a text and with 0 <= start <= end in seconds; the message begins with ``where``.
    """
    if not isinstance(lines, list):
        raise DataError(f"{where} has sub {lines!r:.80}; expected a list of objects with text, start and end.")
    try:
        return sort_subtitles(_subtitle(line, where) for line in lines)
    except (SubtitleError, OverflowError) as error:  # no float holds an integer of hundreds of digits
        raise DataError(f"{where}: {error}") from error


def _subtitle(line: Any, where: str) -> Subtitle:
    if isinstance(line, dict):
        start, end, text = line.get("start"), line.get("end"), line.get("text")
        if isinstance(text, str) and isinstance(start, int | float) and isinstance(end, int | float):
            return Subtitle(float(start), float(end), text)
    raise DataError(f"{where} has the subtitle {line!r:.80}; expected an object with text, start and end in seconds.")
