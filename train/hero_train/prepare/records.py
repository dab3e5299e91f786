"""An annotation in the one form in which this project reads it, whatever release it comes from."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from hero_sdk.video_files import VIDEO_SUFFIXES

Task = Literal["retrieval", "questions", "statements", "captions"]
Span = tuple[float, float]

ENTITIES = "annotations whose HTML entities were decoded"

_LONGEST = 1e9
"""Seconds; no video is longer."""

_INTERVAL = re.compile(r"\[?\s*([^\s:\-\[\]]+)\s*[:\-]\s*([^\s:\-\[\]]+)\s*\]?")


class Unusable(Exception):
    """A record that cannot be used.

    Attributes:
        kind: the few words under which a summary counts it.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass(frozen=True)
class Record:
    """One annotation.

    Attributes:
        record_id: unique in its split.
        video_id: the video that it is about.
        entries: its line in the set, all but the video and the moment.
        moments: what it marks, in seconds of the video; several where several people marked it, none where nobody did.
        whole: whether its times count in a long video of which the release has pieces.
        clip: from where to where the piece lies, in seconds of the long video, where the annotation tells.
        duration: of the video, where the annotation tells, in seconds.
        split: that the annotation says it belongs to.
        mended: what was not as it should be and was put right.
        line: of its row, see ``hero_train.prepare.tables.Row``.
    """

    record_id: str | int
    video_id: str
    entries: Mapping[str, Any]
    moments: tuple[Span, ...] = ()
    whole: bool = False
    clip: Span | None = None
    duration: float | None = None
    split: str | None = None
    mended: tuple[str, ...] = ()
    line: int = 0

    def as_line(self) -> dict[str, Any]:
        """The object that is written, one per line; without ``ts`` where there is no moment."""
        spans = [[start, end] for start, end in self.moments]
        moments = {"ts": spans[0] if len(spans) == 1 else spans} if spans else {}
        return {**self.entries, "vid_name": self.video_id, **moments}


def require(content: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse a record that lacks one of these entries."""
    if any(content.get(name) is None for name in names):
        found = sorted(name for name, value in content.items() if value is not None)
        raise Unusable("entries missing", f"has the entries {', '.join(found) or 'none'}; expected {', '.join(names)}")


def read_text(value: Any, name: str) -> str:
    """A text without white space at its ends, its HTML entities decoded."""
    if not isinstance(value, str) or not value.strip():
        raise Unusable("text missing", f"has {name} {value!r:.40}; expected a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Unusable("text that is not Unicode", f"has half a character in {name} ({error})") from error
    return html.unescape(value).strip()


def mended_texts(*values: Any) -> tuple[str, ...]:
    """What ``read_text`` had to put right in these."""
    return (ENTITIES,) if any(isinstance(value, str) and html.unescape(value) != value for value in values) else ()


def read_id(value: Any, name: str) -> str | int:
    """The id of a record; one of digits is a number, as the releases have it and the authors' LMDBs do not."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str) or not value.strip():
        raise Unusable("id missing", f"has {name} {value!r:.40}; expected an id")
    return int(value) if value.isdecimal() and str(int(value)) == value else value.strip()


def read_video_id(value: Any, name: str) -> str:
    """The id of a video, which becomes the name of a file."""
    video_id = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(video_id, str) or not video_id.strip():
        raise Unusable("video not named", f"has {name} {value!r:.40}; expected the id of a video")
    unsafe = PurePath(video_id).name != video_id or video_id == ".." or not video_id.isprintable() or "\\" in video_id
    if unsafe:
        raise Unusable("video id that is no file name", f"has {name} {video_id!r:.80}; expected the name of a file")
    return video_id


def without_video_suffix(name: Any) -> Any:
    """The name of a video file as the id of the video."""
    if isinstance(name, str) and PurePath(name).suffix.lower() in VIDEO_SUFFIXES:
        return PurePath(name).stem
    return name


def read_seconds(value: Any) -> float | None:
    """A positive number of seconds, or None."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 < value < _LONGEST else None


def read_moments(value: Any, name: str) -> tuple[Span, ...]:
    """The moments that an entry names, in seconds; none where it is missing, empty or not a number on both sides ("nan-nan").

    Read are ``[start, end]``, a list of such, and the texts "start-end" (TVQA), "[start:end]" (How2R, How2QA) and "[start, end]"
    (CSV). A moment may have no length.
    """
    spans = _pairs(value)
    if spans is None:
        raise Unusable("moment that is none", f"has {name} {value!r:.80}; expected start and end in seconds")
    if all(math.isnan(time) for span in spans for time in span):
        return ()
    for start, end in spans:
        if not 0 <= start <= end < math.inf:
            raise Unusable("moment that is none", f"has {name} {value!r:.80}; expected 0 <= start <= end in seconds")
    return spans


def _pairs(value: Any) -> tuple[Span, ...] | None:
    """Pairs of numbers, or None where the value is nothing of the kind."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        if match := _INTERVAL.fullmatch(value.strip()):
            return _pairs([_number(match[1]), _number(match[2])])
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if not isinstance(value, list | tuple):
        return None
    if value and all(isinstance(item, list | tuple) for item in value):
        pairs = [_pair(item) for item in value]
        return None if None in pairs else tuple(pair for pair in pairs if pair is not None)
    pair = _pair(value)
    return None if pair is None else (pair,)


def _pair(value: Sequence[Any]) -> Span | None:
    numbers = [item for item in value if isinstance(item, int | float) and not isinstance(item, bool)]
    if not len(value) == len(numbers) == 2:
        return None
    try:
        return float(numbers[0]), float(numbers[1])
    except OverflowError:  # no float holds an integer of hundreds of digits
        return None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def with_length(moments: tuple[Span, ...], name: str) -> tuple[Span, ...]:
    """The moments, each of which must have a length."""
    for start, end in moments:
        if start == end:
            raise Unusable("moment without length", f"has {name} {start:g} to {end:g}; expected start < end")
    return moments
