"""Real video files of a few seconds: coloured pictures, h264."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (20, 40, 230)}


def write_video(path: Path, colours: list[str], seconds_each: float = 3.0, rate: int = 4) -> Path:
    """Write a video that shows one colour after another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for colour in colours:
            picture = np.full((32, 32, 3), COLOURS[colour], np.uint8)
            for _ in range(int(seconds_each * rate)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_srt(path: Path, lines: list[str], seconds_each: float = 3.0) -> Path:
    """Write one line after another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = []
    for number, line in enumerate(lines):
        start, end = (
            f"00:00:{at:06.3f}".replace(".", ",") for at in (number * seconds_each, (number + 1) * seconds_each)
        )
        blocks.append(f"{number + 1}\n{start} --> {end}\n{line}\n")
    path.write_text("\n".join(blocks), encoding="utf-8")
    return path


def write_collection(folder: Path) -> list[Path]:
    """Three videos, of which two have a subtitle file beside them."""
    write_srt(folder / "one.srt", ["we look for the gem", "here it is", "let us go home"])
    write_srt(folder / "three.srt", ["hello there", "good bye"])
    return [
        write_video(folder / "one.mp4", ["red", "green", "blue"]),
        write_video(folder / "two.mp4", ["blue", "blue"]),
        write_video(folder / "three.mkv", ["green", "red"]),
    ]
