"""The task's metric of a variant as a number: what a search over layers asks that are to stay in higher precision."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from hero_export.verification.bootstrap import paired_interval
from hero_export.verification.task import JUDGED, Scores, TaskSplit
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

        Of each loss the upper end of its 95 % interval is taken: a choice among many candidates that goes by the loss itself finds
        the luckiest, which on other items is not. A small split keeps more layers: that is the price of knowing little.

        Args:
            excluded: layers that stay in higher precision.

        Returns:
            0 where every item comes out as it does in PyTorch, -1.5 where a metric may lose up to a point and a half.
        """
        if self._torch is None:
            self._torch = self._split.score(self._split.model)
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "bundle"
            name = self._make(bundle, excluded)
            with LocalEngine(bundle, variant=name, threads=self._threads) as engine:
                found = self._split.score(engine)
        return -max(
            100 * sure_loss(self._torch, found, metric)
            for metric in JUDGED[self._split.task]
            if metric in self._torch.metrics
        )


def sure_loss(torch: Scores, found: Scores, metric: str) -> float:
    """What a system surely does not lose more than: the upper end of the interval of its loss, see ``paired_interval``.

    Of a single item nothing can be said, and the loss is infinite. A metric of a whole corpus, as BLEU-4 is, has no interval, and
    its loss is taken as it is.

    Args:
        torch: what the model reaches.
        found: what the system does.
        metric: its name.
    """
    if metric not in torch.items:
        return torch.metrics[metric] - found.metrics[metric]
    if len(torch.items[metric]) < 2:
        return math.inf
    return paired_interval(torch.items[metric], found.items[metric])[1]
