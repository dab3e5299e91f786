"""Metrics of moment retrieval: recall at k, at a temporal IoU, per query type, with chance beside them.

A name says the task, the rank and the IoU: ``VR/R@1``, ``SVMR/R@5/IoU=0.5``, ``VCMR/R@1/IoU=0.7``. ``AveR`` in the place of the
rank is VALUE's mean of R@1, R@5 and R@10. ``/NMS`` behind a name says that moments which overlap a better one were suppressed
first; without it every moment counts, as in the tables of the field.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from hero_sdk.manifest import MomentSpec
from hero_sdk.spans import temporal_iou
from hero_train.errors import DataError
from hero_train.evaluation import Evaluation, Metrics, baseline_by_group, by_group

RANKS = (1, 5, 10, 100)
AVERAGED_RANKS = (1, 5, 10)
IOUS = (0.5, 0.7)
MOMENT_TASKS = ("SVMR", "VCMR")
SUPPRESSED = "/NMS"

UNKNOWN_VIDEO = -1

AGREEING = 2
"""So many of several annotators must agree with a prediction (DiDeMo, which has four or more)."""


def _names() -> Iterator[str]:
    for rank in (*(f"R@{rank}" for rank in RANKS), "AveR"):
        yield f"VR/{rank}"
        for task, iou, suppressed in product(MOMENT_TASKS, IOUS, ("", SUPPRESSED)):
            yield f"{task}/{rank}/IoU={iou}{suppressed}"


METRICS = tuple(sorted(_names()))
"""The names of what an evaluation of retrieval measures. Without a moment in the annotations there is VR only, and without
suppression in the search protocol there is no ``/NMS``."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Predictions for one query, best first.

    Attributes:
        video: (N,) int64, places of the videos in the corpus.
        times: (N, 2) float64, start and end in seconds; zeros where whole videos are ranked.
        score: (N,) float64, which is kept and not measured.
    """

    video: np.ndarray
    times: np.ndarray
    score: np.ndarray

    @classmethod
    def of(cls, predictions: Iterable[tuple[int, float, float, float]]) -> Ranking:
        """From (video, start, end, score) each."""
        table = np.array(list(predictions), dtype=np.float64).reshape(-1, 4)
        return cls(table[:, 0].astype(np.int64), table[:, 1:3], table[:, 3])

    def __len__(self) -> int:
        return len(self.video)


NOTHING = Ranking.of([])


@dataclass(frozen=True, eq=False)
class QueryResult:
    """What search gave for one annotated query.

    Attributes:
        query_id: of the annotation.
        type: of the query.
        video: place of the annotated video in the corpus; ``UNKNOWN_VIDEO`` where a test split hides it.
        moments: annotated (start, end) in seconds, one per annotator; none for a query about the whole video.
        videos: by similarity (VR).
        corpus_moments: over the whole corpus (VCMR).
        video_moments: within the annotated video (SVMR).
    """

    query_id: str
    type: str
    video: int
    moments: tuple[tuple[float, float], ...]
    videos: Ranking
    corpus_moments: Ranking = NOTHING
    video_moments: Ranking = NOTHING


def right_spans(spans: np.ndarray, moments: Sequence[tuple[float, float]], iou: float) -> np.ndarray:
    """Which of the spans, (N, 2) seconds, are right: (N,) bool.

    With one annotator the IoU with the moment must reach ``iou``; with several it must do so for at least two of them (the field's
    rule for DiDeMo, whose annotators often mark different moments).
    """
    overlaps = temporal_iou(spans[:, None], np.array(moments)[None]) >= iou
    return overlaps.sum(axis=1) >= min(AGREEING, len(moments))


def recalls(results: Sequence[QueryResult]) -> Metrics:
    """Recall of all three tasks in [0, 1], by names such as ``VCMR/R@1/IoU=0.7`` and ``VR/R@1``: the means of ``query_hits``."""
    return _means(query_hits(results))


def query_hits(results: Sequence[QueryResult]) -> dict[str, list[float]]:
    """Which queries were answered right, 1 or 0 each, by the names of the recalls that they are counted for.

    VR is measured on all queries, the other two on those with a moment. A moment is right when it lies in the annotated video and
    ``right_spans`` says so.

    Raises:
        DataError: no query, or one whose video is unknown.
    """
    if not results:
        raise DataError("The split has no query to evaluate; check its annotation file.")
    if hidden := [result.query_id for result in results if result.video == UNKNOWN_VIDEO]:
        raise DataError(
            f"{len(hidden)} queries do not tell which video they are about, such as {hidden[0]}: they can be searched for, "
            "and not measured."
        )
    hits: dict[str, list[float]] = {}
    for result in results:
        for rank in RANKS:
            hits.setdefault(f"VR/R@{rank}", []).append(bool((result.videos.video[:rank] == result.video).any()))
        if not result.moments:
            continue
        for task, found in (("SVMR", result.video_moments), ("VCMR", result.corpus_moments)):
            own = found.video == result.video
            for iou in IOUS:
                right = right_spans(found.times, result.moments, iou) & own
                for rank in RANKS:
                    hits.setdefault(f"{task}/R@{rank}/IoU={iou}", []).append(bool(right[:rank].any()))
    return hits


def _means(values: dict[str, list[float]]) -> Metrics:
    """The mean of each recall, and VALUE's mean over ranks."""
    table = {name: float(np.mean(entries)) for name, entries in values.items()}
    averages = {
        "/".join([task, "AveR", *iou]): float(
            np.mean([table["/".join([task, f"R@{one}", *iou])] for one in AVERAGED_RANKS])
        )
        for task, rank, *iou in (name.split("/") for name in table)
        if rank == "R@1"
    }
    return dict(sorted((table | averages).items()))


def recalls_by_type(results: Sequence[QueryResult]) -> dict[str, Metrics]:
    """``recalls`` for all queries ("all") and for each query type that occurs."""
    return by_group(results, _type, recalls)


def _type(result: QueryResult) -> str:
    return result.type


@dataclass(frozen=True)
class Searched:
    """What was searched: clips and durations (in seconds) of each video, seconds per clip, and the protocol."""

    clips: Sequence[int]
    durations: Sequence[float]
    interval: float
    moment: MomentSpec


def measure_retrieval(
    results: Sequence[QueryResult], suppressed: Sequence[QueryResult] | None, searched: Searched
) -> Evaluation:
    """Recalls by query type, with and without suppression, beside chance.

    Args:
        results: of all queries, without suppression.
        suppressed: of the same queries with it; None where the protocol has none.
        searched: decides what chance is.

    Raises:
        DataError: no query, or one whose video is unknown.
    """
    tables = recalls_by_type(results)
    for group, table in recalls_by_type(suppressed).items() if suppressed else ():
        tables[group] |= {f"{name}{SUPPRESSED}": value for name, value in table.items() if not name.startswith("VR/")}
    drawn = by_group(results, _type, lambda part: chance(part, searched))
    return Evaluation(
        metrics=tables,
        baselines=baseline_by_group("chance", drawn),
        counts={"queries": len(results), "videos": len(searched.clips)},
    )


def chance(results: Sequence[QueryResult], searched: Searched) -> Metrics:
    """What drawing at random, without replacement, from all that search can return would reach on average; nothing is suppressed.

    Args:
        results: the annotated queries; their predictions are not looked at.
        searched: what is drawn from.
    """
    spans = [
        _all_spans(count, duration, searched.interval, searched.moment)
        for count, duration in zip(searched.clips, searched.durations, strict=True)
    ]
    total = sum(map(len, spans))
    values: dict[str, list[float]] = {}
    for result in results:
        for rank in RANKS:
            values.setdefault(f"VR/R@{rank}", []).append(min(1.0, rank / len(spans)))
        if not result.moments:
            continue
        own = spans[result.video]
        for iou in IOUS:
            right = int(right_spans(own, result.moments, iou).sum())
            for rank in RANKS:
                values.setdefault(f"SVMR/R@{rank}/IoU={iou}", []).append(_draw(right, len(own), rank))
                values.setdefault(f"VCMR/R@{rank}/IoU={iou}", []).append(_draw(right, total, rank))
    return _means(values)


def _all_spans(clips: int, duration: float, interval: float, moment: MomentSpec) -> np.ndarray:
    shortest = min(moment.min_clips, clips)
    pairs = [
        (first, first + length)
        for length in range(shortest, max(shortest, min(moment.max_clips, clips)) + 1)
        for first in range(clips - length + 1)
    ]
    return np.minimum(np.array(pairs) * interval, duration)


def _draw(right: int, total: int, drawn: int) -> float:
    """Probability that at least one of ``drawn`` out of ``total`` is one of the ``right`` ones."""
    if drawn >= total:
        return float(right > 0)
    return 1.0 - math.comb(total - right, drawn) / math.comb(total, drawn)
