"""Frame features of a folder of videos, extracted once and kept beside it.

Each video has one ``.safetensors`` file in the cache with the tensor ``features`` (clips, feature_dim) float32 and, in its
metadata, the duration and the fingerprint of the frame encoder. Another encoder gets another folder, so that features of two
encoders never mix.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hero_sdk.engines.session import available_cores
from hero_sdk.errors import MediaError
from hero_sdk.frame_encoder import FrameEncoder
from hero_sdk.types import FloatArray
from hero_sdk.video_files import VIDEO_SUFFIXES
from hero_train.errors import DataError


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
    folder = cache / f"{encoder.spec.name}-{encoder.spec.fingerprint[:12]}-{clip_interval:g}s"
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, VideoFeatures] = {}
    dropped: dict[str, str] = {}

    def features_of(video_id: str) -> VideoFeatures | MediaError:
        path, cached = videos[video_id], folder / f"{video_id}.safetensors"
        try:
            return _read(cached) if _is_newer(cached, path) else _extract(path, encoder, clip_interval, cached)
        except MediaError as error:
            return error

    pool = ThreadPoolExecutor(workers or available_cores())
    try:
        for video_id, result in zip(videos, pool.map(features_of, videos), strict=True):
            if isinstance(result, MediaError):
                dropped[video_id] = str(result)
            else:
                found[video_id] = result
            on_progress(video_id)
    finally:
        pool.shutdown(cancel_futures=True)  # an error ends the run now, not after all the other videos
    return found, dropped


def _is_newer(cached: Path, video: Path) -> bool:
    return cached.is_file() and cached.stat().st_mtime >= video.stat().st_mtime


def _extract(path: Path, encoder: FrameEncoder, clip_interval: float, cached: Path) -> VideoFeatures:
    features, duration = encoder.encode_video(path, clip_interval)
    partial = cached.with_suffix(".partial")
    save_file({"features": features}, partial, metadata={"duration": repr(duration)})
    os.replace(partial, cached)
    return VideoFeatures(features, duration)


def _read(path: Path) -> VideoFeatures:
    try:
        with safe_open(path, framework="numpy") as file:
            return VideoFeatures(file.get_tensor("features"), float(file.metadata()["duration"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"The cached features {path} are damaged ({error}). Delete the file and run again.") from error


def missing_videos(wanted: Sequence[str], found: dict[str, VideoFeatures]) -> list[str]:
    """Ids that annotations name and no usable video has, in order, each once."""
    return [video_id for video_id in dict.fromkeys(wanted) if video_id not in found]


def load_features(folder: Path, wanted: Sequence[str]) -> tuple[dict[str, VideoFeatures], dict[str, str]]:
    """Stub."""
    raise NotImplementedError
