"""Batches made ahead are the batches that would have been made: in order, once each, with their errors, and no more of them."""

from __future__ import annotations

import threading
import traceback
from itertools import islice

import pytest

from hero_train.data.prefetch import Prefetcher
from hero_train.errors import DataError
from tests.unit.batch_contents import contents
from tests.unit.test_sampling import sampler

PATIENCE = 10.0
"""Seconds until what should happen in the other thread counts as not happening."""


class Recorder:
    """A ``make`` that tells which numbers it was asked for and where it ran."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.threads: set[int] = set()
        self._changed = threading.Condition()

    def __call__(self, number: int) -> int:
        with self._changed:
            self.asked.append(number)
            self.threads.add(threading.get_ident())
            self._changed.notify_all()
        return 10 * number

    def wait_for(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self.asked) >= count, PATIENCE)


@pytest.mark.parametrize(("start", "stop"), [(0, 5), (3, 7), (4, 5), (4, 4), (5, 4)])
def test_each_batch_comes_once_and_in_order(start: int, stop: int) -> None:
    make = Recorder()
    with Prefetcher(make, start, stop) as batches:
        assert list(batches) == [10 * number for number in range(start, stop)]
        assert list(batches) == []
    assert make.asked == list(range(start, stop))
    assert threading.get_ident() not in make.threads
    assert len(make.threads) <= 1


def test_the_next_batch_is_made_while_one_is_used_and_no_further_one() -> None:
    make = Recorder()
    with Prefetcher(make, 0, 9) as batches:
        for used in range(8):
            assert next(batches) == 10 * used
            assert make.wait_for(used + 2), "nothing was made while the batch was in use"
            assert make.asked == list(range(used + 2))


def test_batches_are_those_of_the_sampler_and_resume_where_a_run_was_killed() -> None:
    steps, killed = 7, 3
    drawn = sampler()
    expected = [contents([drawn.batch(step)]) for step in range(steps)]
    with Prefetcher(drawn.batch, 0, steps) as batches:
        assert [contents([batch]) for batch in islice(batches, killed)] == expected[:killed]
    with Prefetcher(sampler().batch, killed, steps) as batches:
        assert [contents([batch]) for batch in batches] == expected[killed:]


def test_an_error_is_raised_where_its_batch_would_have_come() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise DataError("Video 7 is broken.")
        return number

    with Prefetcher(make, 0, 5) as batches:
        assert (next(batches), next(batches)) == (0, 1)
        for _ in range(2):  # It is not skipped by asking again.
            with pytest.raises(DataError, match="Video 7 is broken") as caught:
                next(batches)
    assert "in make" in "".join(traceback.format_tb(caught.tb))


def test_leaving_early_ends_the_thread() -> None:
    make = Recorder()
    before = threading.active_count()
    batches = Prefetcher(make, 0, 1000)

    def train() -> None:
        with batches:
            for _ in batches:
                raise KeyError("what the loop is about")

    with pytest.raises(KeyError):
        train()
    assert threading.active_count() == before
    assert len(make.asked) <= 2
    assert next(batches, None) is None
