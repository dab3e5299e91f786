"""What the evaluation of a split has in common, whatever the task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a split, and what somebody who does not watch the videos would reach.

    Attributes:
        metrics: by group of annotations, such as a query type, and name; "all" is one of the groups.
        baselines: by baseline, such as chance, and name of the metric.
    """

    metrics: dict[str, dict[str, float]]
    baselines: dict[str, dict[str, float]]
