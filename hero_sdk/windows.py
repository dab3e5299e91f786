"""Windows: how a video that is longer than the model reads at once goes through it.

The windows overlap, and each frame is taken from the window in which it lies furthest from an edge, where the temporal
encoder sees most of what comes before and after it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hero_sdk.errors import InputError
from hero_sdk.types import FloatArray


def split_windows(n_frames: int, limit: int, overlap: int | None = None) -> list[range]:
    """Cut a video into windows of frames.

    Args:
        n_frames: frames of the video, at least 1.
        limit: most frames of a window.
        overlap: frames that two neighbours share at least; default: a fifth of ``limit``.

    Returns:
        One window when the video fits. Otherwise windows of exactly ``limit`` frames in order; the last one ends with the
        video, so it may share more with its neighbour.

    Raises:
        InputError: no frame, or not 0 <= overlap < limit.
    """
    if overlap is None:
        overlap = limit // 5
    if n_frames < 1:
        raise InputError(f"A video of {n_frames} frames cannot be cut into windows; expected at least one frame.")
    if not 0 <= overlap < limit:
        raise InputError(f"Windows of {limit} frames cannot overlap by {overlap}; choose 0 <= overlap < limit.")
    if n_frames <= limit:
        return [range(n_frames)]
    starts = [*range(0, n_frames - limit, limit - overlap), n_frames - limit]
    return [range(start, start + limit) for start in starts]


def merge_windows(parts: Sequence[tuple[range, FloatArray]]) -> FloatArray:
    """Join what the model computed for the windows of one video.

    Args:
        parts: each window with its array (frames of the window, ...), as ``split_windows`` cut them, in any order.

    Returns:
        (frames of the video, ...): each frame from the window in which it lies furthest from an edge, and from the earlier
        one where two are equal.

    Raises:
        InputError: no window, an array of another length than its window, or frames that no window has.
    """
    if not parts:
        raise InputError("There is no window to merge; pass the parts of one video.")
    for window, values in parts:
        if len(window) != len(values) or window.step != 1:
            raise InputError(f"The window {window} comes with {len(values)} rows; expected one row per frame.")
    parts = sorted(parts, key=lambda part: part[0].start)
    if len(parts) == 1 and parts[0][0].start == 0:
        return parts[0][1]
    n_frames = max(window.stop for window, _ in parts)
    first = parts[0][1]
    merged = np.empty((n_frames, *first.shape[1:]), dtype=first.dtype)
    depth = np.full(n_frames, -1)
    for window, values in parts:
        place = slice(window.start, window.stop)
        frames = np.arange(len(window))
        distance = np.minimum(frames, len(window) - 1 - frames)
        better = distance > depth[place]
        merged[place][better] = values[better]
        depth[place][better] = distance[better]
    if missing := np.flatnonzero(depth < 0).tolist():
        raise InputError(f"No window has the frames {missing[:5]} of {n_frames}; pass all windows of the video.")
    return merged
