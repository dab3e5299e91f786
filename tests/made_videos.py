"""Small videos made with PyAV, each with one peculiarity; the brightness of a frame tells its time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

MILLISECONDS = Fraction(1, 1000)

_ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, Alignment
Style: Default,Arial,16,&Hffffff,2

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
"""FFmpeg's subtitle encoders do not open without one."""


def brightness(seconds: float) -> int:
    """Grey level of the frame that appears at a time: 20 per second, for the first ten seconds."""
    return min(230, 30 + round(seconds * 20))


def picture(seconds: float, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), brightness(seconds), dtype=np.uint8)


def write_video(
    path: Path,
    times: Sequence[float],
    *,
    pictures: Sequence[np.ndarray] | None = None,
    container: str | None = None,
    options: dict[str, str] | None = None,
    subtitles: Sequence[tuple[float, float, str]] = (),
    audio_seconds: float = 0.0,
    size: tuple[int, int] = (64, 48),
    rotation: int = 0,
    aspect: Fraction | None = None,
) -> Path:
    """Write a video whose frames appear at the given seconds."""
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        # AVI keeps no presentation times, which h264 needs.
        codec = "mpeg4" if path.suffix == ".avi" else "libx264"
        stream = output.add_stream(codec, rate=1000, options={"qp": "1", "bf": "0"} if codec == "libx264" else {})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = MILLISECONDS
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        kind = "mov_text" if path.suffix == ".mp4" else "subrip"
        text = output.add_stream(kind) if subtitles else None
        if text is not None:
            text.codec_context.subtitle_header = _ASS_HEADER
        sound = output.add_stream("aac", rate=16000) if audio_seconds else None
        for number, seconds in enumerate(times):
            pixels = pictures[number] if pictures is not None else picture(seconds, size[1], size[0])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(seconds * 1000), MILLISECONDS
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if text is not None:
            for start, end, line in subtitles:
                packet = av.Packet(_subtitle_bytes(kind, line))
                packet.stream, packet.time_base = text, MILLISECONDS
                packet.pts = packet.dts = round(start * 1000)
                packet.duration = round((end - start) * 1000)
                output.mux(packet)
        if sound is not None:
            _write_sound(output, sound, audio_seconds)
    return path


def write_sound(path: Path, seconds: float = 1.0, cover: bool = False) -> Path:
    """Write an audio file, with a cover picture when asked for."""
    with av.open(str(path), "w") as output:
        sound = output.add_stream("aac", rate=16000)
        image = None
        if cover:
            image = output.add_stream("mjpeg", rate=1)
            image.width, image.height, image.pix_fmt = 64, 48, "yuvj420p"
            image.disposition = av.stream.Disposition.attached_pic
        _write_sound(output, sound, seconds)
        if image is not None:
            frame = av.VideoFrame.from_ndarray(picture(1), format="rgb24").reformat(format="yuvj420p")
            frame.pts = 0
            output.mux(image.encode(frame))
            output.mux(image.encode())
    return path


def _write_sound(output: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    samples = np.zeros((1, 1024), dtype=np.float32)
    for number in range(int(seconds * 16000 / 1024)):
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, number * 1024
        output.mux(stream.encode(frame))
    output.mux(stream.encode())


def _subtitle_bytes(kind: str, line: str) -> bytes:
    content = line.encode()
    # A sample of mov_text is its length and the text.
    return len(content).to_bytes(2, "big") + content if kind == "mov_text" else content


def raw_h264(seconds: int = 4, rate: int = 10) -> bytes:
    """An elementary stream: no container, no length, no times."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="h264") as output:
        stream = output.add_stream("libx264", rate=rate, options={"tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(seconds * rate):
            frame = av.VideoFrame.from_ndarray(picture(number / rate), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return buffer.getvalue()
