"""What the measurement of training runs on: models of two sizes, and batches of made videos with one query each.

Only lengths matter to time, so values are random: features, token ids, moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from hero_bench.lengths import VideoLengths
from hero_bench.padding import PaddedVideos, pad_videos
from hero_sdk.alignment import build_segments
from hero_sdk.rows import PackedVideos, RowGeometry, VideoInput, pack_queries, pack_videos
from hero_sdk.tokens import BEGIN_ID, TextTokenizer
from hero_sdk.types import IntArray, Subtitle
from hero_train.config import HeroConfig
from hero_train.data.sampling import RetrievalBatch

SIZES = {
    "paper": HeroConfig(),
    # A third of the paper's in every width and in the vocabulary; of its depth. One step of 32 videos takes seconds on two cores.
    "reduced": HeroConfig(vocab_size=16760, feature_dim=1448, hidden_size=256, num_heads=4, intermediate_size=1024),
}

FIRST_WORD = 4
"""The first token id that is no special token."""

QUERY_TOKENS, QUERY_SHAPE, LONGEST_QUERY = 14.0, 9.0, 30
"""A query of TVR has 12.2 words on average, which are about so many tokens; its baseline cuts queries at 30."""

MOMENT_CLIPS = 6
"""TVR's moments last 9.2 s on average."""


@dataclass(frozen=True)
class TrainingInput:
    """One batch in every layout.

    Attributes:
        videos: what is laid out.
        queries: one for each video; its videos are packed into the first of the geometries.
        padded: the authors' layout.
        packed: rows, by geometry.
    """

    videos: tuple[VideoInput, ...]
    queries: RetrievalBatch
    padded: PaddedVideos
    packed: dict[RowGeometry, PackedVideos]


def make_input(
    lengths: Sequence[VideoLengths], config: HeroConfig, geometries: Sequence[RowGeometry], rng: np.random.Generator
) -> TrainingInput:
    """Make a batch.

    Args:
        lengths: of its videos.
        config: of the model.
        geometries: to pack into, at least one.
        rng: draws all values.
    """
    videos = tuple(make_video(one, config, rng) for one in lengths)
    packed = {geometry: pack_videos(videos, geometry) for geometry in geometries}
    tokens = rng.gamma(QUERY_SHAPE, QUERY_TOKENS / QUERY_SHAPE, len(videos)).round().clip(1, LONGEST_QUERY - 1)
    queries = [np.append(np.int32(BEGIN_ID), _words(rng, config, int(count))) for count in tokens]
    token_ids, segment_ids = pack_queries(queries, max(map(len, queries)))
    clips = np.array([len(video.features) for video in videos])
    first = rng.integers(0, clips)
    batch = RetrievalBatch(
        packed=next(iter(packed.values())),
        token_ids=token_ids,
        segment_ids=segment_ids,
        targets=np.stack([first, np.minimum(first + MOMENT_CLIPS, clips) - 1], axis=1),
        marked=np.ones(len(videos), dtype=bool),
        query_video=np.arange(len(videos)),
    )
    return TrainingInput(videos, batch, pad_videos(videos), packed)


def make_video(lengths: VideoLengths, config: HeroConfig, rng: np.random.Generator) -> VideoInput:
    """A video of these lengths, cut to the clip limit of the model with the subtitles beyond it, as the authors' loader does."""
    clips = min(lengths.clips, config.clip_limit)
    seconds = clips * config.clip_interval
    # The "text" of a subtitle is how many tokens it has; see ``_LengthsAsText``.
    spoken = [Subtitle(one.start, one.end, str(one.tokens)) for one in lengths.subtitles if one.start < seconds]
    segments = build_segments(
        spoken,
        clips,
        clip_interval=config.clip_interval,
        tokenizer=cast("TextTokenizer", _LengthsAsText(rng, config)),
        context=config.subtitle_context,
    )
    return VideoInput(rng.standard_normal((clips, config.feature_dim), dtype=np.float32), segments)


class _LengthsAsText:
    """In place of a tokenizer: as many random tokens as the text says."""

    def __init__(self, rng: np.random.Generator, config: HeroConfig) -> None:
        self._rng, self._config = rng, config

    def encode_subtitle(self, text: str) -> IntArray:
        return _words(self._rng, self._config, int(text))


def _words(rng: np.random.Generator, config: HeroConfig, count: int) -> IntArray:
    return rng.integers(FIRST_WORD, config.vocab_size, count, dtype=np.int32)
