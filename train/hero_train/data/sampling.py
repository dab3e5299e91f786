"""Batches of videos with queries, each a pure function of the seed and the step, so that a resumed run draws the same ones.

The joint batch of several processes is that of one process with as many videos: what chance does to a video depends on its place
in the joint batch. (But where a view leaves one process without a query, all draw again, which one process would not.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hero_sdk.rows import PackedVideos, RowGeometry, pack_queries, pack_videos
from hero_sdk.types import IntArray
from hero_train.data.augmentation import AugmentationConfig, augment_video, drop_tokens
from hero_train.data.corpus import CorpusVideo, EncodedQuery, without_picture, without_text
from hero_train.errors import ConfigError, DataError

View = Literal["both", "picture", "text"]

# What a query is about decides what must be seen to answer it.
_ANSWERABLE: dict[View, tuple[str, ...]] = {"both": ("v", "t", "vt"), "picture": ("v",), "text": ("t",)}


@dataclass(frozen=True)
class RetrievalBatch:
    """Videos and queries of one step.

    Attributes:
        packed: the videos.
        token_ids, segment_ids: (Q, T) int32 of the queries.
        targets: (Q, 2) int64 first and last clip, both inclusive.
        marked: (Q,) bool whether the targets are where somebody marked start and end, and so count in the span loss.
        query_video: (Q,) int64 the video of each query, in the order of ``packed.videos``.
        view: what was shown of the videos.
    """

    packed: PackedVideos
    token_ids: IntArray
    segment_ids: IntArray
    targets: np.ndarray
    marked: np.ndarray
    query_video: np.ndarray
    view: View = "both"


@dataclass(frozen=True)
class SamplingConfig:
    """How batches are drawn.

    Attributes:
        videos: per batch and process.
        queries_per_video: at most; a video with fewer gives all it has.
        spoken_per_video: at most so many subtitles of each video that also serve as queries, where subtitles are shown: the
            cheapest way to learn that words of a query stand for the same words of a subtitle. (The paper's VSM takes the
            subtitle out of the video first, so that the picture must answer; here it stays.)
        both, picture, text: relative frequency of batches that show frames and subtitles, frames only, subtitles only. A model
            that always sees both learns one of them and ignores the other; blanking them in turn cures that. A data set without
            query types ("v", "t", "vt") leaves the last two at 0.
        span_dropout: share of batches in which the span loss does not count (VALUE: 0.9 for How2R).
        augmentation: noise on what is drawn.
    """

    videos: int = 32
    queries_per_video: int = 4
    spoken_per_video: int = 0
    both: float = 1.0
    picture: float = 0.0
    text: float = 0.0
    span_dropout: float = 0.0
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    def __post_init__(self) -> None:
        for name, least in (("videos", 1), ("queries_per_video", 0), ("spoken_per_video", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"sampling.{name} is {getattr(self, name)}; expected at least {least}.")
        frequencies = (self.both, self.picture, self.text)
        if min(frequencies) < 0 or not 0 < sum(frequencies) < math.inf:
            raise ConfigError(
                f"sampling.both, picture and text are {frequencies}; expected frequencies of at least 0, and one above."
            )
        if not 0 <= self.span_dropout <= 1:
            raise ConfigError(f"sampling.span_dropout is {self.span_dropout}; expected a share from 0 to 1.")
        if not self.queries_per_video and (self.picture or not self.spoken_per_video):
            raise ConfigError(
                "sampling.queries_per_video is 0, so some batches would have no query; expected at least 1."
            )


class RetrievalSampler:
    """Draws batches from a corpus.

    Args:
        corpus: the training videos; those without a query that can be trained on are left out.
        config: how to draw.
        geometry: rows to pack into.
        seed: of the run.
        rank, world: which part of each joint batch this process draws.

    Raises:
        DataError: fewer videos than a joint batch takes, or no query that a blanked view could answer.
    """

    def __init__(
        self,
        corpus: Sequence[CorpusVideo],
        config: SamplingConfig,
        geometry: RowGeometry,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._config, self._geometry, self._seed, self._rank, self._world = config, geometry, seed, rank, world
        weights = {"both": config.both, "picture": config.picture, "text": config.text}
        self._videos = [video for video in corpus if any(query.reachable for query in video.queries)]
        if len(self._videos) < config.videos * world:
            raise DataError(
                f"The training set has {len(self._videos)} videos with queries and a batch takes {config.videos * world}; "
                "lower sampling.videos."
            )
        types = {query.type for video in self._videos for query in video.queries if query.reachable}
        for view, answerable in _ANSWERABLE.items():
            if weights[view] and not types & set(answerable):
                raise DataError(
                    f"sampling.{view} is {weights[view]}, and no query of the training set has a type of {answerable}; "
                    f"set sampling.{view} to 0, or annotate query types."
                )
        self._views: list[View] = list(_ANSWERABLE)
        total = sum(weights.values())
        self._probabilities = [weights[view] / total for view in self._views]

    def batch(self, step: int) -> RetrievalBatch:
        """The batch of a step; the same for the same seed, step and part."""
        shared = np.random.default_rng([self._seed, 1, step])
        view = self._views[shared.choice(len(self._views), p=self._probabilities)]
        parts = [self._part(step, rank) for rank in range(self._world)]
        if not all(any(self._fitting(video, view) for video in part) for part in parts):
            # A process would have nothing to ask: all of them draw again, so that they stay together.
            return self.batch(step + 1_000_003)
        chosen = parts[self._rank]
        rngs = video_rngs(self._config.videos, step, self._seed, self._rank)
        picked = []
        for video, rng in zip(chosen, rngs, strict=True):
            queries = _draw(rng, self._fitting(video, view), self._config.queries_per_video)
            if view != "picture":
                queries += _draw(rng, video.spoken, self._config.spoken_per_video)
            picked.append(queries)
        spans = bool(np.random.default_rng([self._seed, 6, step]).random() >= self._config.span_dropout)
        return self._collate(chosen, picked, view, rngs, spans)

    @staticmethod
    def _fitting(video: CorpusVideo, view: View) -> list[EncodedQuery]:
        return [query for query in video.queries if query.reachable and query.type in _ANSWERABLE[view]]

    def _part(self, step: int, rank: int) -> list[CorpusVideo]:
        drawn = draw_part(len(self._videos), self._config.videos, step, self._seed, rank, self._world)
        return [self._videos[index] for index in drawn]

    def _collate(
        self,
        videos: Sequence[CorpusVideo],
        picked: Sequence[Sequence[EncodedQuery]],
        view: View,
        rngs: Sequence[np.random.Generator],
        spans: bool,
    ) -> RetrievalBatch:
        show = {"both": lambda video: video, "picture": without_text, "text": without_picture}[view]
        noise = self._config.augmentation
        inputs = [augment_video(show(video.input), noise, rng) for video, rng in zip(videos, rngs, strict=True)]
        queries = [query for asked in picked for query in asked]
        owners = [number for number, asked in enumerate(picked) for _ in asked]
        tokens = [drop_tokens(query.tokens, noise, rngs[owner]) for query, owner in zip(queries, owners, strict=True)]
        longest = max(map(len, tokens))
        token_ids, segment_ids = pack_queries(tokens, min(longest, self._geometry.query_tokens))
        return RetrievalBatch(
            packed=pack_videos(inputs, self._geometry),
            token_ids=token_ids,
            segment_ids=segment_ids,
            targets=np.array([(query.first, query.last) for query in queries], dtype=np.int64),
            marked=np.array([spans and query.marked for query in queries]),
            query_video=np.array(owners, dtype=np.int64),
            view=view,
        )


def draw_part(count: int, size: int, step: int, seed: int, rank: int = 0, world: int = 1) -> np.ndarray:
    """A process's part of a joint batch: consecutive parts of a permutation that changes with every pass over the data.

    Args:
        count: videos there are; at least ``size * world``.
        size: videos per process.
        step, seed: decide, and nothing else does.
        rank, world: which part of the joint batch.

    Returns:
        (size,) indices of videos, none twice in a joint batch.
    """
    joint = size * world
    per_pass = count // joint
    order = np.random.default_rng([seed, 3, step // per_pass]).permutation(count)
    start = (step % per_pass) * joint + rank * size
    return order[start : start + size]


def video_rngs(size: int, step: int, seed: int, rank: int = 0, stream: int = 2) -> list[np.random.Generator]:
    """Where the chance of each video of a process's part comes from: its place in the joint batch.

    Args:
        size: videos per process.
        step, seed: as for ``draw_part``.
        rank: which part of the joint batch.
        stream: tells apart what a run draws for other purposes.
    """
    return [np.random.default_rng([seed, stream, step, place]) for place in range(rank * size, (rank + 1) * size)]


def _draw(rng: np.random.Generator, queries: Sequence[EncodedQuery], count: int) -> list[EncodedQuery]:
    """At most ``count`` of them, each at most once."""
    return [queries[index] for index in rng.permutation(len(queries))[:count]]
