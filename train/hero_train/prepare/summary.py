"""The record of a prepared set: what is in it, where it came from, and what was dropped."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hero_train.data.features import PREPARED_FILE

FORMAT_VERSION = 1


@dataclass(frozen=True)
class SplitSummary:
    """One split: the file that it was read from, its annotations, and the videos that they are about."""

    file: str
    annotations: int
    videos: int


@dataclass(frozen=True)
class FeatureSummary:
    """The features.

    Attributes:
        origin: what they were read from.
        encoder: name and fingerprint of the frame encoder that made them; None where nobody knows.
        width: of a feature.
        videos, clips: how many.
        fingerprint: sha256 over the ids and the features of all videos: equal sets have equal ones.
    """

    origin: dict[str, Any]
    encoder: dict[str, str] | None
    width: int
    videos: int
    clips: int
    fingerprint: str


@dataclass(frozen=True)
class SubtitleSummary:
    """The subtitles: where they come from, videos that have some, how many there are, and how many own no frame."""

    origin: str | None
    videos: int
    subtitles: int
    without_frames: int


@dataclass(frozen=True)
class Summary:
    """All of it.

    Attributes:
        schema: of the annotations; None of a set that has none.
        task: that they are for.
        clip_interval: seconds per clip.
        piece_seconds: of the pieces that long videos were cut into; 0 for none.
        splits: by name.
        dropped: what is not in the set, by reason; each is named in ``dropped.jsonl``.
        mended: what was put right.
    """

    schema: str | None
    task: str
    clip_interval: float
    piece_seconds: float
    splits: dict[str, SplitSummary]
    features: FeatureSummary
    subtitles: SubtitleSummary
    dropped: dict[str, int] = field(default_factory=dict)
    mended: dict[str, int] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the record, which says that the set is whole."""
        content = {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        (folder / PREPARED_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def is_prepared(folder: Path) -> bool:
    """Whether a folder is a prepared set, of whatever version."""
    try:
        content = json.loads((folder / PREPARED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"format_version", "task", "features"} <= content.keys()
