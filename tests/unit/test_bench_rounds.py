"""Measuring in rounds, with a clock that only the measured calls move; and the refusal to compare unequal results."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from hero_bench.errors import UnequalResultsError
from hero_bench.rounds import MAX_CALLS, ROUND_SECONDS, WARM_UP_CALLS, Case, check_equal, measure


class FakeTime:
    """A clock, and calls that take what they are told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.log: list[str] = []

    def clock(self) -> float:
        return self.now

    def call(self, name: str, *seconds: float) -> Callable[[], None]:
        """A call that takes these times in turn, and the last one from then on."""
        times = list(seconds)

        def run() -> None:
            self.log.append(name)
            self.now += times.pop(0) if len(times) > 1 else times[0]

        return run


def case(calls: dict[str, Callable[[], object]]) -> Case:
    return Case("a case", "query", 1, calls)


def vectors(**results: np.ndarray) -> Case:
    def give(result: np.ndarray) -> Callable[[], object]:
        return lambda: result

    precisions = dict.fromkeys(results, "fp32")
    return Case("a case", "query", 1, {name: give(result) for name, result in results.items()}, np.asarray, precisions)


def test_each_round_goes_through_all_variants() -> None:
    time = FakeTime()
    calls = {name: time.call(name, 0.5) for name in "ABC"}
    durations = measure(case(calls), rounds=3, seconds=1000, clock=time.clock)
    # The first of each is its warm-up.
    assert time.log == list("ABC") + list("ABC") * 3
    assert all(durations[name] == ((0.5,),) * 3 for name in "ABC")


def test_the_calls_of_a_round_belong_together_however_quick_they_are() -> None:
    time = FakeTime()
    calls = {name: time.call(name, seconds) for name, seconds in (("A", 0.0), ("B", 1e-4), ("C", 7.0))}
    durations = measure(case(calls), rounds=3, seconds=1000, round_seconds=0.0, clock=time.clock)
    assert time.log == list("ABC") * 4
    assert [len(round_) for taken in durations.values() for round_ in taken] == [1] * 9


def test_what_is_measured_is_the_call_and_not_the_warm_up() -> None:
    time = FakeTime()
    slow = time.call("A", 9.0, 1.0, 2.0, 3.0)
    durations = measure(case({"A": slow}), rounds=3, seconds=1000, clock=time.clock)
    assert np.ravel(durations["A"]) == pytest.approx([1, 2, 3])


def test_quick_calls_are_warmed_up_more_than_once() -> None:
    time = FakeTime()
    first = time.call("A", *[ROUND_SECONDS / 4] * WARM_UP_CALLS, 0.5)
    durations = measure(case({"A": first}), rounds=2, seconds=1000, clock=time.clock)
    assert len(time.log) == WARM_UP_CALLS + 2 * 4
    assert np.unique(np.round(durations["A"], 9)).tolist() == [0.5]


@pytest.mark.parametrize(
    ("seconds", "calls"),
    [(ROUND_SECONDS * 5, 1), (ROUND_SECONDS / 4.5, 5), (ROUND_SECONDS / 1000, MAX_CALLS), (0.0, MAX_CALLS)],
)
def test_quick_calls_are_measured_several_times_per_round(seconds: float, calls: int) -> None:
    time = FakeTime()
    durations = measure(case({"A": time.call("A", seconds)}), rounds=4, seconds=1000, clock=time.clock)
    assert [len(one) for one in durations["A"]] == [calls] * 4


def test_no_round_begins_that_would_end_too_late() -> None:
    time = FakeTime()
    calls = {"A": time.call("A", 1.0), "B": time.call("B", 2.0)}
    # Warm-up takes 3 s and so does a round: the second one ends at 9 s, a third would end at 12 s.
    durations = measure(case(calls), rounds=10, seconds=11.5, clock=time.clock)
    assert time.now - 100 == pytest.approx(9)
    assert len(durations["A"]) == len(durations["B"]) == 2


def test_the_first_round_is_always_measured() -> None:
    time = FakeTime()
    durations = measure(case({"A": time.call("A", 50.0)}), rounds=10, seconds=1.0, clock=time.clock)
    assert durations["A"] == ((50.0,),)


def test_an_error_of_a_call_is_not_swallowed() -> None:
    def fail() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        measure(case({"A": fail}), rounds=1, seconds=1)


def test_equal_results_pass_with_how_far_they_are_apart() -> None:
    expected = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    near = expected.copy()
    near[2, 3] += 1e-5
    deviations = check_equal(vectors(base=expected, same=expected.copy(), near=near))
    assert set(deviations) == {"same", "near"}
    assert deviations["same"].relative_error == 0
    error = float(near[2, 3]) - float(expected[2, 3])
    assert deviations["near"].relative_error == pytest.approx(error / np.abs(expected).max(), rel=1e-6)


@pytest.mark.parametrize("damage", ["one value", "not a number", "another row", "scaled"])
def test_unequal_results_are_refused(damage: str) -> None:
    expected = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    other = expected.copy()
    if damage == "one value":
        other[2, 3] += 0.01
    elif damage == "not a number":
        other[0, 0] = math.nan
    elif damage == "another row":
        other[[0, 1]] = other[[1, 0]]
    else:
        other *= 1.01
    with pytest.raises(UnequalResultsError, match=r"'a case': the results of other and base differ.*Nothing was timed"):
        check_equal(vectors(base=expected, good=expected, other=other))


def test_results_of_another_shape_are_refused() -> None:
    with pytest.raises(UnequalResultsError, match=r"\(4, 8\) and base one of \(5, 8\)"):
        check_equal(vectors(base=np.ones((5, 8), np.float32), other=np.ones((4, 8), np.float32)))


def test_variants_of_another_precision_must_agree_in_direction() -> None:
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((5, 256)).astype(np.float32)
    rounded = expected + 0.05 * rng.standard_normal(expected.shape).astype(np.float32)
    wrong = expected + 0.5 * rng.standard_normal(expected.shape).astype(np.float32)

    def with_precision(result: np.ndarray) -> Case:
        given = vectors(base=expected, other=result)
        return Case(given.name, given.unit, 1, given.calls, given.output, {"base": "fp32", "other": "int8"})

    assert check_equal(with_precision(rounded))["other"].cosine > 0.99
    with pytest.raises(UnequalResultsError, match=r"since their precisions differ"):
        check_equal(with_precision(wrong))
    with pytest.raises(UnequalResultsError, match=r"an error of at most 0\.0001"):
        check_equal(vectors(base=expected, other=rounded))


def test_where_results_may_differ_nothing_is_called() -> None:
    time = FakeTime()
    assert check_equal(case({"A": time.call("A", 1.0), "B": time.call("B", 1.0)})) == {}
    assert time.log == []
