"""Reading subtitle files: SubRip (.srt) and WebVTT (.vtt).

Why there is a parser here: pysubs2 1.8 takes WebVTT's notes and inline times for spoken text and for cues, webvtt-py 0.6 drops
SubRip cues that have no counter, and both pass over a cue that they cannot read, where a user needs to hear which one it is.
"""

from __future__ import annotations

import codecs
import html
import math
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from hero_sdk.errors import SubtitleError
from hero_sdk.types import Subtitle

_LARGEST_FILE = 16 << 20
"""Bytes; a day of speech is 2 MB. What is larger is another kind of file."""

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_LOOKS_LIKE_TIMING = re.compile(r"\s*-?\d\S*\s*-->")
_COUNTER = re.compile(r"\s*\d+\s*")
_OVERRIDE = re.compile(r"\{\\[^}]*\}")
_LINE_BREAK = re.compile(r"\\[Nnh]")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<\d[\d:.]*>")


def read_subtitles(path: Path | str) -> tuple[Subtitle, ...]:
    """Read a subtitle file.

    The content decides the format, not the name. The text is UTF-8 or UTF-16 where it begins with the mark of one of them, UTF-8
    where it is valid UTF-8, and Windows-1252 otherwise. Formatting tags are removed, entities such as ``&amp;`` are decoded,
    the lines of a cue are joined by a space, and cues without text are left out.

    Returns:
        The subtitles, sorted by start (times in seconds).

    Raises:
        SubtitleError: no such file, an empty one, one that is not text or in neither format, a cue that cannot be read or that
            ends before it starts, or no cue at all.
    """
    path = Path(path)
    text = _decode(path)
    lines = text.splitlines()
    vtt = text.startswith("WEBVTT")
    subtitles = []
    for number, start, end, body in _cues(lines, vtt, path):
        if end < start:
            raise SubtitleError(
                f"{path}, line {number}: the cue '{lines[number - 1].strip()}' ends before it starts. Correct its times."
            )
        if spoken := clean_text("\n".join(body)):
            subtitles.append(Subtitle(start, end, spoken))
    if not subtitles:
        raise SubtitleError(
            f"{path} has no cue with text; expected SubRip or WebVTT, with lines such as '00:00:01,000 --> 00:00:02,500' before "
            "each text. Convert other formats first: ffmpeg -i FILE subtitles.srt"
        )
    return sort_subtitles(subtitles)


def sort_subtitles(subtitles: Iterable[Subtitle]) -> tuple[Subtitle, ...]:
    """Check subtitles and sort them by start, as alignment expects them; equal starts keep their order.

    Raises:
        SubtitleError: a time that is negative or not a number, or a subtitle that ends before it starts.
    """
    subtitles = tuple(subtitles)
    for number, subtitle in enumerate(subtitles):
        if not (math.isfinite(subtitle.start) and math.isfinite(subtitle.end) and 0 <= subtitle.start <= subtitle.end):
            raise SubtitleError(
                f"Subtitle {number} ('{subtitle.text[:40]}') goes from {subtitle.start} to {subtitle.end}; "
                "expected seconds with 0 <= start <= end."
            )
    return tuple(sorted(subtitles, key=lambda subtitle: subtitle.start))


def clean_text(text: str) -> str:
    """What is spoken, without markup, on one line.

    Removed: override codes such as ``{\\an8}``, tags such as ``<i>``, ``<v Name>``, ``<00:01.500>``. Decoded: entities.
    """
    text = _LINE_BREAK.sub(" ", _OVERRIDE.sub("", text))
    # Entities last, so that an escaped "&lt;i&gt;" stays the text that it stands for.
    return " ".join(html.unescape(_TAG.sub("", text)).split())


def _decode(path: Path) -> str:
    """The text of a file, without byte order mark."""
    if not path.is_file():
        raise SubtitleError(f"{path} is not a file; expected a subtitle file (.srt or .vtt). Check the path.")
    size = path.stat().st_size
    if size > _LARGEST_FILE:
        raise SubtitleError(
            f"{path} has {size} bytes; expected a subtitle file of at most {_LARGEST_FILE}. Check the path."
        )
    content = path.read_bytes()
    if not content.strip():
        raise SubtitleError(f"{path} is empty; expected SubRip or WebVTT. Remove the file, or pass the right one.")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    elif content.startswith(codecs.BOM_UTF8):
        encodings = ["utf-8-sig"]
    else:
        # Text in an old 8-bit encoding is hardly ever valid UTF-8, so trying UTF-8 first is safe.
        encodings = ["utf-8", "cp1252"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise SubtitleError(f"{path} is not text in {' or '.join(encodings)}. Save it as UTF-8.")


def _cues(lines: list[str], vtt: bool, path: Path) -> Iterator[tuple[int, float, float, list[str]]]:
    """The cues of a file: line number of the times, start, end, lines of text."""
    starts = [index for index, line in enumerate(lines) if _LOOKS_LIKE_TIMING.match(line)]
    for index, following in pairwise([*starts, len(lines)]):
        match = _TIMING.fullmatch(lines[index])
        if match is None:
            raise SubtitleError(
                f"{path}, line {index + 1}: '{lines[index].strip()}' cannot be read; expected times such as "
                f"'{'00:00:01.000 --> 00:00:02.500' if vtt else '00:00:01,000 --> 00:00:02,500'}'. Correct the line."
            )
        body = lines[index + 1 : following]
        if vtt:
            # WebVTT ends a cue at the first blank line; names of cues, notes and styles stand between.
            blank = next((place for place, line in enumerate(body) if not line.strip()), len(body))
            body = body[:blank]
        elif following < len(lines) and body and _COUNTER.fullmatch(body[-1]):
            # SubRip files in the wild have blank lines inside a text, so a text goes on to the next cue's counter.
            body = body[:-1]
        yield index + 1, _seconds(match.groups()[:4]), _seconds(match.groups()[4:]), body


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = parts
    whole = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return whole + int((fraction or "0").ljust(3, "0")) / 1000
