"""Frame features of videos: extracted once from a folder of videos and kept beside it, or read from a folder of features.

Each video has one ``.safetensors`` file with the tensor ``features`` (clips, feature_dim) float32 and, in its metadata, the
duration in seconds. In the cache of extracted features another encoder gets another folder, so that features of two encoders
never mix. A prepared set (``hero-train prepare``) has such files in its folder ``features``.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hero_sdk.engines.cores import available_cores
from hero_sdk.errors import MediaError
from hero_sdk.frame_encoder import FrameEncoder
from hero_sdk.types import FloatArray
from hero_sdk.video_files import VIDEO_SUFFIXES
from hero_train.errors import DataError

PREPARED_FILE = "prepared.json"
"""Written last of a prepared set, so that a folder which has it is whole."""

FEATURES_FOLDER = "features"
"""Where a prepared set keeps its features."""


@dataclass(frozen=True)
class VideoFeatures:
    """Features (clips, feature_dim) float32 of one video, and its duration in seconds."""

    features: FloatArray
    duration: float


def find_videos(folder: Path) -> dict[str, Path]:
    """The videos of a folder by id, which is the file name without its suffix.

    Raises:
        DataError: no such folder, no video in it, or two videos of one id.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}; expected the folder of the videos.")
    videos: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            if path.stem in videos:
                raise DataError(
                    f"{videos[path.stem].name} and {path.name} in {folder} have one id; rename one of them."
                )
            videos[path.stem] = path
    if not videos:
        raise DataError(
            f"{folder} has no video in it; looked for files that end in {', '.join(sorted(VIDEO_SUFFIXES))}."
        )
    return videos


def extract_features(
    videos: dict[str, Path],
    encoder: FrameEncoder,
    clip_interval: float,
    cache: Path,
    on_progress: Callable[[str], None] = lambda video_id: None,
    workers: int | None = None,
) -> tuple[dict[str, VideoFeatures], dict[str, str]]:
    """Features of all videos, read from the cache where they are in it.

    Args:
        videos: path by id.
        encoder: the frame encoder.
        clip_interval: seconds per clip.
        cache: folder that keeps the features; made if it does not exist.
        on_progress: called with each id that is done.
        workers: videos that are read at the same time; None: one per core. Decoding and a frame encoder with one thread each
            keep the cores busier than one video with all of them.

    Returns:
        The features by id, and by id the reason why a video has none.
    """
    found: dict[str, VideoFeatures] = {}
    dropped: dict[str, str] = {}
    for video_id, result in iterate_features(videos, encoder, clip_interval, cache, workers):
        if isinstance(result, MediaError):
            dropped[video_id] = str(result)
        else:
            found[video_id] = result
        on_progress(video_id)
    return found, dropped


def iterate_features(
    videos: dict[str, Path], encoder: FrameEncoder, clip_interval: float, cache: Path, workers: int | None = None
) -> Iterator[tuple[str, VideoFeatures | MediaError]]:
    """As ``extract_features``, one video after another: its features, or the error that says why it has none."""
    folder = cache_folder(encoder, clip_interval, cache)
    folder.mkdir(parents=True, exist_ok=True)

    def features_of(video_id: str) -> VideoFeatures | MediaError:
        path, cached = videos[video_id], folder / f"{video_id}.safetensors"
        try:
            return _read(cached) if _is_newer(cached, path) else _extract(path, encoder, clip_interval, cached)
        except MediaError as error:
            return error

    pool = ThreadPoolExecutor(workers or available_cores())
    try:
        yield from zip(videos, pool.map(features_of, videos), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)  # an error ends the run now, not after all the other videos


def cache_folder(encoder: FrameEncoder, clip_interval: float, cache: Path) -> Path:
    """The folder of a cache that has the features of one encoder and clip interval."""
    return cache / f"{encoder.spec.name}-{encoder.spec.fingerprint[:12]}-{clip_interval:g}s"


def _is_newer(cached: Path, video: Path) -> bool:
    return cached.is_file() and cached.stat().st_mtime >= video.stat().st_mtime


def _extract(path: Path, encoder: FrameEncoder, clip_interval: float, cached: Path) -> VideoFeatures:
    features, duration = encoder.encode_video(path, clip_interval)
    extracted = VideoFeatures(features, duration)
    try:
        check_features(extracted)
    except DataError as error:
        raise MediaError(f"{path} gives {error}.") from error
    write_features(cached, extracted)
    return extracted


def write_features(path: Path, video: VideoFeatures) -> None:
    """Write the features of a video; whoever reads meanwhile finds the file whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    save_file(
        {"features": np.ascontiguousarray(video.features)}, partial, metadata={"duration": repr(float(video.duration))}
    )
    os.replace(partial, path)


def _read(path: Path) -> VideoFeatures:
    try:
        with safe_open(path, framework="numpy") as file:
            video = VideoFeatures(file.get_tensor("features"), float(file.metadata()["duration"]))
        check_features(video)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"The features {path} are damaged ({error}). Delete the file and run again.") from error
    return video


def check_features(video: VideoFeatures) -> None:
    """Refuse what no model can read.

    Raises:
        DataError: not (clips, feature_dim) float32 with at least one clip, values that are not finite, or no duration.
    """
    features = video.features
    if features.dtype != np.float32 or features.ndim != 2 or not features.size:
        raise DataError(f"features of shape {features.shape}, {features.dtype}; expected (clips, feature_dim) float32")
    if not np.isfinite(features).all():
        raise DataError("features that are not finite")
    if not 0 < video.duration < math.inf:
        raise DataError(f"a duration of {video.duration} s")


def load_features(folder: Path, wanted: Iterable[str]) -> tuple[dict[str, VideoFeatures], dict[str, str]]:
    """Features of the videos of these ids, without the videos.

    Args:
        folder: a prepared set, or a folder of ``<video id>.safetensors`` files.
        wanted: ids; each is read once.

    Returns:
        The features by id, and by id the reason why a video has none: no file, a damaged one, or features of another width than
        most of the others.

    Raises:
        DataError: no such folder, or a prepared set that was not finished.
    """
    folder = _features_folder(folder)
    found: dict[str, VideoFeatures] = {}
    dropped: dict[str, str] = {}
    for video_id in dict.fromkeys(wanted):
        path = folder / f"{video_id}.safetensors"
        # An id is a file's name and not a way out of the folder.
        if path.parent != folder or not path.is_file():
            dropped[video_id] = f"There is no file {path}."
            continue
        try:
            found[video_id] = _read(path)
        except DataError as error:
            dropped[video_id] = str(error)
    if found:
        ((width, _),) = Counter(video.features.shape[1] for video in found.values()).most_common(1)
        for video_id in [name for name, video in found.items() if video.features.shape[1] != width]:
            other = found.pop(video_id).features.shape[1]
            dropped[video_id] = f"Its features are {other} wide, and most others {width}."
    return found, dropped


def prepared_videos(folder: Path) -> list[str]:
    """The ids of the videos that ``load_features`` has features of, sorted.

    Raises:
        DataError: as ``load_features``, or nothing in it.
    """
    ids = sorted(path.stem for path in _features_folder(folder).glob("*.safetensors"))
    if not ids:
        raise DataError(f"{folder} has no features in it; expected one <video id>.safetensors per video.")
    return ids


def check_interval(folder: Path, clip_interval: float) -> None:
    """Refuse a prepared set whose clips are not as long as a model's. A plain folder of features does not say.

    Args:
        folder: as for ``load_features``.
        clip_interval: of the model, in seconds.

    Raises:
        DataError: another interval, or a summary that cannot be read.
    """
    path = folder / PREPARED_FILE
    if not path.is_file():
        return
    try:
        found = float(json.loads(path.read_text(encoding="utf-8"))["clip_interval"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error!r}). Run hero-train prepare again.") from error
    if not math.isclose(found, clip_interval):
        raise DataError(
            f"{folder} has a feature for every {found:g} s and the model reads one for every {clip_interval:g} s. "
            f"Set model.clip_interval to {found:g}, or prepare the set with --clip-interval {clip_interval:g}."
        )


def _features_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(
            f"There is no folder {folder}; expected a set that hero-train prepare wrote, or a folder of features, one "
            "<video id>.safetensors per video."
        )
    if (folder / PREPARED_FILE).is_file():
        return folder / FEATURES_FOLDER
    if (folder / FEATURES_FOLDER).is_dir():
        raise DataError(f"{folder} has no {PREPARED_FILE}, so it was not finished. Run hero-train prepare again.")
    return folder


def missing_videos(wanted: Sequence[str], found: dict[str, VideoFeatures]) -> list[str]:
    """Ids that annotations name and no usable video has, in order, each once."""
    return [video_id for video_id in dict.fromkeys(wanted) if video_id not in found]
