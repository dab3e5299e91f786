"""Which form of a graph is faster on this machine: both run side by side, on the same inputs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hero_export.verification.comparison import GraphRunner

WARM_UP = 2
"""Runs before the first one that counts."""

FEWEST, MOST = 5, 50
"""Rounds, each with one run of either form."""

SECONDS = 3.0
"""For the rounds of one batch; the fewest are run in any case."""

BATCHES = (1, 8)

WORTH = 0.98
"""The largest ratio of times at which onnxruntime's operators are taken; the standard's run in every engine."""


@dataclass(frozen=True)
class SpeedComparison:
    """Both forms of one graph.

    Attributes:
        graph: name in the manifest.
        batch: rows of each run.
        rounds: how often either form ran.
        standard_ms, onnxruntime_ms: medians, in milliseconds.
        ratio: of onnxruntime's time to the standard's, the median over the rounds: what slows a machine down slows both.
    """

    graph: str
    batch: int
    rounds: int
    standard_ms: float
    onnxruntime_ms: float
    ratio: float


def compare_speed(
    standard: GraphRunner, onnxruntime: GraphRunner, inputs: Mapping[str, np.ndarray], max_batch: int
) -> list[SpeedComparison]:
    """Time both forms of a graph on a row and on several, in onnxruntime on the CPU with the SDK's settings.

    Args:
        standard, onnxruntime: the two forms.
        inputs: at least one row, which is repeated.
        max_batch: the largest batch.
    """
    compared = []
    for batch in sorted({min(batch, max_batch) for batch in BATCHES}):
        rows = {name: np.resize(array, (batch, *array.shape[1:])) for name, array in inputs.items()}
        for _ in range(WARM_UP):
            for runner in (standard, onnxruntime):
                runner.run(rows)
        pairs: list[tuple[float, float]] = []
        end = time.perf_counter() + SECONDS
        while len(pairs) < FEWEST or (len(pairs) < MOST and time.perf_counter() < end):
            pairs.append((_milliseconds(standard, rows), _milliseconds(onnxruntime, rows)))
        compared.append(
            SpeedComparison(
                graph=standard.name,
                batch=batch,
                rounds=len(pairs),
                standard_ms=statistics.median(first for first, _ in pairs),
                onnxruntime_ms=statistics.median(second for _, second in pairs),
                ratio=statistics.median(second / first for first, second in pairs),
            )
        )
    return compared


def is_faster(compared: list[SpeedComparison]) -> bool:
    """Whether onnxruntime's operators are worth taking: by the geometric mean of the ratios."""
    return statistics.geometric_mean(one.ratio for one in compared) <= WORTH


def _milliseconds(runner: GraphRunner, rows: Mapping[str, np.ndarray]) -> float:
    start = time.perf_counter()
    runner.run(rows)
    return 1e3 * (time.perf_counter() - start)
