"""Metrics of moment retrieval: recall at k, at a temporal IoU, per query type, with chance beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hero_sdk.manifest import MomentSpec
from hero_sdk.spans import temporal_iou

RANKS = (1, 5, 10, 100)
IOUS = (0.5, 0.7)

METRICS = tuple(
    sorted(
        [f"VR/R@{rank}" for rank in RANKS]
        + [f"{task}/R@{rank}/IoU={iou}" for task in ("SVMR", "VCMR") for rank in RANKS for iou in IOUS]
    )
)
"""The names of what an evaluation measures."""


@dataclass(frozen=True)
class Prediction:
    """A predicted moment: place of the video in the corpus, start and end in seconds."""

    video: int
    start: float
    end: float


@dataclass(frozen=True)
class QueryResult:
    """What search gave for one annotated query.

    Attributes:
        type: of the query.
        video: place of the annotated video in the corpus.
        moment: annotated (start, end) in seconds.
        videos: places of the videos by similarity, best first (VR).
        corpus_moments: moments over the whole corpus, best first (VCMR).
        video_moments: moments within the annotated video, best first (SVMR).
    """

    type: str
    video: int
    moment: tuple[float, float]
    videos: Sequence[int] = field(repr=False)
    corpus_moments: Sequence[Prediction] = field(repr=False)
    video_moments: Sequence[Prediction] = field(repr=False)


def recalls(results: Sequence[QueryResult]) -> dict[str, float]:
    """Recall of all three tasks in [0, 1], by names such as ``VCMR/R@1/IoU=0.7`` and ``VR/R@1``.

    A moment is right when it lies in the annotated video and its IoU with the annotated moment reaches the threshold.
    """
    metrics: dict[str, list[float]] = {}
    for result in results:
        for rank in RANKS:
            metrics.setdefault(f"VR/R@{rank}", []).append(result.video in result.videos[:rank])
        for task, moments in (("SVMR", result.video_moments), ("VCMR", result.corpus_moments)):
            found = np.array([(moment.start, moment.end) for moment in moments[: max(RANKS)]]).reshape(-1, 2)
            overlap = temporal_iou(found, np.array(result.moment))
            overlap[[moment.video != result.video for moment in moments[: max(RANKS)]]] = 0.0
            for iou in IOUS:
                for rank in RANKS:
                    metrics.setdefault(f"{task}/R@{rank}/IoU={iou}", []).append(bool((overlap[:rank] >= iou).any()))
    return {name: float(np.mean(values)) for name, values in sorted(metrics.items())}


def recalls_by_type(results: Sequence[QueryResult]) -> dict[str, dict[str, float]]:
    """``recalls`` for all queries ("all") and for each query type that occurs."""
    types = sorted({result.type for result in results})
    tables = {"all": recalls(results)}
    tables |= {kind: recalls([result for result in results if result.type == kind]) for kind in types}
    return tables


def chance(
    results: Sequence[QueryResult],
    clips: Sequence[int],
    durations: Sequence[float],
    interval: float,
    moment: MomentSpec,
) -> dict[str, float]:
    """What drawing moments at random, without replacement, from all that search can return would reach on average.

    Args:
        results: the annotated queries; their predictions are not looked at.
        clips, durations: of each video of the corpus, the latter in seconds.
        interval: seconds per clip.
        moment: shortest and longest span.
    """
    spans = [_all_spans(count, duration, interval, moment) for count, duration in zip(clips, durations, strict=True)]
    total = sum(map(len, spans))
    values: dict[str, list[float]] = {}
    for result in results:
        own = spans[result.video]
        overlap = temporal_iou(own, np.array(result.moment))
        for rank in RANKS:
            values.setdefault(f"VR/R@{rank}", []).append(min(1.0, rank / len(spans)))
            for iou in IOUS:
                right = int((overlap >= iou).sum())
                values.setdefault(f"SVMR/R@{rank}/IoU={iou}", []).append(_draw(right, len(own), rank))
                values.setdefault(f"VCMR/R@{rank}/IoU={iou}", []).append(_draw(right, total, rank))
    return {name: float(np.mean(items)) for name, items in sorted(values.items())}


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
