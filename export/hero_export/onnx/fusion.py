"""Fused operators: what a HERO's architecture implies, what a graph has.

An engine can have one kernel for each operator. Where one is written out as matrix products, softmax and powers, an engine has to
find it again, and may or may not. So they are counted.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from hero_export.errors import FusionError
from hero_export.onnx.export import MODULE_PATH
from hero_export.onnx.operators import (
    ATTENTION,
    FUSED_ATTENTION,
    FUSED_GELU,
    FUSED_NORM,
    GELU,
    NORM,
    FusedOperators,
    Operators,
    fused_counts,
)
from hero_sdk.errors import BundleError
from hero_sdk.manifest import ANSWER_GRAPH, FRAME_GRAPH, QUERY_GRAPH, STATEMENT_GRAPH

REMNANTS = {
    ATTENTION: ("Softmax", "LogSoftmax"),
    NORM: ("ReduceMean", "Sqrt", "Reciprocal", "Pow"),
    GELU: ("Erf", "Tanh"),
}
"""What stands in a graph where the fused operator is missing."""

FORMS = {ATTENTION: FUSED_ATTENTION, NORM: FUSED_NORM, GELU: FUSED_GELU}
"""The operators of the standard form beside those of onnxruntime's."""

POOLINGS = {QUERY_GRAPH: 1, ANSWER_GRAPH: 2, STATEMENT_GRAPH: 1}
"""Softmaxes that belong in a graph: of a query over its words, of an answer over the clips and of a clip over the answers."""


def read_model(path: Path) -> onnx.ModelProto:
    """An ONNX file, without the weights that lie in another one.

    Raises:
        BundleError: the file is not ONNX.
    """
    try:
        return onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise BundleError(
            f"{path} is not a whole ONNX file ({error}). Copy the bundle again, or export it again."
        ) from error


def graph_bytes(path: Path, model: onnx.ModelProto) -> int:
    """Size of an ONNX file and of the files beside it that its weights lie in."""
    locations = {
        entry.value for weight in model.graph.initializer for entry in weight.external_data if entry.key == "location"
    }
    return sum(file.stat().st_size for file in (path, *(path.parent / location for location in locations)))


def model_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes of a model, those of its functions and subgraphs included."""
    return [node for part in (model.graph, *model.functions) for node in _with_inner(part.node)]


def _with_inner(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _with_inner(graph.node)


def operator_counts(nodes: list[onnx.NodeProto]) -> dict[str, int]:
    """How many of each operator, the most frequent first; those of other domains than the standard's carry their domain."""
    counts = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in nodes)
    return dict(counts.most_common())


def unfused_counts(graph: str, counts: dict[str, int]) -> dict[str, int]:
    """How many pieces of operators that were not fused, beyond those that belong in a graph.

    None are looked for in the frame encoder, which may be any network.
    """
    if graph == FRAME_GRAPH:
        return {}
    allowed = {"Softmax": POOLINGS.get(graph, 0)}
    surplus = {piece: counts.get(piece, 0) - allowed.get(piece, 0) for pieces in REMNANTS.values() for piece in pieces}
    return {piece: count for piece, count in surplus.items() if count > 0}


def check_fusion(
    graph: str, nodes: list[onnx.NodeProto], fused: FusedOperators, form: Operators = "standard"
) -> dict[str, int]:
    """Compare the fused operators of a graph with what the architecture implies.

    Args:
        graph: its name, for the message.
        nodes: from ``model_nodes``.
        fused: what the architecture implies.
        form: which operators the graph was written with.

    Returns:
        The number of each fused operator.

    Raises:
        FusionError: a number differs, or the graph holds pieces of an operator that was not fused.
    """
    counts = operator_counts(nodes)
    problems = fusion_problems(graph, nodes, fused.counts(form))
    # GELU's tanh approximation is another function, which the operator offers as an attribute.
    if approximate := [node for node in nodes if node.op_type == GELU and _is_approximate(node)]:
        problems.append(f"{len(approximate)} Gelu with the tanh approximation; the model uses the exact one")
    if problems:
        raise FusionError(
            f"Graph '{graph}' was not exported with the fused operators that its architecture implies: {'. '.join(problems)}. "
            "Write the model with scaled_dot_product_attention, nn.LayerNorm and gelu, and export with the versions that "
            "constraints.txt names."
        )
    return fused_counts(counts)


def fusion_problems(graph: str, nodes: list[onnx.NodeProto], expected: Mapping[str, int]) -> list[str]:
    """How the fused operators of a graph differ from those that are expected, as sentences without a full stop.

    Args:
        graph: its name, which decides what else belongs in it.
        nodes: from ``model_nodes``.
        expected: how many of each fused operator, of either form.
    """
    counts = operator_counts(nodes)
    unfused = unfused_counts(graph, counts)
    problems = []
    for kind in FORMS.items():
        pieces = [name for name in REMNANTS[kind[0]] if name in unfused]
        wrong = [operator for operator in kind if counts.get(operator, 0) != expected.get(operator, 0)]
        if not wrong and pieces:
            wrong = [operator for operator in kind if expected.get(operator)] or [kind[0]]
        described = [
            f"{counts.get(operator, 0)} {operator}, expected {expected.get(operator, 0)}" for operator in wrong
        ]
        if pieces:
            described[-1] += f"; in its place stand {_located(nodes, pieces)}"
        problems += described
    return problems


def _located(nodes: list[onnx.NodeProto], operators: list[str]) -> str:
    """The first few nodes of these operators with the modules that they came from."""
    places = [
        f"{node.op_type} '{node.name}'" + (f" of {where}" if (where := module_of(node)) else "")
        for node in nodes
        if node.op_type in operators
    ]
    return ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")


def module_of(node: onnx.NodeProto) -> str:
    """The innermost module that a node came from, such as ``cross_modal.layers.0.attention``; empty when unknown."""
    for entry in node.metadata_props:
        if entry.key == MODULE_PATH:
            # A list literal: the names of the modules from the outermost in, and the operation last.
            scopes = ast.literal_eval(entry.value)
            return scopes[-2] if len(scopes) > 1 else ""
    return ""


def _is_approximate(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "approximate" and attribute.s not in (b"", b"none") for attribute in node.attribute)
