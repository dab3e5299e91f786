"""Reading video files: one frame per clip, their length, the subtitles inside them, thumbnails.

Times are seconds from the start of the file, as a player shows them. Files are read from front to back and never held in memory
as a whole.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hero_sdk.decoding import ImageArray, TimedFrame, open_video, quarter_turns, scaled, timed_frames
from hero_sdk.errors import InputError, MediaError, require
from hero_sdk.subtitles import clean_text, sort_subtitles
from hero_sdk.types import Subtitle

if TYPE_CHECKING:
    import av.subtitles.subtitle

_LOG = logging.getLogger(__name__)

_TEXT_SUBTITLES = {"subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text"}


def iterate_clip_frames(path: Path | str, clip_interval: float, image_size: int, batch_size: int = 32) -> ClipFrames:
    """Read one frame per clip.

    Clip ``k`` reaches from ``k`` to ``k + 1`` clip intervals and gets the frame whose time is nearest to the clip's middle, the
    earlier of two. A clip exists when its middle lies within the video, so a trailing piece shorter than half an interval
    gives none; the first clip always exists. The whole picture is scaled to a square without keeping its aspect ratio: a centre
    crop would lose what happens at the sides, and encoders bear the distortion well.

    Args:
        path: a video file that FFmpeg decodes.
        clip_interval: seconds per clip.
        image_size: height and width of the images, in pixels.
        batch_size: most images per array.

    Returns:
        An iterator over uint8 arrays (n, image_size, image_size, 3), RGB, 1 <= n <= batch_size. Its ``duration`` is the length
        of the video in seconds once it is through.

    Raises:
        InputError: a number that is not positive.
        MediaError: (also while iterating) no such file, not a video, no video stream, no frame that can be decoded, or frames
            more than a day apart. A file that breaks off gives the clips that can be decoded and a log message.
        MissingPackageError: PyAV is not installed.
    """
    return ClipFrames(path, clip_interval, image_size, batch_size)


class ClipFrames(Iterator[ImageArray]):
    """The iterator that ``iterate_clip_frames`` returns.

    Attributes:
        duration: seconds from the start of the file to the end of the last frame that was decoded so far.
    """

    def __init__(self, path: Path | str, clip_interval: float, image_size: int, batch_size: int = 32) -> None:
        for name, value in (("clip_interval", clip_interval), ("image_size", image_size), ("batch_size", batch_size)):
            if not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} is {value}; expected a positive number.")
        self.duration = 0.0
        self._path = Path(path)
        self._clip_interval = clip_interval
        self._image_size = image_size
        self._batches = self._read(batch_size)

    def __next__(self) -> ImageArray:
        return next(self._batches)

    def _read(self, batch_size: int) -> Iterator[ImageArray]:
        batch: list[ImageArray] = []
        for image in self._clips():
            batch.append(image)
            if len(batch) == batch_size:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)

    def _clips(self) -> Iterator[ImageArray]:
        clip = 0
        before: _Picture | None = None
        for frame in timed_frames(self._path):
            self.duration = frame.end
            after = _Picture(frame, self._image_size)
            while (middle := (clip + 0.5) * self._clip_interval) <= frame.time:
                nearest = after if before is None or frame.time - middle < middle - before.frame.time else before
                yield nearest.image()
                clip += 1
            before = after
        if before is None:
            return
        # Times are multiples of the stream's time base; rounding must not cost the last clip.
        while clip == 0 or (clip + 0.5) * self._clip_interval <= self.duration + 1e-6:
            yield before.image()
            clip += 1


def video_duration(path: Path | str) -> float:
    """Length of the video in seconds, from the header of the file.

    The length of the video stream, or of the whole file where the header does not tell (Matroska). A file without either, such as a
    live recording, is decoded through. What was really decoded is ``ClipFrames.duration``.

    Raises:
        MediaError: no such file, not a video, no video stream, or neither a length nor a frame that can be decoded.
        MissingPackageError: PyAV is not installed.
    """
    av = require("av", "video", "read videos")
    with open_video(Path(path)) as (container, stream, zero):
        if stream.duration and stream.time_base is not None:
            start = float((stream.start_time or 0) * stream.time_base) - zero
            return max(0.0, start) + float(stream.duration * stream.time_base)
        if container.duration:
            return container.duration / av.time_base
    end = 0.0
    for frame in timed_frames(Path(path)):
        end = frame.end
    return end


def embedded_subtitles(path: Path | str) -> tuple[Subtitle, ...]:
    """The subtitles inside a video file, sorted by start; empty when it has none, or only pictures of text (DVD, Blu-ray).

    Of several streams of text the one that the file marks as default is read, or else the first.

    Raises:
        MediaError: no such file, not a video or no video stream.
        SubtitleError: a subtitle whose times make no sense.
        MissingPackageError: PyAV is not installed.
    """
    av = require("av", "video", "read videos")
    with open_video(Path(path)) as (container, _, zero):
        streams = [
            s for s in container.streams.subtitles if s.codec_context and s.codec_context.name in _TEXT_SUBTITLES
        ]
        if not streams:
            return ()
        stream = next((s for s in streams if s.disposition & av.stream.Disposition.default), streams[0])
        subtitles = []
        try:
            for packet in container.demux(stream):
                found = stream.decode2(packet) if packet.pts is not None else None
                text = clean_text("\n".join(_text_of(rect) for rect in found)) if found is not None else ""
                if text and packet.pts is not None:
                    start = float(packet.pts * packet.time_base) - zero
                    length = float((packet.duration or 0) * packet.time_base)
                    subtitles.append(Subtitle(max(0.0, start), max(0.0, start + length), text))
        except av.error.FFmpegError as error:
            _LOG.warning("The subtitles in %s break off after %d cues (%s).", path, len(subtitles), error)
    return sort_subtitles(subtitles)


def frame_at(path: Path | str, seconds: float, height: int) -> ImageArray:
    """The picture that is on display at a time, upright and in its aspect ratio.

    Args:
        path: a video file.
        seconds: from the start of the file; before the first frame it gives the first, after the last one the last.
        height: of the picture, in pixels.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        InputError: a time that is not a number, or a height below 1.
        MediaError: no such file, not a video, no video stream or no frame that can be decoded.
        MissingPackageError: PyAV is not installed.
    """
    if not math.isfinite(seconds) or height < 1:
        raise InputError(
            f"Asked for the frame at {seconds} s, {height} pixels high; expected a time and a height of at least 1."
        )
    chosen: TimedFrame | None = None
    for seek in (max(0.0, seconds), None):
        try:
            for frame in timed_frames(Path(path), seek):
                if chosen is not None and frame.time > seconds:
                    break
                chosen = frame
        except MediaError:
            # Some files have a broken index, or nothing after the point that was sought: read them from the front.
            if seek is None:
                raise
        if chosen is not None:
            break
    assert chosen is not None  # timed_frames gives a frame or raises
    turns = quarter_turns(chosen.frame)
    aspect = chosen.frame.width / chosen.frame.height * chosen.sample_aspect
    if turns % 2:
        # The picture is scaled before it is turned, so its width is what will be the height.
        return np.rot90(scaled(chosen.frame, height, max(1, round(height / aspect))), turns).copy()
    return np.rot90(scaled(chosen.frame, max(1, round(height * aspect)), height), turns).copy()


class _Picture:
    """A frame that may become the image of several clips or of none, scaled once when it is needed."""

    def __init__(self, frame: TimedFrame, size: int) -> None:
        self.frame = frame
        self._size = size
        self._image: ImageArray | None = None

    def image(self) -> ImageArray:
        if self._image is None:
            frame = self.frame.frame
            self._image = np.rot90(scaled(frame, self._size, self._size), quarter_turns(frame))
        return self._image


def _text_of(rect: av.subtitles.subtitle.Subtitle) -> str:
    # FFmpeg's decoders give every text format as ASS events; `dialogue` is the event's text.
    content = getattr(rect, "dialogue", b"") or getattr(rect, "text", b"")
    return content.decode("utf-8", errors="replace")
