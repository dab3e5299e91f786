"""The layers of an ONNX graph by name: a node's own name, or the modules of the model that it came from."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable

import onnx_ir

from hero_export.errors import ExportError
from hero_export.onnx.export import MODULE_PATH

PRODUCTS = frozenset(
    {
        ("", "MatMul"),
        ("", "Gemm"),
        ("", "Conv"),
        ("", "ConvTranspose"),
        ("", "Attention"),
        ("com.microsoft", "MultiHeadAttention"),
        ("com.microsoft", "FusedMatMul"),
    }
)
"""Operators that multiply matrices in floating point, by domain and type."""


def is_product(node: onnx_ir.Node) -> bool:
    """Whether a node multiplies matrices in floating point."""
    return (node.domain, node.op_type) in PRODUCTS


def layer_of(node: onnx_ir.Node) -> str:
    """The innermost module that a node came from, such as ``cross_modal.layers.0.attention.key``; its own name where unknown."""
    # A list literal: the names of the modules from the outermost in, and the operation last.
    scopes = ast.literal_eval(node.metadata_props.get(MODULE_PATH, "[]"))
    return (scopes[-2] if len(scopes) > 1 else "") or node.name or ""


def select(nodes: Iterable[onnx_ir.Node], layers: Collection[str], graph: str) -> set[onnx_ir.Node]:
    """The nodes of the layers that are named.

    Args:
        nodes: of a graph.
        layers: names of nodes, or of modules, which stand for all that is inside of them: ``layers.0`` is meant by
            ``cross_modal.layers.0.attention`` as well as by ``temporal.layers.0``.
        graph: its name, for the message.

    Raises:
        ExportError: a name that no node has.
    """
    chosen: set[onnx_ir.Node] = set()
    nodes = list(nodes)
    for layer in layers:
        found = [node for node in nodes if is_of(node, layer)]
        if not found:
            raise unknown_layer(layer, graph, nodes)
        chosen.update(found)
    return chosen


def is_of(node: onnx_ir.Node, layer: str) -> bool:
    """Whether a layer's name means a node."""
    return node.name == layer or f".{layer}." in f".{layer_of(node)}."


def unknown_layer(layer: str, where: str, nodes: Iterable[onnx_ir.Node]) -> ExportError:
    """The error about a layer that nothing has, with those that there are."""
    known = sorted({layer_of(node) for node in nodes if is_product(node)})
    return ExportError(
        f"Graph '{where}' has no layer '{layer}' to keep in higher precision; its matrix products are in {known}. "
        "Name one of these, or a module that holds some of them."
    )
