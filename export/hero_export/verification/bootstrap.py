"""Intervals of differences between two systems that answered the same items."""

from __future__ import annotations

import numpy as np

ROUNDS = 2000
LEVEL = 0.95
AT_A_TIME = 200
"""Rounds that are drawn together, which bounds the memory of a large split."""


def paired_interval(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Where the mean of ``first - second`` lies, by the paired bootstrap.

    Items are drawn with replacement, each with what both systems made of it, so that what makes an item hard for both does not
    widen the interval.

    Args:
        first, second: (items,) scores of the same items.
        seed: of the draws.

    Returns:
        The lower and upper end of the central 95 %.
    """
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = [
        difference[rng.integers(len(difference), size=(min(AT_A_TIME, ROUNDS - start), len(difference)))].mean(axis=1)
        for start in range(0, ROUNDS, AT_A_TIME)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
