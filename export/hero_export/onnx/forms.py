"""A graph on the disk, in the form that was asked for: with the standard's fused operators, or with ONNX Runtime's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hero_export.onnx.export import export_graph, rewrite_graph
from hero_export.onnx.fusion import check_fusion, model_nodes, read_model
from hero_export.onnx.graphs import Graph
from hero_export.onnx.onnxruntime_form import fuse_for_onnxruntime
from hero_export.onnx.operators import Operators
from hero_export.onnx.speed import SpeedComparison, compare_speed, is_faster
from hero_export.verification.comparison import GraphRunner
from hero_export.verification.head_cases import Case
from hero_sdk.manifest import GraphSpec

Choice = Literal["standard", "onnxruntime", "auto"]

FLOAT = "fp32"


@dataclass(frozen=True)
class Written:
    """A graph that was written.

    Attributes:
        form: of its operators.
        expected: how many of each fused operator the architecture implies in this form.
        fused: how many the graph has; the same, or it would not have been written.
        speed: of both forms, where they were compared.
    """

    form: Operators
    expected: dict[str, int]
    fused: dict[str, int]
    speed: tuple[SpeedComparison, ...] = ()


def write_graph(
    graph: Graph, folder: Path, operators: Choice, max_batch: int, cases: Callable[[], list[Case]]
) -> Written:
    """Export a graph into a bundle's folder and check its fused operators.

    Args:
        graph: what to export.
        folder: of the bundle.
        operators: which form; "auto" measures both and keeps the faster one. A graph without any fused operator has one form only.
        max_batch: the largest batch of the bundle.
        cases: makes inputs of the graph; the first is measured with.

    Raises:
        ExportError: the graph cannot be exported.
        FusionError: a fused operator is missing.
    """
    assert graph.fused is not None
    path = folder / graph.file
    export_graph(graph, path)
    standard = _checked(graph, path, "standard")
    if operators == "standard" or graph.fused.counts("onnxruntime") == standard.expected:
        return standard
    # Under the same name in a folder of its own, since a graph knows its external weights by theirs.
    other = path.parent / "onnxruntime" / path.name
    other.parent.mkdir()
    rewrite_graph(graph, path, other, fuse_for_onnxruntime)
    fused = _checked(graph, other, "onnxruntime")
    speed: list[SpeedComparison] = []
    if operators == "auto":
        spec = GraphSpec(graph.file, FLOAT, max_batch, graph.inputs, graph.outputs)
        first, second = (GraphRunner(graph.name, file, spec) for file in (path, other))
        speed = compare_speed(first, second, cases()[0].inputs, max_batch)
    chosen = fused if operators == "onnxruntime" or is_faster(speed) else standard
    if chosen is fused:
        _data(path).unlink(missing_ok=True)
        for file in (other, _data(other)):
            if file.exists():
                file.replace(path.parent / file.name)
    shutil.rmtree(other.parent)
    return Written(chosen.form, chosen.expected, chosen.fused, tuple(speed))


def _data(path: Path) -> Path:
    """Where the weights of a graph lie that are too many for one file."""
    return path.with_name(path.name + ".data")


def _checked(graph: Graph, path: Path, form: Operators) -> Written:
    assert graph.fused is not None
    found = check_fusion(graph.name, model_nodes(read_model(path)), graph.fused, form)
    return Written(form, graph.fused.counts(form), found)
