"""The task's metric of a variant as a number: what a search over layers asks that are to stay in higher precision."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from hero_export.verification.bootstrap import paired_error
from hero_export.verification.task import JUDGED, Scores, TaskSplit, points
from hero_sdk.engines.local import LocalEngine

Make = Callable[[Path, Collection[str]], str]
"""Writes a bundle with a variant that has these layers in higher precision to a new folder; returns the variant's name."""


class TaskMetric:
    """How much of its task a variant keeps, with some layers in higher precision.

    Args:
        split: of the data. The validation split, so that what is reported on the test split was not chosen by it.
        make: makes the variant.
        threads: of its engine.
    """

    def __init__(self, split: TaskSplit, make: Make, threads: int = 1) -> None:
        self._split, self._make, self._threads = split, make, threads
        self._torch: Scores | None = None

    def __call__(self, excluded: Collection[str]) -> float:
        """The largest loss among the metrics that a budget holds for, in points, as a number that is better when it is larger.

        A standard error is added to each loss. Of many candidates that were judged on few items, the smallest that loses nothing
        is the luckiest, and on other items it is not.

        Args:
            excluded: layers that stay in higher precision.

        Returns:
            0 where every item comes out as it does in PyTorch, -1.5 where a metric may well lose a point and a half.
        """
        if self._torch is None:
            self._torch = self._split.score(self._split.model)
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "bundle"
            name = self._make(bundle, excluded)
            with LocalEngine(bundle, variant=name, threads=self._threads) as engine:
                found = self._split.score(engine)
        return -max(
            points(metric, careful_loss(self._torch, found, metric), self._torch.metrics[metric])
            for metric in JUDGED[self._split.task]
            if metric in self._torch.metrics
        )


def careful_loss(torch: Scores, found: Scores, metric: str) -> float:
    """What a system loses of a metric, with the standard error of the paired difference where the metric is a mean over items."""
    loss = torch.metrics[metric] - found.metrics[metric]
    if metric not in torch.items:
        return loss
    return loss + paired_error(torch.items[metric], found.items[metric])
