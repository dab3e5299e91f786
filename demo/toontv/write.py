"""The files: videos, subtitles, and tables of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np

from demo.toontv.render import episode_frames
from demo.toontv.scenery import SIZE
from demo.toontv.script import Episode
from demo.toontv.world import FRAMES_PER_SECOND


def write_video(episode: Episode, path: Path) -> None:
    """Render `episode` to an mp4 file: h264, SIZE x SIZE pixels, FRAMES_PER_SECOND, a keyframe every 3 s."""
    with av.open(str(path), "w", options={"movflags": "faststart", "fflags": "bitexact"}) as container:
        # One thread: x264's rate control depends on the number of threads, and the frames must not.
        stream = container.add_stream(
            "libx264",
            rate=FRAMES_PER_SECOND,
            options={"preset": "superfast", "crf": "23", "bf": "0", "g": "24", "threads": "1"},
        )
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for image in episode_frames(episode):
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def srt_text(episode: Episode) -> str:
    """The subtitles of `episode` as SubRip text."""
    lines = [line for scene in episode.scenes if scene.speech for line in scene.speech.lines]
    return "\n".join(
        f"{number}\n{_srt_time(line.start)} --> {_srt_time(line.end)}\n{line.text}\n"
        for number, line in enumerate(lines, start=1)
    )


def _srt_time(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02},{milliseconds % 1000:03}"


def write_text(path: Path, text: str) -> None:
    """UTF-8 with plain line ends on every system, so that equal corpora are equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """One JSON object per line; returns how many."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    write_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines)
