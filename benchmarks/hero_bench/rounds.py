"""Measuring: the calls of one case in rounds that go through all variants in turn, after a check that all give the same."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from hero_bench.errors import UnequalResultsError
from hero_bench.statistics import Rounds

WARM_UP_CALLS = 3
"""At most; a call that fills a round by itself is warmed up once, or a slow case would spend its time on that."""

ROUND_SECONDS = 0.1
"""A variant is called until about so much time went by, so that a round of a quick call is more than one sample."""

MAX_CALLS = 20
"""Calls per variant and round at most."""

MIN_COSINE_REDUCED = 0.99
"""Between variants of different precision. An int8 encoder keeps 0.9997; below this, another model is at work."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Case:
    """One thing that a user waits for, in all the ways in which it can be had.

    Attributes:
        name: what it is.
        unit: what ``items`` counts, in the singular.
        items: how many of them one call handles.
        calls: by variant; the first is the baseline.
        output: turns the result of a call into vectors (n, width) that must agree between the variants; None where results
            may differ.
        precisions: of the variants, where ``output`` is given.
        facts: about the input, for the reader of the results.
    """

    name: str
    unit: str
    items: int
    calls: Mapping[str, Callable[[], object]]
    output: Callable[[object], np.ndarray] | None = None
    precisions: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, int] = field(default_factory=dict)

    @property
    def baseline(self) -> str:
        """Name of the variant that the others are compared with."""
        return next(iter(self.calls))


@dataclass(frozen=True)
class Deviation:
    """How far a variant's result lies from the baseline's: largest error by the largest value, smallest cosine of a vector."""

    relative_error: float
    cosine: float


def check_equal(case: Case) -> dict[str, Deviation]:
    """Run each variant once and compare what comes out with the baseline's.

    Variants of one precision must agree as closely as an export must with its model; those of another precision in direction.

    Returns:
        The deviations of the variants but the baseline; empty where results may differ.

    Raises:
        UnequalResultsError: a variant computes something else than the baseline.
    """
    # Imports torch, which a help text or an error of the command line should not wait for.
    from hero_export.verification.comparison import MAX_RELATIVE_ERROR, MIN_COSINE, compare

    if case.output is None:
        return {}
    vectors = {variant: case.output(call()) for variant, call in case.calls.items()}
    expected = vectors.pop(case.baseline)
    deviations = {}
    for variant, found in vectors.items():
        if found.shape != expected.shape:
            raise UnequalResultsError(
                f"'{case.name}': {variant} gives an array of shape {found.shape} and {case.baseline} one of {expected.shape}. "
                "Measure variants of one model: the checkpoint and the server must be those of the bundle."
            )
        used = np.ones(expected.shape[:-1], dtype=bool)
        measured = compare(case.name, "", variant, len(expected), found, expected, used)
        same_precision = case.precisions.get(variant) == case.precisions.get(case.baseline)
        # Written so that a NaN fails.
        if not (measured.passed if same_precision else measured.cosine >= MIN_COSINE_REDUCED):
            expectation = (
                f"an error of at most {MAX_RELATIVE_ERROR:g} and a cosine of at least {MIN_COSINE}"
                if same_precision
                else f"a cosine of at least {MIN_COSINE_REDUCED}, since their precisions differ"
            )
            raise UnequalResultsError(
                f"'{case.name}': the results of {variant} and {case.baseline} differ (largest error "
                f"{measured.relative_error:.1e} of the scale, smallest cosine {measured.cosine:.6f}); expected {expectation}. "
                "Nothing was timed. Is the checkpoint the one that the bundle was exported from?"
            )
        deviations[variant] = Deviation(measured.relative_error, measured.cosine)
    return deviations


def measure(
    case: Case,
    *,
    rounds: int,
    seconds: float,
    round_seconds: float = ROUND_SECONDS,
    clock: Clock = time.perf_counter,
) -> dict[str, Rounds]:
    """Warm the variants up and measure them in rounds: A B C, A B C, ..., each called as often as fits ``round_seconds``.

    Args:
        case: what to call.
        rounds: how many at most.
        seconds: no round begins that would end later than this, but for the first; warm-up included.
        round_seconds: 0 calls every variant once to warm up and once in each round, so that the calls of a round belong together.
        clock: seconds, monotonic.

    Returns:
        The durations of each variant, with the same number of rounds (at least 1).
    """
    began = clock()
    calls = {variant: _calls_per_round(call, round_seconds, clock) for variant, call in case.calls.items()}
    durations: dict[str, list[tuple[float, ...]]] = {variant: [] for variant in calls}
    for _ in range(rounds):
        round_began = clock()
        for variant, call in case.calls.items():
            durations[variant].append(tuple(_timed(call, clock) for _ in range(calls[variant])))
        now = clock()
        if now - began + (now - round_began) > seconds:
            break
    return {variant: tuple(taken) for variant, taken in durations.items()}


def _calls_per_round(call: Callable[[], object], seconds: float, clock: Clock) -> int:
    """Warm a variant up, and see how often it can be called in a round."""
    taken = [_timed(call, clock)]
    while len(taken) < WARM_UP_CALLS and sum(taken) < seconds:
        taken.append(_timed(call, clock))
    quickest = min(taken)
    if seconds == 0:
        return 1
    return min(MAX_CALLS, max(1, math.ceil(seconds / quickest))) if quickest > 0 else MAX_CALLS


def _timed(call: Callable[[], object], clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start
