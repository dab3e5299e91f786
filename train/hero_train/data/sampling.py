"""Batches of videos with queries, each a pure function of the seed and the step, so that a resumed run draws the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hero_sdk.rows import PackedVideos, RowGeometry, pack_queries, pack_videos
from hero_sdk.types import IntArray
from hero_train.data.corpus import CorpusVideo, EncodedQuery, without_picture, without_text
from hero_train.errors import DataError

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
        query_video: (Q,) int64 the video of each query, in the order of ``packed.videos``.
        view: what was shown of the videos.
    """

    packed: PackedVideos
    token_ids: IntArray
    segment_ids: IntArray
    targets: np.ndarray
    query_video: np.ndarray
    view: View = "both"


@dataclass(frozen=True)
class SamplingConfig:
    """How batches are drawn.

    Attributes:
        videos: per batch and process.
        queries_per_video: at most; a video with fewer gives all it has.
        both, picture, text: relative frequency of batches that show frames and subtitles, frames only, subtitles only. A model
            that always sees both learns one of them and ignores the other; blanking them in turn cures that. A data set without
            query types ("v", "t", "vt") leaves the last two at 0.
    """

    videos: int = 32
    queries_per_video: int = 4
    both: float = 1.0
    picture: float = 0.0
    text: float = 0.0


class RetrievalSampler:
    """Draws batches from a corpus.

    Args:
        corpus: the training videos; those without a query are left out.
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
        self._videos = [video for video in corpus if video.queries]
        self._config, self._geometry, self._seed, self._rank, self._world = config, geometry, seed, rank, world
        if len(self._videos) < config.videos * world:
            raise DataError(
                f"The training set has {len(self._videos)} videos with queries and a batch takes {config.videos * world}; "
                "lower sampling.videos."
            )
        weights = {"both": config.both, "picture": config.picture, "text": config.text}
        types = {query.type for video in self._videos for query in video.queries}
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
        """The batch of a step; the same for the same seed, step and rank."""
        shared = np.random.default_rng([self._seed, 1, step])
        view = self._views[shared.choice(len(self._views), p=self._probabilities)]
        rng = np.random.default_rng([self._seed, 2, step, self._rank])
        chosen = [self._videos[index] for index in self._indices(step)]
        queries: list[EncodedQuery] = []
        owners: list[int] = []
        for number, video in enumerate(chosen):
            fitting = [query for query in video.queries if query.type in _ANSWERABLE[view]]
            picked = rng.permutation(len(fitting))[: self._config.queries_per_video]
            queries += [fitting[index] for index in picked]
            owners += [number] * len(picked)
        if not queries:
            return self.batch(step + 1_000_003)  # no video of this draw has a fitting query: draw another
        return self._collate(chosen, queries, owners, view)

    def _indices(self, step: int) -> np.ndarray:
        """Places of this process's videos: consecutive parts of a permutation that changes with every pass over the data."""
        joint = self._config.videos * self._world
        per_pass = len(self._videos) // joint
        order = np.random.default_rng([self._seed, 3, step // per_pass]).permutation(len(self._videos))
        start = (step % per_pass) * joint + self._rank * self._config.videos
        return order[start : start + self._config.videos]

    def _collate(
        self, videos: Sequence[CorpusVideo], queries: Sequence[EncodedQuery], owners: Sequence[int], view: View
    ) -> RetrievalBatch:
        show = {"both": lambda video: video, "picture": without_text, "text": without_picture}[view]
        longest = max(len(query.tokens) for query in queries)
        token_ids, segment_ids = pack_queries(
            [query.tokens for query in queries], min(longest, self._geometry.query_tokens)
        )
        return RetrievalBatch(
            packed=pack_videos([show(video.input) for video in videos], self._geometry),
            token_ids=token_ids,
            segment_ids=segment_ids,
            targets=np.array([(query.first, query.last) for query in queries], dtype=np.int64),
            query_video=np.array(owners, dtype=np.int64),
            view=view,
        )
