"""How long the videos are, from a file or from what else tells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hero_train.errors import DataError
from hero_train.prepare.pieces import split_piece
from hero_train.prepare.records import Record, read_seconds

SIDECAR = "vid2dur_idx.json"
"""The durations that the authors' subtitle LMDBs come with."""


class Durations:
    """The duration of each video, in seconds, where something tells.

    Args:
        named: by video.
        piece_seconds: of the pieces that long videos are cut into; 0 for none.
    """

    def __init__(self, named: Mapping[str, float], piece_seconds: float) -> None:
        self._named, self._piece_seconds = named, piece_seconds

    def of(self, video_id: str) -> float | None:
        """Of a video or a piece of one; None where nothing tells."""
        if video_id in self._named:
            return self._named[video_id]
        piece = split_piece(video_id) if self._piece_seconds else None
        if piece is None or piece[0] not in self._named:
            return None
        rest = self._named[piece[0]] - piece[1] * self._piece_seconds
        return min(rest, self._piece_seconds) if rest > 0 else None


def gather_durations(
    file: Path | None, records: Iterable[Record], subtitles: Path | None, piece_seconds: float
) -> Durations:
    """What a file says comes first, then what the annotations say, then what lies beside the authors' subtitles.

    Raises:
        DataError: a file that cannot be read.
    """
    named: dict[str, float] = {}
    if subtitles is not None and (subtitles / SIDECAR).is_file():
        named |= read_durations(subtitles / SIDECAR)
    named |= {record.video_id: record.duration for record in records if record.duration is not None}
    if file is not None:
        named |= read_durations(file)
    return Durations(named, piece_seconds)


def read_durations(path: Path) -> dict[str, float]:
    """Seconds by video, from JSON: a number or [seconds, number] for each video, of all videos or of those of each split.

    Raises:
        DataError: no such file, or not of that form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected JSON with the seconds of each video.") from error
    groups = content.values() if isinstance(content, Mapping) and all(map(_is_group, content.values())) else [content]
    durations: dict[str, float] = {}
    for group in groups:
        for video_id, entry in group.items() if isinstance(group, Mapping) else [("", None)]:
            seconds = read_seconds(entry[0] if isinstance(entry, list) and entry else entry)
            if seconds is None:
                raise DataError(
                    f"{path} has {entry!r:.40} for {video_id!r:.40}; expected seconds or [seconds, number]."
                )
            durations[video_id] = seconds
    return durations


def _is_group(value: Any) -> bool:
    return isinstance(value, Mapping)
