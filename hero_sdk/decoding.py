"""Decoding video files with PyAV: opening them safely, and their frames with times that can be relied on.

A video file may come from anybody, so FFmpeg gets the open file and no protocol: a playlist that poses as a video cannot make
it read other files or addresses.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from hero_sdk.errors import MediaError, require

if TYPE_CHECKING:
    import av
    import av.container

ImageArray = npt.NDArray[np.uint8]

_LOG = logging.getLogger(__name__)

_RESTART = 10.0
"""Seconds; times that go back by more than this were started again, as in recordings that were joined."""

_LONGEST_STILL = 24 * 3600.0
"""Seconds; a longer gap between two frames is a damaged time, and would give clips without end."""

_SHORT = 1.0
"""Seconds; pictures that end so much before what the file's header says are worth a message."""

_SCALING = "BICUBIC"
"""What image networks are trained with; swscale widens the kernel when it shrinks, so nothing aliases."""


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame with the seconds at which it appears and at which the next one is due."""

    time: float
    end: float
    frame: av.VideoFrame
    sample_aspect: float


def scaled(frame: av.VideoFrame, width: int, height: int) -> ImageArray:
    """The picture as uint8 (height, width, 3), RGB."""
    image = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation=_SCALING)
    return cast(ImageArray, image)


def quarter_turns(frame: av.VideoFrame) -> int:
    """Counter-clockwise quarter turns that set the picture upright, as phones record it."""
    return round(frame.rotation / 90) % 4


@contextmanager
def open_video(
    path: Path,
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream, float]]:
    """Open a video file: the container, its video stream and the time of the file's start in the container's own clock."""
    av = require("av", "video", "read videos")
    if not path.is_file():
        raise MediaError(f"{path} is not a file; expected a video. Check the path.")
    try:
        file = path.open("rb")
    except OSError as error:
        raise MediaError(f"{path} cannot be opened ({error}). Check its permissions.") from error
    with file:
        try:
            container = av.open(file, mode="r", options={"protocol_whitelist": "none"}, metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            raise MediaError(
                f"{path} cannot be read as a video ({error}); expected a file that FFmpeg decodes. "
                "Check that it was copied completely, or convert it: ffmpeg -i FILE video.mp4"
            ) from error
        with container:
            # A cover picture of an audio file counts as a video stream in FFmpeg.
            cover = av.stream.Disposition.attached_pic
            streams = [stream for stream in container.streams.video if not stream.disposition & cover]
            if not streams:
                kinds = sorted({stream.type for stream in container.streams}) or ["no stream"]
                raise MediaError(f"{path} has no video stream; it has {', '.join(kinds)}. Pass a file with pictures.")
            stream = max(streams, key=lambda item: bool(item.disposition & av.stream.Disposition.default))
            if stream.codec_context is None:
                raise MediaError(
                    f"{path} has video in a codec that this FFmpeg cannot decode. Convert it: ffmpeg -i FILE video.mp4"
                )
            stream.thread_type = "AUTO"
            yield container, stream, (container.start_time or 0) / av.time_base


def timed_frames(path: Path, seek: float | None = None) -> Iterator[TimedFrame]:
    """The frames of a video in order, with times that never go back.

    Raises:
        MediaError: as ``open_video``, no frame that can be decoded, or frames more than a day apart.
    """
    av = require("av", "video", "read videos")
    with open_video(path) as (container, stream, zero):
        problems: list[Exception] = []
        if seek is not None:
            try:
                container.seek(int((seek + zero) * av.time_base))
            except av.error.FFmpegError as error:
                problems.append(error)
        usual = float(1 / (stream.average_rate or stream.guessed_rate or 25))
        aspect = float(stream.sample_aspect_ratio or 1) or 1.0
        time = end = shift = 0.0
        count = 0
        for frame in _decoded(container, stream, problems):
            stamp = end if frame.time is None else frame.time - zero + shift
            if stamp < time - _RESTART:
                shift += end - stamp
                stamp = end
            if seek is None and stamp > end + _LONGEST_STILL:
                raise MediaError(
                    f"{path} jumps from {end:.1f} s to {stamp:.1f} s; expected frames less than a day apart. "
                    "Write its times anew: ffmpeg -i FILE -c copy -fflags +genpts video.mkv"
                )
            time = max(time, stamp)
            length = float((frame.duration or 0) * (frame.time_base or 0)) or usual
            end = time + length
            count += 1
            yield TimedFrame(time, end, frame, aspect)
        if not count:
            reason = f" ({problems[-1]})" if problems else ""
            raise MediaError(
                f"{path} has no frame that can be decoded{reason}. Check that it was copied completely and that it plays."
            )
        promised = float((stream.duration or 0) * (stream.time_base or 0)) or (container.duration or 0) / av.time_base
        if seek is None and (problems or end < promised - _SHORT):
            _LOG.warning(
                "%s has pictures for %.1f s of %.1f s (%d errors%s); going on with these.",
                path,
                end,
                promised,
                len(problems),
                f", the last one: {problems[-1]}" if problems else "",
            )


def _decoded(
    container: av.container.InputContainer, stream: av.VideoStream, problems: list[Exception]
) -> Iterator[av.VideoFrame]:
    """Decode what can be decoded; packets that cannot are noted in ``problems`` and passed over."""
    av = require("av", "video", "read videos")
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            problems.append(error)
            packet = None
        try:
            # No packet at the end: the decoder then gives up the frames that it still holds.
            yield from stream.decode(packet)
        except av.error.FFmpegError as error:
            # The demuxer's own last packet has already emptied the decoder.
            if not isinstance(error, EOFError):
                problems.append(error)
        if packet is None:
            return
