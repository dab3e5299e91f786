"""Which frames each subtitle is spoken over (paper, section 3.1; the rule of the authors' preprocessing).

Frame ``k`` stands for the clip from ``k`` to ``k + 1`` clip intervals. Every frame belongs to at most one subtitle.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from hero_sdk.errors import InputError
from hero_sdk.rows import Segment
from hero_sdk.tokens import SEPARATOR_ID, TextTokenizer
from hero_sdk.types import IntArray, Subtitle

LONG_LAST_SUBTITLE = 16.0
"""Seconds; a last subtitle that is longer was left standing after its speech, so it keeps its first frames only."""

LONG_LAST_FRAMES = 11
"""How many frames such a subtitle keeps."""

SILENT_FRAMES = 5
"""A video without subtitles is cut into segments of so many frames."""

_BLOCK = 4096
"""Frames that are compared with all subtitles at a time, so that a day of video needs no more memory than an hour."""


def assign_frames(subtitles: Sequence[Subtitle], n_frames: int, clip_interval: float) -> list[IntArray]:
    """Assign each frame to the subtitle that it shares most time with.

    A subtitle reaches from the frame in which it starts to the frame in which it ends. A frame that several subtitles reach
    goes to the one with the largest temporal IoU with it, the first of equals. As in the authors' code, a frame that is reached
    only by subtitles of no length goes to subtitle 0, subtitles that start after the last frame own nothing, and a last subtitle
    of more than 16 s reaches 11 frames only. Times are compared in float32.

    Args:
        subtitles: sorted by start, in seconds.
        n_frames: frames of the video, at least 1.
        clip_interval: seconds per frame.

    Returns:
        For each subtitle the indices of its frames in order, int32; empty where it owns none. Frames that no subtitle reaches
        are in none of them.

    Raises:
        InputError: no frame, a clip interval that is not positive, or subtitles that are not sorted.
    """
    if n_frames < 1:
        raise InputError(f"The video has {n_frames} frames; expected at least one.")
    if not clip_interval > 0:
        raise InputError(f"The clip interval is {clip_interval}; expected a positive number of seconds.")
    if not subtitles:
        return []
    seconds = np.asarray([(subtitle.start, subtitle.end) for subtitle in subtitles], dtype=np.float32)
    if np.any(np.diff(seconds[:, 0]) < 0):
        raise InputError(
            "The subtitles are not sorted by start. Pass them through hero_sdk.subtitles.sort_subtitles first."
        )

    times = seconds / np.float32(clip_interval)
    first, stop = np.floor(times[:, 0]), np.ceil(times[:, 1])
    length = np.float32(clip_interval * n_frames)
    stop[seconds[:, 0] >= length] = 0
    if min(seconds[-1, 1], length) - seconds[-1, 0] > LONG_LAST_SUBTITLE:
        stop[-1] = min(stop[-1], first[-1] + LONG_LAST_FRAMES)

    owners = np.concatenate(
        [
            _owners(times, first, stop, np.arange(start, min(start + _BLOCK, n_frames), dtype=np.float32))
            for start in range(0, n_frames, _BLOCK)
        ]
    )
    # A stable sort by owner leaves each subtitle's frames in order; -1, the frames of nobody, come first and are dropped.
    frames = np.argsort(owners, kind="stable").astype(np.int32)
    borders = np.searchsorted(owners[frames], np.arange(len(subtitles) + 1))
    return [frames[begin:end] for begin, end in pairwise(borders)]


def _owners(times: np.ndarray, first: np.ndarray, stop: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The subtitle of each frame, or -1; ``times`` in frames."""
    reached = (frames >= first[:, None]) & (frames < stop[:, None])
    start, end = times[:, :1], times[:, 1:]
    one = np.float32(1)
    shared = np.minimum(end, frames + one) - np.maximum(start, frames)
    hull = np.maximum(end, frames + one) - np.minimum(start, frames)
    # Two intervals that overlap have their hull as union, and those that do not have no positive share.
    iou = np.where(reached, np.maximum(shared, 0) / hull, 0)
    return np.where(reached.any(axis=0), iou.argmax(axis=0), -1)


def build_segments(
    subtitles: Sequence[Subtitle],
    n_frames: int,
    *,
    clip_interval: float,
    tokenizer: TextTokenizer,
    context: int = 0,
) -> tuple[Segment, ...]:
    """Make the segments of a video: each subtitle's text with the frames that it is spoken over.

    Args:
        subtitles: sorted by start; none for a silent video, which is cut into segments of five frames without text.
        n_frames: frames of the video, at least 1.
        clip_interval: seconds per frame.
        tokenizer: of the model.
        context: how many previous subtitles each segment repeats before its own text.

    Returns:
        One segment per subtitle, with ``</s>`` in front of its tokens; ``frames`` is empty where the subtitle owns none.

    Raises:
        InputError: as ``assign_frames``, or a negative context.
    """
    if context < 0:
        raise InputError(f"The subtitle context is {context}; expected 0 or more previous subtitles.")
    owned = assign_frames(subtitles, n_frames, clip_interval)
    separator = np.full(1, SEPARATOR_ID, dtype=np.int32)
    if not subtitles:
        starts = range(0, n_frames, SILENT_FRAMES)
        return tuple(
            Segment(np.arange(start, min(start + SILENT_FRAMES, n_frames), dtype=np.int32), separator)
            for start in starts
        )
    texts = [tokenizer.encode_subtitle(subtitle.text) for subtitle in subtitles]
    return tuple(
        Segment(frames, np.concatenate([separator, *texts[max(0, index - context) : index + 1]]))
        for index, frames in enumerate(owned)
    )
