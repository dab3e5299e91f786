"""A video as the encoder reads it, before any encoding, and what callers hand over in its place."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hero_sdk.errors import InputError
from hero_sdk.subtitles import sort_subtitles
from hero_sdk.types import FloatArray, Subtitle

SubtitleSource = str | os.PathLike[str] | Sequence[Subtitle] | None
"""Where subtitles come from: a file, the subtitles themselves (``()`` for none), or None to look for them."""


@dataclass(frozen=True)
class VideoFeatures:
    """A video as the encoder reads it, before any encoding.

    Attributes:
        features: (clips, feature_dim) float32, one frame feature per clip.
        subtitles: sorted by start.
        duration: seconds. None: clips times the clip interval.
    """

    features: FloatArray = field(repr=False)
    subtitles: tuple[Subtitle, ...] = field(default=(), repr=False)
    duration: float | None = None

    def seconds(self, clip_interval: float) -> float:
        """Its length in seconds, for clips of so many seconds."""
        return len(self.features) * clip_interval if self.duration is None else self.duration


def checked_subtitles(subtitles: Sequence[Subtitle]) -> tuple[Subtitle, ...]:
    """Subtitles of a caller, sorted by start.

    Raises:
        InputError: something else among them, or one that ends before it starts.
    """
    for number, subtitle in enumerate(subtitles):
        if not isinstance(subtitle, Subtitle):
            raise InputError(f"Subtitle {number} is {subtitle!r}; expected a hero_sdk.Subtitle(start, end, text).")
    return sort_subtitles(subtitles)


def check_features(video: VideoFeatures, number: int, width: int) -> None:
    """Refuse features that a model of this feature width cannot read.

    Args:
        video: of a caller.
        number: of the video among those of a call, for the message.
        width: of the model's features.

    Raises:
        InputError: features of another shape or not finite, or a duration that is none.
    """
    shape = np.shape(video.features)
    if len(shape) != 2 or shape[0] < 1 or shape[1] != width:
        raise InputError(
            f"Video {number} has features of shape {shape}; the model reads (clips, {width}) with at least one clip. "
            "Extract the features with the frame encoder of the bundle."
        )
    if not np.isfinite(video.features).all():
        raise InputError(f"The features of video {number} have values that are not finite. Extract them again.")
    if video.duration is not None and not (math.isfinite(video.duration) and video.duration > 0):
        raise InputError(f"Video {number} has a duration of {video.duration!r} s; expected a positive number.")
