"""Long videos in pieces of a minute, as the authors cut HowTo100M: ``<video>.<number>``, from 0."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hero_sdk.types import FloatArray, Subtitle
from hero_train.errors import ConfigError
from hero_train.prepare.records import Record, Unusable

BEYOND_PIECE = "moments that reached into another piece, cut"


def split_piece(video_id: str) -> tuple[str, int] | None:
    """The video and the number of a piece; None for an id that is not one of a piece."""
    whole, dot, number = video_id.rpartition(".")
    return (whole, int(number)) if dot and whole and number.isdecimal() else None


@dataclass(frozen=True)
class Pieces:
    """Into what long videos are cut.

    Attributes:
        seconds: of a piece; 0 leaves every video whole.
        every: whether that goes for all annotations, or only for those whose release has pieces.
    """

    seconds: float = 0
    every: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < math.inf:
            raise ConfigError(
                f"Pieces of {self.seconds} s; expected a positive number of seconds, or 0 for whole videos."
            )


WHOLE = Pieces()
"""No pieces."""


def to_piece(record: Record, pieces: Pieces) -> Record:
    """The record as one about the piece in which its moments begin, in seconds of the piece.

    Left alone is what is not to be cut, or names a piece already.
    """
    if not pieces.seconds or not (record.whole or (pieces.every and split_piece(record.video_id) is None)):
        return record
    if record.clip is None and not record.moments:
        raise Unusable("moment missing", "has no moment, which would tell the piece of the video")
    seconds = pieces.seconds
    begin = record.clip[0] if record.clip is not None else min(start for start, _ in record.moments)
    number = math.floor(begin / seconds)
    if record.clip is not None and begin != number * seconds:
        raise Unusable("clip that is no piece", f"has a clip from {begin:g} s; expected a multiple of {seconds:g} s")
    offset = number * seconds
    cut = [(max(start - offset, 0.0), min(end - offset, seconds)) for start, end in record.moments]
    if any(start > end or start >= seconds for start, end in cut):
        raise Unusable("moment outside of its piece", f"has a moment outside of {offset:g} to {offset + seconds:g} s")
    reached = any(end - offset > seconds or start < offset for start, end in record.moments)
    return dataclasses.replace(
        record,
        video_id=f"{record.video_id}.{number}",
        # Times in hundredths stay such.
        moments=tuple((round(start, 6), round(end, 6)) for start, end in cut),
        duration=None,
        mended=(*record.mended, *([BEYOND_PIECE] if reached else [])),
    )


def clips_per_piece(seconds: float, clip_interval: float) -> int:
    """How many clips a piece has.

    Raises:
        ConfigError: pieces that do not end where a clip ends.
    """
    clips = round(seconds / clip_interval)
    if clips < 1 or not math.isclose(clips * clip_interval, seconds):
        raise ConfigError(
            f"Pieces of {seconds:g} s do not end where clips of {clip_interval:g} s end; choose a multiple of {clip_interval:g}."
        )
    return clips


def cut_features(
    features: FloatArray, duration: float | None, number: int, seconds: float, clip_interval: float
) -> tuple[FloatArray, float | None]:
    """The clips of a piece, none where the video ends before it, and its duration where that of the video is known."""
    clips = clips_per_piece(seconds, clip_interval)
    cut = features[number * clips : (number + 1) * clips]
    return cut, None if duration is None else min(max(duration - number * seconds, 0.0), seconds)


def cut_subtitles(subtitles: Iterable[Subtitle], number: int, seconds: float) -> tuple[Subtitle, ...]:
    """What is spoken during a piece, in seconds of the piece; a subtitle that reaches into another piece is cut."""
    offset = number * seconds
    return tuple(
        Subtitle(round(max(one.start - offset, 0.0), 6), round(min(one.end - offset, seconds), 6), one.text)
        for one in subtitles
        if one.end > offset and one.start < offset + seconds
    )


def whole_videos(video_ids: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """The pieces of each video, as (id, number); ids that are not of a piece are left out."""
    wholes: dict[str, list[tuple[str, int]]] = {}
    for video_id in video_ids:
        if piece := split_piece(video_id):
            wholes.setdefault(piece[0], []).append((video_id, piece[1]))
    return wholes
