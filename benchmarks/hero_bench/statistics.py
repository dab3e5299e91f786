"""The statistics of all measurements: summaries of durations, and when two of them differ.

Durations are measured in rounds that go through all variants in turn (see ``hero_bench.rounds``). What disturbs the machine for a
while then hits the variants alike, and what is compared is the variants of one round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hero_bench.errors import BenchmarkError

MIN_ROUNDS = 5
"""Fewer rounds say nothing about how much rounds differ."""

RESAMPLES = 2000
COVERAGE = 95.0
"""Percent of the resamples that the bootstrap interval holds."""

Rounds = tuple[tuple[float, ...], ...]
"""Durations in seconds: one tuple per round, one entry per call."""

Verdict = Literal["faster", "slower", "same", "too few rounds"]


@dataclass(frozen=True)
class Summary:
    """``n`` durations: mean and percentiles (linear between neighbours), in their unit."""

    n: int
    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Comparison:
    """A variant against the baseline of the same run.

    Attributes:
        ratio: median over the rounds of the variant's median duration by the baseline's in that round; below 1 is faster.
        low, high: 95 % bootstrap interval of the ratio, over rounds.
        spread: the distance between the quartiles of the round medians, by their median; of the two variants the larger.
        verdict: "faster" or "slower" only where the interval excludes 1 and the ratio lies further from 1 than the spread.
    """

    ratio: float
    low: float
    high: float
    spread: float
    verdict: Verdict


def summarise(durations: Sequence[float]) -> Summary:
    """Summarise durations.

    Raises:
        BenchmarkError: there is none.
    """
    if not len(durations):
        raise BenchmarkError("There is no duration to summarise; measure at least one call.")
    p50, p95, p99 = np.percentile(durations, (50, 95, 99))
    return Summary(len(durations), float(np.mean(durations)), float(p50), float(p95), float(p99))


def compare(variant: Rounds, baseline: Rounds, *, seed: int = 0) -> Comparison:
    """Compare two variants that were measured in the same rounds.

    Args:
        variant, baseline: with the same number of rounds, each with at least one call.
        seed: of the bootstrap.

    Raises:
        BenchmarkError: no rounds, or not the same number.
    """
    if not variant or len(variant) != len(baseline):
        raise BenchmarkError(
            f"The variants have {len(variant)} and {len(baseline)} rounds; expected the same number, at least 1."
        )
    ours, theirs = _medians(variant), _medians(baseline)
    ratios = ours / theirs
    low, high = _bootstrap_median(ratios, seed)
    ratio, spread = float(np.median(ratios)), max(_spread(ours), _spread(theirs))
    return Comparison(ratio, low, high, spread, _verdict(len(ratios), ratio, low, high, spread))


def _verdict(rounds: int, ratio: float, low: float, high: float, spread: float) -> Verdict:
    if rounds < MIN_ROUNDS:
        return "too few rounds"
    if low <= 1 <= high or abs(ratio - 1) <= spread:
        return "same"
    return "faster" if ratio < 1 else "slower"


def _medians(rounds: Rounds) -> npt.NDArray[np.float64]:
    return np.asarray([np.median(calls) for calls in rounds], dtype=np.float64)


def _spread(medians: npt.NDArray[np.float64]) -> float:
    lower, middle, upper = np.percentile(medians, (25, 50, 75))
    return float((upper - lower) / middle)


def _bootstrap_median(values: npt.NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Percentile interval of the median, from resamples with replacement."""
    draws = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    tail = (100 - COVERAGE) / 2
    low, high = np.percentile(np.median(values[draws], axis=1), (tail, 100 - tail))
    return float(low), float(high)
