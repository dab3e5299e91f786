"""What the stages of a command cost: seconds, and the most memory that the process had held by their ends."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass

from hero_sdk.hub import Stage


@dataclass(frozen=True)
class StageCost:
    """One stage.

    Attributes:
        stage: its name.
        seconds: that it took.
        peak_bytes: the largest resident memory of the process from its start to the end of this stage.
    """

    stage: str
    seconds: float
    peak_bytes: int


class StageClock:
    """Told about each stage as it begins, it notes what the one before has cost, and tells whoever shows stages.

    Args:
        on_stage: shows them.
    """

    def __init__(self, on_stage: Stage | None = None) -> None:
        self._on_stage = on_stage
        self._running: tuple[str, float] | None = None
        self._costs: list[StageCost] = []

    def __call__(self, stage: str) -> None:
        """A stage begins, and so the one before has ended."""
        self._end()
        if self._on_stage is not None:
            self._on_stage(stage)
        self._running = (stage, time.perf_counter())

    def costs(self) -> tuple[StageCost, ...]:
        """Of all stages; the running one ends."""
        self._end()
        return tuple(self._costs)

    def _end(self) -> None:
        if self._running is not None:
            stage, began = self._running
            self._costs.append(StageCost(stage, time.perf_counter() - began, peak_memory()))
            self._running = None


def peak_memory() -> int:
    """The largest resident memory that this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
