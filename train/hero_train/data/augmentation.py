"""Noise on training inputs: a small corpus is soon known by heart, and noise makes every pass over it a little different."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hero_sdk.rows import Segment, VideoInput
from hero_sdk.types import IntArray


@dataclass(frozen=True)
class AugmentationConfig:
    """How much noise; 0 for none.

    Attributes:
        feature_noise: deviation of the normal noise by which each value of a frame feature is multiplied.
        frame_dropout: share of frames whose features are set to zero.
        token_dropout: share of the words' tokens that are left out, of subtitles and queries.
    """

    feature_noise: float = 0.0
    frame_dropout: float = 0.0
    token_dropout: float = 0.0


def augment_video(video: VideoInput, config: AugmentationConfig, rng: np.random.Generator) -> VideoInput:
    """The video with noise in its features and subtitles; the separator in front of each subtitle stays."""
    features = video.features
    if config.feature_noise:
        noise = rng.standard_normal(features.shape, dtype=np.float32)
        features = features * (1 + np.float32(config.feature_noise) * noise)
    if config.frame_dropout:
        features = features * (rng.random((len(features), 1)) >= config.frame_dropout).astype(np.float32)
    segments = video.segments
    if config.token_dropout:
        segments = tuple(Segment(part.frames, drop_tokens(part.tokens, config, rng)) for part in segments)
    return VideoInput(features, segments)


def crop_video(video: VideoInput, first: int, stop: int) -> VideoInput:
    """The clips from ``first`` to before ``stop`` as a video of their own, with the segments that are spoken over them."""
    segments = []
    for part in video.segments:
        kept = part.frames[(part.frames >= first) & (part.frames < stop)]
        if len(kept):
            segments.append(Segment(kept - np.int32(first), part.tokens))
    return VideoInput(video.features[first:stop], tuple(segments))


def drop_tokens(tokens: IntArray, config: AugmentationConfig, rng: np.random.Generator) -> IntArray:
    """Leave out a share of the tokens; the first, which is a mark and no word, stays."""
    if not config.token_dropout:
        return tokens
    keep = rng.random(len(tokens)) >= config.token_dropout
    keep[0] = True
    return tokens[keep]
