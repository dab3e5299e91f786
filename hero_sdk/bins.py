"""Bin packing, by which segments and videos share rows."""

from __future__ import annotations

from collections.abc import Sequence


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
    for item in order:
        for index, room in enumerate(free):  # noqa: B007 - used after the loop
            if all(size <= left for size, left in zip(sizes[item], room, strict=True)):
                break
        else:
            index, room = len(free), list(capacity)
            free.append(room)
        for resource, size in enumerate(sizes[item]):
            room[resource] -= size
        bins[item] = index
    return bins
