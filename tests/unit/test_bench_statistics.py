"""The statistics of the benchmarks: against the standard library's, and against what must hold for any durations."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hero_bench.errors import BenchmarkError
from hero_bench.statistics import MIN_ROUNDS, Rounds, compare, summarise

patient = settings(deadline=None)  # the machine may be busy
durations = st.floats(min_value=1e-6, max_value=1e3)
samples = st.lists(durations, min_size=1, max_size=40)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Rounds, Rounds]:
    """Two variants with the same number of rounds, each round with calls of its own number."""
    rounds = draw(st.integers(1, 12))
    one = st.lists(st.lists(durations, min_size=1, max_size=4).map(tuple), min_size=rounds, max_size=rounds).map(tuple)
    return draw(one), draw(one)


def noisy(rng: np.random.Generator, scale: float, noise: float, rounds: int = 12, calls: int = 5) -> Rounds:
    return tuple(tuple(scale * np.exp(noise * rng.standard_normal(calls))) for _ in range(rounds))


@patient
@given(samples.filter(lambda values: len(values) > 1))
def test_percentiles_are_those_of_the_standard_library(values: list[float]) -> None:
    summary = summarise(values)
    hundredths = statistics.quantiles(values, n=100, method="inclusive")
    expected = [hundredths[q - 1] for q in (50, 95, 99)]
    assert [summary.p50, summary.p95, summary.p99] == pytest.approx(expected, rel=1e-9)
    assert summary.mean == pytest.approx(statistics.fmean(values), rel=1e-9)
    assert summary.n == len(values)


@patient
@given(samples, st.randoms(use_true_random=False))
def test_a_summary_is_ordered_and_does_not_depend_on_the_order_of_the_calls(
    values: list[float], random: object
) -> None:
    summary = summarise(values)
    assert min(values) <= summary.p50 <= summary.p95 <= summary.p99 <= max(values)
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = summarise(shuffled)
    assert (again.p50, again.p95, again.p99) == (summary.p50, summary.p95, summary.p99)
    assert again.mean == pytest.approx(summary.mean)


def test_nothing_cannot_be_summarised_or_compared() -> None:
    with pytest.raises(BenchmarkError, match="no duration"):
        summarise([])
    with pytest.raises(BenchmarkError, match="0 and 0 rounds"):
        compare((), ())
    with pytest.raises(BenchmarkError, match="2 and 1 rounds"):
        compare(((1.0,), (1.0,)), ((1.0,),))


@patient
@given(pairs())
def test_the_ratio_is_the_median_over_rounds_and_lies_in_its_interval(pair: tuple[Rounds, Rounds]) -> None:
    ours, theirs = pair
    result = compare(ours, theirs)
    ratios = [statistics.median(a) / statistics.median(b) for a, b in zip(ours, theirs, strict=True)]
    assert result.ratio == pytest.approx(statistics.median(ratios))
    assert min(ratios) * (1 - 1e-9) <= result.low <= result.high <= max(ratios) * (1 + 1e-9)
    assert result == compare(ours, theirs)


@patient
@given(pairs(), st.floats(0.1, 10))
def test_a_machine_that_is_slower_as_a_whole_changes_no_ratio(pair: tuple[Rounds, Rounds], factor: float) -> None:
    ours, theirs = pair
    slower = [tuple(tuple(factor * call for call in calls) for calls in rounds) for rounds in pair]
    expected, found = compare(ours, theirs), compare(slower[0], slower[1])
    assert (found.ratio, found.low, found.high) == pytest.approx((expected.ratio, expected.low, expected.high))


@patient
@given(pairs())
def test_a_variant_is_the_same_as_itself(pair: tuple[Rounds, Rounds]) -> None:
    result = compare(pair[0], pair[0])
    assert (result.ratio, result.low, result.high) == (1.0, 1.0, 1.0)
    assert result.verdict == ("same" if len(pair[0]) >= MIN_ROUNDS else "too few rounds")


@patient
@given(pairs())
def test_no_difference_smaller_than_the_spread_of_the_rounds_is_called_one(pair: tuple[Rounds, Rounds]) -> None:
    result = compare(*pair)
    for rounds in pair:
        medians = [statistics.median(calls) for calls in rounds]
        if len(medians) > 1:
            lower, middle, upper = statistics.quantiles(medians, n=4, method="inclusive")
            assert result.spread >= (upper - lower) / middle * (1 - 1e-9)
    if result.verdict in ("faster", "slower"):
        assert abs(result.ratio - 1) > result.spread
        assert not result.low <= 1 <= result.high
        assert (result.verdict == "faster") == (result.ratio < 1)


def test_a_large_difference_is_found_in_both_directions() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        slow, fast = noisy(rng, 2.0, 0.1), noisy(rng, 1.0, 0.1)
        assert compare(slow, fast).verdict == "slower"
        assert compare(fast, slow).verdict == "faster"
        assert compare(slow, fast).low < 2 * 1.1


def test_equal_variants_are_hardly_ever_called_different() -> None:
    rng = np.random.default_rng(1)
    verdicts = [compare(noisy(rng, 1.0, 0.2), noisy(rng, 1.0, 0.2)).verdict for _ in range(200)]
    assert set(verdicts) <= {"same", "faster", "slower"}
    assert verdicts.count("same") >= 190


def test_a_few_per_cent_in_the_noise_are_not_called_a_difference() -> None:
    rng = np.random.default_rng(2)
    verdicts = [compare(noisy(rng, 1.03, 0.3, calls=3), noisy(rng, 1.0, 0.3, calls=3)).verdict for _ in range(100)]
    assert verdicts.count("same") >= 95


def test_what_disturbs_a_whole_round_does_not_move_the_ratio() -> None:
    disturbance = itertools.cycle([1.0, 3.0, 1.0, 8.0])
    ours, theirs = zip(*(((1.5 * f,), (1.0 * f,)) for f, _ in zip(disturbance, range(12), strict=False)), strict=True)
    result = compare(ours, theirs)
    assert (result.ratio, result.low, result.high) == pytest.approx((1.5, 1.5, 1.5))
    # The rounds differ by far more than the variants do, so it is not called a difference either.
    assert result.verdict == "same"


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    results = [compare(noisy(rng, 1.2, 0.15, 15), noisy(rng, 1.0, 0.15, 15)) for _ in range(200)]
    covered = sum(result.low <= 1.2 <= result.high for result in results)
    assert 180 <= covered <= 200


def test_too_few_rounds_give_no_verdict() -> None:
    fast, slow = ((1.0,),) * MIN_ROUNDS, ((10.0,),) * MIN_ROUNDS
    assert compare(slow, fast).verdict == "slower"
    assert compare(slow[1:], fast[1:]).verdict == "too few rounds"
