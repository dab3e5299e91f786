"""The next batch is made in a thread while a step computes: packing needs no accelerator, and the accelerator no packing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from typing import Self

Batch = TypeVar("Batch")


class Prefetcher(Generic[Batch]):
    """Gives the batches of a range of numbers, one after the other, and makes each while the one before it is used.

    Nothing is drawn here: a batch is a function of its number, so a run that resumes at ``start`` gets the batches that it would
    have got without a break. At most one batch waits, beside the one in use. Ends with its ``with`` block::

        with Prefetcher(make, start, stop) as batches:
            for batch in batches:
                ...

    An error of ``make`` is raised where the batch would have been given.

    Args:
        make: from a number to its batch. It is called in another thread, once per number, in order, and one call at a time.
        start, stop: the numbers, as in ``range``.
    """

    def __init__(self, make: Callable[[int], Batch], start: int, stop: int) -> None:
        self._make = make
        self._numbers = iter(range(start, stop))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="next-batch")
        self._next = self._begin()

    def _begin(self) -> Future[Batch] | None:
        number = next(self._numbers, None)
        return None if number is None else self._thread.submit(self._make, number)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self._next is None:
            raise StopIteration
        batch = self._next.result()
        self._next = self._begin()
        return batch

    def close(self) -> None:
        """Make no more batches. Returns when the thread has ended; a batch that is being made is finished first."""
        self._numbers, self._next = iter(()), None
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
