"""Every graph of every variant against the model, on a grid of shapes and at the edges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hero_export.onnx.graphs import Graph
from hero_export.report import CaseResult
from hero_export.tolerances import UNJUDGED, tolerance_of
from hero_export.verification.cases import CaseMaker
from hero_export.verification.comparison import compare_case, reference
from hero_export.verification.head_cases import Case, batch_sizes, shape_name
from hero_export.verification.paths import verify_paths
from hero_export.verification.report import BASE, VariantCase
from hero_export.verification.rows import NAME as ROWS
from hero_export.verification.variants import Opened
from hero_sdk.errors import HeroError
from hero_sdk.hub import Stage
from hero_sdk.manifest import FRAME_GRAPH, GraphSpec
from hero_train.model.hero import HeroEncoders


@dataclass
class Grid:
    """What the comparisons found.

    Attributes:
        cases: all of them.
        worst: the input of the largest error of each graph of each variant, with what was found on it; of those that are judged,
            where some are.
        broken: why a graph of a variant gave no outputs at all, by both names.
    """

    cases: list[VariantCase] = field(default_factory=list)
    worst: dict[tuple[str, str], tuple[Case, VariantCase]] = field(default_factory=dict)
    broken: dict[tuple[str, str], str] = field(default_factory=dict)

    def note(self, variant: str, case: Case, results: list[CaseResult], judged: bool) -> None:
        """Add the comparisons of one input."""
        found = [VariantCase(variant, result, judged) for result in results]
        self.cases += found
        largest = max(found, key=_rank)
        kept = self.worst.get((variant, case.graph))
        if kept is None or _rank(largest) > _rank(kept[1]):
            self.worst[variant, case.graph] = case, largest


def _rank(case: VariantCase) -> tuple[bool, float]:
    """What is judged comes before what is not, and what is no number is further from the model than any number."""
    error = case.result.required_tolerance
    return case.judged, error if np.isfinite(error) else np.inf


def compare_grid(
    opened: Mapping[str, Opened],
    graphs: Mapping[str, Graph],
    maker: CaseMaker,
    real: Mapping[str, Case],
    begin: Stage,
) -> Grid:
    """Run every case through the model once and through each variant that has the graph.

    Args:
        opened: variants that run on this machine, the base among them.
        graphs: of the model, by name.
        maker: of the cases.
        real: a case of real rows by graph, where there are some.
        begin: told about each graph.
    """
    grid = Grid()
    specs = opened[BASE].engine.manifest.graphs
    for name, graph in graphs.items():
        begin(f"Comparing {name} with the model")
        own = [real[name]] if name in real else []
        for case in (*maker.grid_of(graph), *own):
            expected = reference(specs[name], graph.module, case.inputs)
            for variant in _with_graph(opened, name):
                _compare(grid, opened[variant], specs[name], case, expected, real=case.name == ROWS)
    if others := [variant for variant in _with_graph(opened, FRAME_GRAPH) if variant != BASE]:
        begin("Comparing the frame encoders")
        for case in frame_cases(specs[FRAME_GRAPH]):
            # The frame encoder may be any network, so there is no model of it but the graph that was exported.
            expected = opened[BASE].engine.run(FRAME_GRAPH, case.inputs)
            for variant in others:
                _compare(grid, opened[variant], specs[FRAME_GRAPH], case, expected)
    return grid


def _with_graph(opened: Mapping[str, Opened], graph: str) -> list[str]:
    return [name for name, one in opened.items() if graph in one.graphs]


def _compare(
    grid: Grid, one: Opened, spec: GraphSpec, case: Case, expected: dict[str, np.ndarray], *, real: bool = False
) -> None:
    key = (one.name, case.graph)
    if key in grid.broken:
        return
    try:
        found = one.engine.run(case.graph, case.inputs)
    except HeroError as error:
        grid.broken[key] = f"{case.graph}, {case.name}: {error}"
        return
    tolerance = tolerance_of(one.precision_of(case.graph))
    judged = real or not tolerance.calibrated
    results = compare_case(case, spec, found, expected, tolerance if judged else UNJUDGED)
    grid.note(one.name, case, results, judged)


def compare_paths(grid: Grid, opened: Mapping[str, Opened], model: HeroEncoders, maker: CaseMaker) -> None:
    """The whole way of the task, from packing to captions, for the variants that must compute the same numbers.

    With fewer bits a caption of a random model may take another turn at any word; these are judged on the task.
    """
    for one in opened.values():
        if tolerance_of(one.precision) == tolerance_of("fp32") and not any(name == one.name for name, _ in grid.broken):
            grid.cases += [VariantCase(one.name, result, True) for result in verify_paths(one.engine, model, maker)]


def frame_cases(spec: GraphSpec, seed: int = 0) -> list[Case]:
    """Random images, in every batch size."""
    rng = np.random.default_rng(seed)
    images = spec.inputs[0]
    return [
        Case(
            FRAME_GRAPH,
            shape_name(batch, "random images"),
            {images.name: rng.integers(0, 256, (batch, *images.shape[1:]), dtype=np.uint8)},
            {tensor.name: np.ones(batch, dtype=bool) for tensor in spec.outputs},
        )
        for batch in batch_sizes(spec.max_batch)
    ]
