"""Videos of odd shapes, as features and subtitles: at the edges of windows, clips and subtitles."""

from __future__ import annotations

import numpy as np

from hero_sdk import Subtitle, VideoFeatures
from hero_sdk.types import FloatArray
from tests.tiny_checkpoint import CONFIG, SENTENCES


def odd_videos() -> list[VideoFeatures]:
    rng = np.random.default_rng(3)
    limit, seconds = CONFIG.clip_limit, CONFIG.clip_interval

    def features(clips: int) -> FloatArray:
        return rng.exponential(0.5, (clips, CONFIG.feature_dim)).astype(np.float32)

    def lines(*spans: tuple[float, float]) -> tuple[Subtitle, ...]:
        return tuple(Subtitle(*span, SENTENCES[number % 4]) for number, span in enumerate(spans))

    return [
        VideoFeatures(features(1)),
        VideoFeatures(features(1), lines((0, 1))),
        VideoFeatures(features(2), lines((0.1, 0.2), (0.3, 0.4), (0.5, 2.9))),
        VideoFeatures(features(limit), lines((0, seconds * limit))),
        VideoFeatures(features(limit - 1), lines(*((1.3 * number, 1.3 * number + 2) for number in range(20)))),
        # The longest subtitle owns fewer frames than a row's table has: a longer one would be cut into two by design.
        VideoFeatures(features(2 * limit + 7), lines((5, 9), (20, 40), (60, 61))),
        VideoFeatures(features(7)),
        VideoFeatures(features(9), (Subtitle(2, 3, ""), Subtitle(4, 13, "?"))),
    ]
