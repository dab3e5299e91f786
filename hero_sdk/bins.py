"""Bin packing, by which segments and videos share rows."""

from __future__ import annotations

from collections.abc import Sequence
from operator import ge, sub


def first_fit(sizes: Sequence[tuple[int, ...]], capacity: tuple[int, ...]) -> list[int]:
    """Assign items to as few bins as first-fit-decreasing finds.

    Args:
        sizes: what each item takes of each resource.
        capacity: what a bin has of each resource; every item fits an empty bin.

    Returns:
        The bin of each item; bins are numbered from 0.
    """
    order = sorted(range(len(sizes)), key=lambda item: sizes[item], reverse=True)
    free: list[list[int]] = []
    bins = [0] * len(sizes)
    index, previous = 0, None
    for item in order:
        size = sizes[item]
        # Bins only fill up, so what had no room for an item has none for the next one of the same size.
        index = index if size == previous else 0
        while index < len(free) and not all(map(ge, free[index], size)):
            index += 1
        if index == len(free):
            free.append(list(capacity))
        free[index] = list(map(sub, free[index], size))
        bins[item], previous = index, size
    return bins
