"""Mixed precision: the few layers that must stay in float32 so that a task loses no more than a budget.

First every layer is ranked by what its rounding alone does to the outputs of its graph, which takes no evaluation of the task. Then
the task is asked: how many of the most sensitive layers have to be kept, and which of those are not needed after all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import onnx_ir

from hero_export.errors import PrecisionError
from hero_export.precision.calibration import CalibrationSet
from hero_export.precision.cast import HALVES, HalfPrecision, cast_file
from hero_export.precision.layers import is_product, layer_of
from hero_export.precision.making import Precision, reason_to_leave
from hero_export.precision.quantise import Quantisation, quantisable, quantise_file
from hero_export.precision.running import output_errors, run_graph
from hero_sdk.manifest import GraphSpec, Manifest

Mixable = Literal["int8", "bf16", "fp16"]
"""Precisions that a search is for: of those that ``hero-export verify`` judges, the ones that may cost a task something."""

Metric = Callable[[frozenset[str]], float]
"""Builds a candidate with these layers in float32 and measures the task; more is better."""

MOST_TRIALS = 24
"""Evaluations of the task in one search."""

RANKED_ROWS = 8


@dataclass(frozen=True)
class Sensitivity:
    """What rounding one layer does.

    Attributes:
        layer: ``GRAPH:LAYER``, as ``--keep`` takes it.
        error: mean error of the graph's outputs as a share of their mean, the largest over the outputs.
    """

    layer: str
    error: float


@dataclass(frozen=True)
class Trial:
    """A candidate that was measured.

    Attributes:
        kept: layers in float32, the most sensitive first.
        metric: of the task; None where the candidate could not be made, as when everything is kept.
        within: whether it loses no more than the budget.
    """

    kept: tuple[str, ...]
    metric: float | None
    within: bool


@dataclass(frozen=True)
class MixedPrecision:
    """What a search found.

    Attributes:
        kept: the layers to keep, the most sensitive first.
        metric: of the task with them.
        baseline: of the task in float32.
        budget: that it may lose.
        reached: whether it loses no more. It may not when every layer is kept and something else errs, or trials ran out.
        trail: every candidate, in the order of trying.
    """

    kept: tuple[str, ...]
    metric: float
    baseline: float
    budget: float
    reached: bool
    trail: tuple[Trial, ...]


def search_layers(
    metric: Metric, ranking: Sequence[str], *, baseline: float, budget: float, most_trials: int = MOST_TRIALS
) -> MixedPrecision:
    """Find a small set of layers to keep in float32.

    Args:
        metric: measures the task; called once per candidate. One that it refuses with a ``PrecisionError`` counts as lost.
        ranking: all layers that may be kept, the most sensitive first.
        baseline: the metric in float32.
        budget: how much of it may be lost.
        most_trials: after so many evaluations the best candidate so far is taken.

    Returns:
        The smallest set found. Where no candidate keeps the budget, the one that loses least, and ``reached`` is false.

    Raises:
        PrecisionError: the candidate that keeps nothing cannot be made.
    """
    return _Search(metric, ranking, baseline, budget, most_trials).run()


class _Search:
    def __init__(
        self, metric: Metric, ranking: Sequence[str], baseline: float, budget: float, most_trials: int
    ) -> None:
        self._metric = metric
        self._ranking = tuple(dict.fromkeys(ranking))
        self._baseline, self._budget = baseline, budget
        self._left = most_trials
        self._trials: dict[tuple[str, ...], Trial] = {}

    def run(self) -> MixedPrecision:
        enough = self._enough()
        if enough is not None:
            self._prune(enough)
        measured = [(trial, trial.metric) for trial in self._trials.values() if trial.metric is not None]
        # Of those that keep the budget the smallest, of equals the best; else the one that loses least.
        best, metric = max(measured, key=lambda pair: (pair[0].within, -len(pair[0].kept) * pair[0].within, pair[1]))
        return MixedPrecision(
            best.kept, metric, self._baseline, self._budget, best.within, tuple(self._trials.values())
        )

    def _enough(self) -> tuple[str, ...] | None:
        """The shortest beginning of the ranking that keeps the budget; None where none was found."""
        short, length = -1, 0
        while not self._within(self._ranking[:length]):
            short = length
            if length >= len(self._ranking) or not self._left:
                return None
            length = min(max(1, 2 * length), len(self._ranking))
        while length - short > 1 and self._left:
            middle = (short + length) // 2
            if self._within(self._ranking[:middle]):
                length = middle
            else:
                short = middle
        return self._ranking[:length]

    def _prune(self, kept: tuple[str, ...]) -> None:
        """Give back layers that are not needed beside the others, the least sensitive first. The last of a beginning is needed."""
        for layer in reversed(kept[:-1]):
            if not self._left:
                return
            fewer = tuple(name for name in kept if name != layer)
            if self._within(fewer):
                kept = fewer

    def _within(self, kept: tuple[str, ...]) -> bool:
        if kept not in self._trials:
            self._left -= 1
            try:
                value = self._metric(frozenset(kept))
            except PrecisionError:
                if not kept:
                    raise
                self._trials[kept] = Trial(kept, None, within=False)
            else:
                # Written so that a NaN is not within: every comparison with it is false.
                self._trials[kept] = Trial(kept, value, self._baseline - value <= self._budget)
        return self._trials[kept].within


def rank_bundle(
    bundle: Path, manifest: Manifest, precision: Precision, calibration: CalibrationSet
) -> list[Sensitivity]:
    """All layers of a bundle's graphs that a precision would round, the most sensitive first.

    Args:
        bundle: the folder.
        manifest: of the bundle.
        precision: to be made.
        calibration: of the bundle; graphs that it has no rows of are left out.
    """
    found: list[Sensitivity] = []
    for graph, spec in manifest.graphs.items():
        rows = [row for _, row in zip(range(RANKED_ROWS), calibration.rows(graph), strict=False)]
        path = bundle / spec.file
        if rows and reason_to_leave(path, graph, precision, calibration) is None:
            found += rank_layers(path, spec, precision, rows, graph, calibrated=list(calibration.rows(graph)))
    return sorted(found, key=lambda one: -one.error)


def rank_layers(
    source: Path,
    spec: GraphSpec,
    precision: Precision,
    rows: Sequence[Mapping[str, np.ndarray]],
    graph: str,
    *,
    calibrated: Sequence[Mapping[str, np.ndarray]] = (),
) -> list[Sensitivity]:
    """The layers of one graph, the most sensitive first: each is rounded alone, and the outputs are compared with float32.

    Args:
        source: the ONNX file, float32.
        spec: of the graph in the manifest.
        precision: to be made.
        rows: to compare on.
        graph: its name.
        calibrated: rows to calibrate with; none takes ``rows``.

    Raises:
        PrecisionError: the graph cannot be had in the precision.
    """
    nodes = list(onnx_ir.load(source).graph)
    if precision in HALVES:
        rounded = [node for node in nodes if is_product(node)]
    else:
        rounded = quantisable(nodes, cast("Quantisation", precision))
    layers: dict[str, list[str]] = {}
    for node in rounded:
        layers.setdefault(layer_of(node), []).append(node.name or "")
    expected = run_graph(source, spec, rows)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        alone = _maker(source, Path(folder), precision, calibrated or rows, graph)
        for layer, names in layers.items():
            others = [name for other in layers if other != layer for name in layers[other]]
            errors = output_errors(expected, run_graph(alone(names, others), spec, rows), rows)
            found.append(Sensitivity(f"{graph}:{layer}", max(error.mean for error in errors)))
    return sorted(found, key=lambda one: -one.error)


def _maker(
    source: Path, folder: Path, precision: Precision, rows: Sequence[Mapping[str, np.ndarray]], graph: str
) -> Callable[[list[str], list[str]], Path]:
    """What writes the graph with some nodes rounded and the others not."""
    target = folder / "alone.onnx"
    if precision == "int8":
        whole = folder / "whole.onnx"
        quantise_file(source, whole, "int8", rows=rows, graph=graph)  # ranges are measured once for all layers

        def alone(names: list[str], others: list[str]) -> Path:
            return _restored(source, whole, set(others), target)
    elif precision in HALVES:

        def alone(names: list[str], others: list[str]) -> Path:
            cast_file(source, target, cast("HalfPrecision", precision), keep=others, graph=graph)
            return target
    else:

        def alone(names: list[str], others: list[str]) -> Path:
            quantise_file(source, target, cast("Quantisation", precision), keep=others, graph=graph)
            return target

    return alone


def _restored(source: Path, whole: Path, names: set[str], target: Path) -> Path:
    """The quantised graph with some products as they were: on what they read before it was rounded, with their own weights."""
    model = onnx_ir.load(whole)
    weights = {node.name: node.inputs[1] for node in onnx_ir.load(source).graph if node.name in names}
    for node in list(model.graph):
        if node.name not in names or len(node.inputs) < 2:
            continue
        activation, weight = node.inputs[0], weights[node.name]
        rounded = None if activation is None else activation.producer()
        rounding = None if rounded is None or rounded.inputs[0] is None else rounded.inputs[0].producer()
        if rounding is None or rounding.op_type != "QuantizeLinear" or weight is None or weight.const_value is None:
            raise PrecisionError(
                f"The product '{node.name}' is not quantised as it was to be; expected rounded operands. Make the graph with the "
                "versions that constraints.txt names."
            )
        node.replace_input_with(0, rounding.inputs[0])
        own = onnx_ir.val(f"{node.name}.exact", const_value=onnx_ir.tensor(weight.const_value.numpy()))
        model.graph.register_initializer(own)
        node.replace_input_with(1, own)
    onnx_ir.save(model, target)
    return target
