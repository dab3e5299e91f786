"""What comes of evaluating a model on a split, in one form for every task: one printer and one ``results.json`` serve them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

Item = TypeVar("Item")

Metrics = dict[str, float]
"""Values by the names of metrics."""

ALL = "all"
"""The group of everything that was evaluated."""

HEADLINES = {
    "VR/R@1": "VR R@1",
    "VR/R@5": "R@5",
    "SVMR/R@1/IoU=0.5": "SVMR R@1 .5",
    "SVMR/R@1/IoU=0.7": "R@1 .7",
    "VCMR/R@1/IoU=0.5": "VCMR R@1 .5",
    "VCMR/R@1/IoU=0.7": "R@1 .7",
    "VCMR/R@10/IoU=0.7": "R@10 .7",
    "accuracy": "accuracy",
    "BLEU-4": "BLEU-4",
    "METEOR": "METEOR",
    "ROUGE-L": "ROUGE-L",
    "CIDEr": "CIDEr",
}
"""The metrics that are printed, of those that an evaluation has, with their headings; .5 and .7 are the temporal IoU."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a split and what a model that understands nothing would reach. Shares are in [0, 1].

    Attributes:
        metrics: by group and name. The group "all" is always there; the others are the types of queries or the kinds of questions.
        baselines: by baseline ("chance", "majority", ...) and name; over all, or over a group where it says so: "majority/v". A
            metric that is missing has no such baseline.
        counts: how much was evaluated, such as ``{"queries": 120, "videos": 20}``.
        absent: metrics of the task that could not be computed, with the reason. To be shown: nothing is left out silently.
    """

    metrics: dict[str, Metrics]
    baselines: dict[str, Metrics]
    counts: dict[str, int]
    absent: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The entry of the split in ``results.json``."""
        return asdict(self)

    def headlines(self) -> dict[str, str]:
        """The metrics to print, by name, with their headings."""
        return {name: heading for name, heading in HEADLINES.items() if name in self.metrics[ALL]}


def by_group(
    items: Sequence[Item], group: Callable[[Item], str | None], measure: Callable[[Sequence[Item]], Metrics]
) -> dict[str, Metrics]:
    """Measure all items ("all"), and each group that occurs by itself.

    Args:
        items: what was evaluated, at least one.
        group: of an item; None where it has none.
        measure: metrics of some items.
    """
    names = sorted({name for item in items if (name := group(item)) is not None})
    return {ALL: measure(items)} | {name: measure([item for item in items if group(item) == name]) for name in names}


def baseline_by_group(name: str, tables: dict[str, Metrics]) -> dict[str, Metrics]:
    """The tables of ``by_group`` under the names that ``Evaluation.baselines`` gives a baseline: "chance", "chance/v", ..."""
    return {name if group == ALL else f"{name}/{group}": table for group, table in tables.items()}


def evenly(items: Sequence[Item], most: int | None) -> list[Item]:
    """At most so many of some items, evenly over all of them and in their order; all of them for None."""
    if most is None or most >= len(items):
        return list(items)
    return [items[number * len(items) // most] for number in range(most)]
