"""Judging what the SDK answers: the metrics of moment retrieval through `corpus.search`, in process or through a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hero_sdk import Corpus, Hero, Moment
from hero_sdk.spans import temporal_iou
from hero_train.data.annotations import MomentQuery
from hero_train.metrics import QueryResult, Ranking, recalls_by_type


def annotated_id(video_id: str) -> str:
    """The name of a video in annotations: ``hero index`` calls it by its path, which ends in ``.mp4``."""
    return Path(video_id).stem


DEPTH = 100  # moments and videos per query: what R@100 needs
RIGHT_IOU = 0.7


@dataclass(frozen=True)
class Answer:
    """A query of the test set and the moments that the corpus gave for it, best first."""

    query: MomentQuery
    moments: Sequence[Moment]
    result: QueryResult

    @property
    def iou(self) -> float:
        """Temporal IoU of the best moment with the annotated one; 0 in another video."""
        best = self.moments[0]
        if annotated_id(best.video_id) != self.query.video_id:
            return 0.0
        span = np.array([[best.start, best.end]])
        return float(temporal_iou(span, np.array(self.query.moment))[0])

    @property
    def right(self) -> bool:
        """Whether the best moment is the annotated one (VCMR, R@1, IoU 0.7)."""
        return self.iou >= RIGHT_IOU


def ask(hero: Hero, corpus: Corpus, queries: Sequence[MomentQuery]) -> list[Answer]:
    """Search the corpus for each query: videos, moments in all videos, moments in the annotated one."""
    ids = corpus.video_ids()
    place = {video_id: number for number, video_id in enumerate(ids)}
    indexed = {annotated_id(video_id): video_id for video_id in ids}

    def ranking(moments: Sequence[Moment]) -> Ranking:
        return Ranking.of((place[moment.video_id], moment.start, moment.end, moment.score) for moment in moments)

    answers = []
    for query, encoded in zip(queries, hero.encode_queries([query.text for query in queries]), strict=True):
        moments = corpus.search(encoded, DEPTH)
        own = indexed[query.video_id]
        result = QueryResult(
            query_id=query.query_id,
            type=query.type,
            video=place[own],
            moments=query.moments,
            videos=Ranking.of((place[hit.video_id], 0, 0, hit.score) for hit in corpus.search_videos(encoded, DEPTH)),
            corpus_moments=ranking(moments),
            video_moments=ranking(corpus.search(encoded, DEPTH, videos=[own])),
        )
        answers.append(Answer(query, moments, result))
    return answers


def metrics(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """Recalls in [0, 1] by query type. Search suppresses what overlaps a better moment, which evaluations call ``/NMS``."""
    return recalls_by_type([answer.result for answer in answers])


@dataclass(frozen=True)
class Difference:
    """How far two lists of answers to the same queries are apart: moments that differ, and the largest score difference."""

    moments: int
    score: float


def compare(one: Sequence[Sequence[Moment]], other: Sequence[Sequence[Moment]], tolerance: float = 1e-4) -> Difference:
    """Compare two engines' moments for the same queries. Neighbours of equal score, to the tolerance, may change places."""
    different, largest = 0, 0.0
    for first, second in zip(one, other, strict=True):
        scores = {_place(moment): moment.score for moment in second}
        for moment, counterpart in zip(first, second, strict=True):
            largest = max(largest, abs(moment.score - counterpart.score))
            same = _place(moment) == _place(counterpart)
            different += not same and abs(scores.get(_place(moment), -1.0) - moment.score) > tolerance
    return Difference(different, largest)


def _place(moment: Moment) -> tuple[str, float, float]:
    return moment.video_id, moment.start, moment.end
