"""How long each variant takes, for one graph and for what a user asks for: all in one process, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hero_export.onnx.speed import BATCHES, FEWEST, MOST, WARM_UP
from hero_export.verification.head_cases import Case
from hero_export.verification.report import TORCH, Latency
from hero_export.verification.task import TaskSplit
from hero_export.verification.variants import Opened

SECONDS = 1.0
"""For the rounds of one graph and batch; the fewest are run in any case."""


def graph_latencies(opened: Mapping[str, Opened], cases: Mapping[str, Case], max_batch: int) -> list[Latency]:
    """Time every graph of every variant on one row and on several: the rows of a case by graph, repeated."""
    found = []
    for name, case in cases.items():
        inputs = case.inputs
        for batch in sorted({min(batch, max_batch) for batch in BATCHES}):
            rows = {key: np.resize(array, (batch, *array.shape[1:])) for key, array in inputs.items()}
            calls = {
                one.name: lambda engine=one.engine, rows=rows, name=name: engine.run(name, rows)
                for one in opened.values()
                if name in one.graphs
            }
            found += take_turns(calls, name, batch)
    return found


def call_latencies(opened: Mapping[str, Opened], split: TaskSplit) -> list[Latency]:
    """Time what a user asks for, through PyTorch and through every variant."""
    judges: dict[str, Any] = {TORCH: split.model} | {one.name: one.engine for one in opened.values()}
    calls = {name: split.calls(judge) for name, judge in judges.items()}
    found = []
    for what in calls[TORCH]:
        found += take_turns({name: own[what] for name, own in calls.items()}, what, 1)
    return found


def take_turns(calls: Mapping[str, Callable[[], object]], what: str, batch: int) -> list[Latency]:
    """Medians of calls that alternate, after a warm-up: what slows the machine down slows all of them."""
    for _ in range(WARM_UP):
        for call in calls.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + SECONDS
    rounds = 0
    while rounds < FEWEST or (rounds < MOST and time.perf_counter() < end):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
        rounds += 1
    return [Latency(name, what, batch, rounds, statistics.median(values)) for name, values in times.items()]
