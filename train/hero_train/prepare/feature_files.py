"""The features of a set, written one video at a time."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hero_train.data.features import VideoFeatures, check_features, write_features
from hero_train.errors import DataError
from hero_train.prepare.durations import Durations
from hero_train.prepare.features import FeatureSource, Read
from hero_train.prepare.records import Unusable
from hero_train.prepare.report import Report

ODD_DURATION = "videos whose duration does not fit the number of their clips"

_DAMAGED = "features that cannot be used"


@dataclass(frozen=True)
class MadeVideo:
    """A video of the set.

    Attributes:
        clips, width: of its features.
        duration: in seconds.
        known: whether something tells the duration; otherwise it is that of the clips.
        digest: sha256 of the features.
    """

    clips: int
    width: int
    duration: float
    known: bool
    digest: str


def write_all(
    source: FeatureSource,
    wanted: Sequence[str] | None,
    durations: Durations,
    folder: Path,
    report: Report,
    advance: Callable[[int], None],
) -> dict[str, MadeVideo]:
    """Write the features of videos, and say what was written, in the order of the ids that were wanted.

    Args:
        source: where they come from.
        wanted: ids, each of which the source has; None: all videos of the source.
        durations: what is known of them.
        folder: to write ``<video id>.safetensors`` to; it is made.
        report: takes the videos whose features cannot be used, which are left out.
        advance: called for each video with the number of all.
    """
    folder.mkdir()
    made: dict[str, MadeVideo] = {}
    videos = source.read_all() if wanted is None else source.read(wanted)
    total = len(source.ids() if wanted is None else wanted)
    for video_id, read in videos:
        report.features.read += 1
        try:
            made[video_id] = _write(
                folder / f"{video_id}.safetensors", read, durations.of(video_id), source.clip_interval
            )
        except DataError as error:
            report.drop(report.features, source.place, Unusable(_DAMAGED, str(error)), name=video_id)
        advance(total)
    _drop_other_widths(made, folder, source, report)
    report.mended[ODD_DURATION] = sum(_is_odd(video, source.clip_interval) for video in made.values())
    return {video_id: made[video_id] for video_id in (wanted or made) if video_id in made}


def _write(path: Path, read: Read, named: float | None, clip_interval: float) -> MadeVideo:
    if read.problem:
        raise DataError(read.problem)
    known = read.duration if read.duration is not None else named
    duration = known if known is not None else len(read.features) * clip_interval
    video = VideoFeatures(read.features, duration)
    check_features(video)
    if read.file is None or read.duration is None or not _linked(read.file, path):
        write_features(path, video)
    digest = hashlib.sha256(video.features.tobytes()).hexdigest()
    clips, width = video.features.shape
    return MadeVideo(clips, width, duration, known is not None, digest)


def _linked(file: Path, path: Path) -> bool:
    """Whether the file could be given a second name, which takes no room on the disk."""
    try:
        os.link(file.resolve(), path)
    except OSError:  # another disk, or one without such names
        return False
    return True


def _drop_other_widths(made: dict[str, MadeVideo], folder: Path, source: FeatureSource, report: Report) -> None:
    widths = Counter(video.width for video in made.values())
    for video_id in [name for name, video in made.items() if video.width != widths.most_common(1)[0][0]]:
        (folder / f"{video_id}.safetensors").unlink()
        detail = f"features {made.pop(video_id).width} wide; most others are {widths.most_common(1)[0][0]}"
        report.drop(report.features, source.place, Unusable(_DAMAGED, detail), name=video_id)


def _is_odd(video: MadeVideo, clip_interval: float) -> bool:
    """A sign of a clip interval that is not that of the features."""
    return abs(video.duration - video.clips * clip_interval) > max(2 * clip_interval, 0.1 * video.duration)


def fingerprint(made: Mapping[str, MadeVideo]) -> str:
    """Identity of the features of a set: sha256 over the ids and the features of all videos."""
    lines = "".join(f"{video_id} {made[video_id].digest}\n" for video_id in sorted(made))
    return hashlib.sha256(lines.encode()).hexdigest()
