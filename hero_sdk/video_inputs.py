"""From the features and subtitles of one video to what the encoder reads: alignment, then windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hero_sdk.alignment import build_segments
from hero_sdk.errors import InputError
from hero_sdk.manifest import ModelSpec
from hero_sdk.rows import Segment, VideoInput
from hero_sdk.tokens import TextTokenizer
from hero_sdk.types import FloatArray, Subtitle
from hero_sdk.windows import split_windows


def video_inputs(
    features: FloatArray, subtitles: Sequence[Subtitle], tokenizer: TextTokenizer, model: ModelSpec
) -> list[tuple[range, VideoInput]]:
    """Prepare one video for ``pack_videos``.

    Subtitles are aligned over the whole video, so that a window changes no frame's subtitle. A segment that crosses the edge of a
    window keeps in it the frames that lie inside, with its whole text. A segment whose frames all lie in other windows is left
    out; one that owns no frame at all stays in every window.

    Args:
        features: (frames, feature_dim) one feature per clip.
        subtitles: sorted by start; empty for a silent video.
        tokenizer: of the model.
        model: of the bundle; its ``clip_limit`` is the length of a window.

    Returns:
        The windows in order with their inputs; ``merge_windows`` joins what the model makes of them.

    Raises:
        InputError: features of another shape or width than the model's, not finite, or subtitles that are not sorted.
    """
    if features.ndim != 2 or not len(features) or features.shape[1] != model.feature_dim:
        raise InputError(
            f"The features have shape {features.shape}; expected (frames, {model.feature_dim}) with at least one frame. "
            "Extract them with the bundle's frame encoder."
        )
    features = np.ascontiguousarray(features, dtype=np.float32)
    if bad := np.flatnonzero(~np.isfinite(features).all(axis=1)).tolist():
        raise InputError(
            f"The features of frames {bad[:5]} are not finite; expected numbers. Extract the features of the video again."
        )
    return [
        (window, VideoInput(features[window.start : window.stop], segments))
        for window, segments in window_segments(len(features), subtitles, tokenizer, model)
    ]


def window_segments(
    clips: int, subtitles: Sequence[Subtitle], tokenizer: TextTokenizer, model: ModelSpec
) -> list[tuple[range, tuple[Segment, ...]]]:
    """The windows of a video of so many clips, and the segments of each; see ``video_inputs``."""
    segments = build_segments(
        subtitles, clips, clip_interval=model.clip_interval, tokenizer=tokenizer, context=model.subtitle_context
    )
    return [(window, tuple(_inside(segments, window))) for window in split_windows(clips, model.clip_limit)]


def _inside(segments: Sequence[Segment], window: range) -> list[Segment]:
    """The segments of a window, with frames counted from its start."""
    inside = []
    for segment in segments:
        frames = segment.frames[(segment.frames >= window.start) & (segment.frames < window.stop)]
        if len(frames) or not len(segment.frames):
            inside.append(Segment((frames - window.start).astype(np.int32), segment.tokens))
    return inside
