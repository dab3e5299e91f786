"""Fused operators: what a HERO's architecture implies, what a graph has.

``Attention``, ``LayerNormalization`` and ``Gelu`` are operators of the ONNX standard (opsets 23, 17 and 20) for which every
engine has one kernel each. Written out as matrix products, softmax and powers, the same mathematics costs several times the
memory traffic, and an engine may or may not find it again. So they are counted.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx

from hero_export.errors import FusionError
from hero_export.onnx_export import MODULE_PATH
from hero_sdk.manifest import CROSS_MODAL_GRAPH, QUERY_GRAPH, TEMPORAL_GRAPH
from hero_train.config import HeroConfig

FUSED_OPERATORS = ("Attention", "LayerNormalization", "Gelu")

REMNANTS = {
    "Attention": ("Softmax", "LogSoftmax"),
    "LayerNormalization": ("ReduceMean", "Sqrt", "Reciprocal", "Pow"),
    "Gelu": ("Erf", "Tanh"),
}
"""What stands in a graph where the fused operator is missing."""

EXPECTED_REMNANTS = {QUERY_GRAPH: {"Softmax": 1}}
"""Remnants that belong there: the query encoder's pooling over the words of a query is a softmax and no attention."""


def expected_counts(config: HeroConfig) -> dict[str, dict[str, int]]:
    """How many of each fused operator each graph must have.

    A layer has one attention, one GELU and two norms. Beside its layers, the cross-modal encoder normalises the text
    embeddings, the frame embeddings and the frame features; the temporal encoder the frame features and its embeddings; the
    query encoder, after the cross-modal layers, the words, its embeddings and the output of its own attention.
    """
    layers, clips = config.cross_modal_layers, config.temporal_layers
    return {
        CROSS_MODAL_GRAPH: {"Attention": layers, "LayerNormalization": 2 * layers + 3, "Gelu": layers},
        TEMPORAL_GRAPH: {"Attention": clips, "LayerNormalization": 2 * clips + 2, "Gelu": clips},
        QUERY_GRAPH: {"Attention": layers + 1, "LayerNormalization": 2 * layers + 4, "Gelu": layers},
    }


def read_nodes(path: Path) -> list[onnx.NodeProto]:
    """The nodes of an ONNX file, those of its functions and subgraphs included, without its weights."""
    model = onnx.load(str(path), load_external_data=False)
    nodes: list[onnx.NodeProto] = []
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop(0)
        nodes.append(node)
        waiting += [inner for attribute in node.attribute for inner in attribute.g.node]
    return nodes


def operator_counts(nodes: list[onnx.NodeProto]) -> dict[str, int]:
    """How many of each operator, the most frequent first; those of other domains than the standard's carry their domain."""
    counts = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in nodes)
    return dict(counts.most_common())


def check_fusion(graph: str, nodes: list[onnx.NodeProto], expected: dict[str, int]) -> dict[str, int]:
    """Compare the fused operators of a graph with what the architecture implies.

    Args:
        graph: its name, for the message.
        nodes: from ``read_nodes``.
        expected: of this graph, from ``expected_counts``.

    Returns:
        The number of each fused operator.

    Raises:
        FusionError: a number differs, or the graph holds pieces of an operator that was not fused.
    """
    counts = operator_counts(nodes)
    found = {operator: counts.get(operator, 0) for operator in FUSED_OPERATORS}
    allowed = EXPECTED_REMNANTS.get(graph, {})
    problems = []
    for operator in FUSED_OPERATORS:
        pieces = [name for name in REMNANTS[operator] if counts.get(name, 0) > allowed.get(name, 0)]
        if found[operator] != expected[operator] or pieces:
            problem = f"{found[operator]} {operator}, expected {expected[operator]}"
            if pieces:
                problem += f"; in its place stand {_located(nodes, pieces)}"
            problems.append(problem)
    # GELU's tanh approximation is another function, which the operator offers as an attribute.
    if approximate := [node for node in nodes if node.op_type == "Gelu" and _is_approximate(node)]:
        problems.append(f"{len(approximate)} Gelu with the tanh approximation; the model uses the exact one")
    if problems:
        raise FusionError(
            f"Graph '{graph}' was not exported with the fused operators that its architecture implies: {'. '.join(problems)}. "
            "Write the model with scaled_dot_product_attention, nn.LayerNorm and gelu, and export with the versions that "
            "constraints.txt names."
        )
    return found


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
            scopes = [name.strip(" '\"") for name in entry.value.strip("[]").split(",")]
            return scopes[-2] if len(scopes) > 1 else ""
    return ""


def _is_approximate(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "approximate" and attribute.s not in (b"", b"none") for attribute in node.attribute)
