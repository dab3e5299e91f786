"""Where the features of a set come from: video files, arrays, the authors' LMDBs, or a set that was prepared before."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hero_sdk.errors import MediaError
from hero_sdk.types import FloatArray
from hero_train.data.features import FEATURES_FOLDER, PREPARED_FILE, cache_folder, find_videos, iterate_features
from hero_train.data.lmdb_store import Damage, FeatureStore, read_sidecar
from hero_train.errors import ConfigError, DataError
from hero_train.prepare.arrays import ARRAY_SUFFIXES, read_array
from hero_train.prepare.pieces import clips_per_piece, cut_features, split_piece, whole_videos

if TYPE_CHECKING:
    from hero_sdk.frame_encoder import FrameEncoder

_CHUNK = 32
"""Videos whose features are in memory at a time."""


@dataclass(frozen=True)
class Read:
    """The features of a video, or why there are none.

    Attributes:
        features: (clips, feature_dim) float32.
        duration: of the video in seconds, where the source knows it.
        file: that has just these, as a set keeps them.
        problem: why there are none.
    """

    features: FloatArray = field(default_factory=lambda: np.zeros((0, 0), np.float32), repr=False)
    duration: float | None = None
    file: Path | None = None
    problem: str = ""


class FeatureSource(ABC):
    """Something that has features of videos.

    Attributes:
        place: where it is.
        clip_interval: seconds per clip.
        origin: what it is, for the record of the set.
        encoder: name and fingerprint of the frame encoder; None where nobody knows.
    """

    def __init__(
        self, place: Path, clip_interval: float, origin: dict[str, Any], encoder: dict[str, str] | None = None
    ) -> None:
        self.place, self.clip_interval, self.origin, self.encoder = place, clip_interval, origin, encoder

    @abstractmethod
    def ids(self) -> list[str]:
        """The videos that it has something of, sorted."""

    @abstractmethod
    def read(self, video_ids: Sequence[str]) -> Iterator[tuple[str, Read]]:
        """The features of these, each of which it has, one after another."""

    def has(self, video_id: str) -> bool:
        """Whether it has something of a video."""
        return video_id in self._known

    def read_all(self) -> Iterator[tuple[str, Read]]:
        """The features of all that it has."""
        return self.read(self.ids())

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.ids())


class VideoFiles(FeatureSource):
    """A folder of video files, through a frame encoder; what was extracted is kept in a cache.

    Raises:
        DataError: as ``find_videos``.
    """

    def __init__(self, folder: Path, encoder: FrameEncoder, clip_interval: float, cache: Path) -> None:
        named = {"name": encoder.spec.name, "fingerprint": encoder.spec.fingerprint}
        super().__init__(folder, clip_interval, {"videos": str(folder)}, named)
        self._videos, self._encoder, self._cache = find_videos(folder), encoder, cache

    def ids(self) -> list[str]:
        """See ``FeatureSource``."""
        return sorted(self._videos)

    def read(self, video_ids: Sequence[str]) -> Iterator[tuple[str, Read]]:
        """See ``FeatureSource``."""
        videos = {video_id: self._videos[video_id] for video_id in video_ids}
        cached = cache_folder(self._encoder, self.clip_interval, self._cache)
        for video_id, result in iterate_features(videos, self._encoder, self.clip_interval, self._cache):
            if isinstance(result, MediaError):
                yield video_id, Read(problem=str(result))
            else:
                yield video_id, Read(result.features, result.duration, cached / f"{video_id}.safetensors")


class ArrayFolder(FeatureSource):
    """A folder with one file of features per video: ``.safetensors``, ``.npz`` (both with ``features``) or ``.npy``.

    Raises:
        DataError: no such folder, no such file in it, or two files of one video.
    """

    def __init__(self, folder: Path, clip_interval: float, encoder: dict[str, str] | None = None) -> None:
        super().__init__(folder, clip_interval, {"arrays": str(folder)}, encoder)
        self._files: dict[str, Path] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.suffix not in ARRAY_SUFFIXES:
                continue
            if path.stem in self._files:
                raise DataError(
                    f"{self._files[path.stem].name} and {path.name} in {folder} are of one video; remove one of them."
                )
            self._files[path.stem] = path
        if not self._files:
            raise DataError(
                f"{folder} has no features in it; expected a folder of <video id>.npy, .npz or .safetensors."
            )

    def ids(self) -> list[str]:
        """See ``FeatureSource``."""
        return sorted(self._files)

    def read(self, video_ids: Sequence[str]) -> Iterator[tuple[str, Read]]:
        """See ``FeatureSource``."""
        for video_id in video_ids:
            path = self._files[video_id]
            try:
                array, duration = read_array(path)
            except DataError as error:
                yield video_id, Read(problem=str(error))
                continue
            ready = array.dtype == np.float32 and duration is not None
            yield video_id, Read(array.astype(np.float32), duration, path if ready else None)


class FeatureLmdb(FeatureSource):
    """A feature LMDB of the authors.

    Raises:
        DataError: an LMDB that is incomplete or cut off.
    """

    def __init__(self, folder: Path, clip_interval: float) -> None:
        super().__init__(folder, clip_interval, {"lmdb": str(folder)})
        with FeatureStore(folder) as store:
            self._ids = sorted(store.lengths())

    def ids(self) -> list[str]:
        """See ``FeatureSource``."""
        return self._ids

    def read(self, video_ids: Sequence[str]) -> Iterator[tuple[str, Read]]:
        """See ``FeatureSource``."""
        with FeatureStore(self.place) as store:
            for chunk in _chunks(video_ids):
                damage = Damage()
                found = store.read(chunk, damage)
                for video_id in chunk:
                    if video_id in found:
                        yield video_id, Read(found[video_id])
                    else:
                        yield video_id, Read(problem=damage.reasons[f"{self.place.name}:{video_id}"])


class Joined(FeatureSource):
    """Several sources side by side, such as ResNet and SlowFast; lengths are cut to the shortest.

    Raises:
        ConfigError: sources of different clip intervals.
    """

    def __init__(self, sources: Sequence[FeatureSource]) -> None:
        intervals = {source.clip_interval for source in sources}
        if len(intervals) != 1:
            raise ConfigError(
                f"Features of {' and '.join(f'{interval:g} s' for interval in sorted(intervals))} cannot stand side by side; "
                "expected one clip interval."
            )
        origin = {"joined": [source.origin for source in sources]}
        super().__init__(sources[0].place, sources[0].clip_interval, origin)
        self._sources = sources
        self._ids = sorted(set.intersection(*(set(source.ids()) for source in sources)))

    def ids(self) -> list[str]:
        """See ``FeatureSource``."""
        return self._ids

    def read(self, video_ids: Sequence[str]) -> Iterator[tuple[str, Read]]:
        """See ``FeatureSource``."""
        for parts in zip(*(source.read(video_ids) for source in self._sources), strict=True):
            video_id, reads = parts[0][0], [read for _, read in parts]
            if problem := next((read.problem for read in reads if read.problem), ""):
                yield video_id, Read(problem=problem)
                continue
            clips = min(len(read.features) for read in reads)
            features = np.concatenate([read.features[:clips] for read in reads], axis=1)
            yield video_id, Read(features, next((read.duration for read in reads if read.duration), None))


class InPieces(FeatureSource):
    """A source of long videos whose features are asked for by piece; pieces that the source has already are taken as they are.

    Raises:
        ConfigError: pieces that do not end where a clip ends.
    """

    def __init__(self, source: FeatureSource, seconds: float) -> None:
        super().__init__(source.place, source.clip_interval, source.origin, source.encoder)
        clips_per_piece(seconds, source.clip_interval)
        self._source, self._seconds = source, seconds
        self._had = set(source.ids())

    def ids(self) -> list[str]:
        """The videos as the source has them: how many pieces one has is known when it is read."""
        return sorted(self._had)

    def has(self, video_id: str) -> bool:
        """See ``FeatureSource``; also of the pieces of a long video."""
        piece = split_piece(video_id)
        return video_id in self._had or (piece is not None and piece[0] in self._had)

    def read_all(self) -> Iterator[tuple[str, Read]]:
        """See ``FeatureSource``; all pieces of each video."""
        yield from self._source.read([video_id for video_id in self.ids() if split_piece(video_id)])
        for whole, read in self._source.read([video_id for video_id in self.ids() if not split_piece(video_id)]):
            clips = clips_per_piece(self._seconds, self.clip_interval)
            for number in range(max(1, math.ceil(len(read.features) / clips))):
                yield f"{whole}.{number}", self._cut(read, number)

    def read(self, video_ids: Sequence[str]) -> Iterator[tuple[str, Read]]:
        """See ``FeatureSource``."""
        yield from self._source.read([video_id for video_id in video_ids if video_id in self._had])
        wholes = whole_videos([video_id for video_id in video_ids if video_id not in self._had])
        for whole, read in self._source.read(list(wholes)):
            for video_id, number in wholes[whole]:
                yield video_id, self._cut(read, number)

    def _cut(self, read: Read, number: int) -> Read:
        if read.problem:
            return read
        features, duration = cut_features(read.features, read.duration, number, self._seconds, self.clip_interval)
        if not len(features):
            return Read(problem=f"The video has {len(read.features)} clips, none of which is in piece {number}.")
        return Read(features, duration)


def open_features(folders: Sequence[Path], clip_interval: float | None) -> FeatureSource:
    """The features in folders, side by side where there are several.

    Args:
        folders: each a folder of arrays, a feature LMDB of the authors, or a prepared set.
        clip_interval: seconds per clip; None: as the name of an LMDB or the record of a prepared set says.

    Raises:
        DataError: a folder that is none of these.
        ConfigError: a clip interval that nothing tells, or another one than a folder says.
    """
    sources = [_open_folder(folder, clip_interval) for folder in folders]
    return sources[0] if len(sources) == 1 else Joined(sources)


def _open_folder(folder: Path, clip_interval: float | None) -> FeatureSource:
    if (folder / "data.mdb").is_file():
        named = re.search(r"_(\d+(?:\.\d+)?)(?:_compressed)?$", folder.name)
        return FeatureLmdb(folder, _interval(folder, clip_interval, named and float(named[1])))
    if (folder / PREPARED_FILE).is_file():
        record = read_sidecar(folder / PREPARED_FILE)
        interval = _interval(folder, clip_interval, record.get("clip_interval"))
        return ArrayFolder(folder / FEATURES_FOLDER, interval, record.get("features", {}).get("encoder"))
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}; expected one of features.")
    return ArrayFolder(folder, _interval(folder, clip_interval, None))


def _interval(folder: Path, stated: float | None, found: float | None) -> float:
    if stated is None and found is None:
        raise ConfigError(f"Nothing tells how many seconds a clip of {folder} takes; state --clip-interval.")
    if stated is not None and found is not None and not math.isclose(stated, found):
        raise ConfigError(f"{folder} has features of {found:g} s, and --clip-interval is {stated:g}; leave it out.")
    interval = stated if stated is not None else found
    assert interval is not None
    return interval


def _chunks(video_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (video_ids[start : start + _CHUNK] for start in range(0, len(video_ids), _CHUNK))
