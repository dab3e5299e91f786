"""What TensorRT needs changed in a graph that every other engine takes as it is.

It reads uint8 from a network's inputs and does one thing with it: it casts it. A frame encoder that first moves its pixels about
casts them first here.
"""

from __future__ import annotations

import onnx_ir

from hero_export.errors import BuildError

_MOVES = frozenset({"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
"""Operators that change no value, so that a cast may as well come before them."""


def is_standard(model: onnx_ir.Model) -> bool:
    """Whether a graph has operators of the ONNX standard alone."""
    return not any(node.domain for node in model.graph.all_nodes())


def adapt_graph(model: onnx_ir.Model, graph: str) -> None:
    """Change a graph in place into one that TensorRT takes; it computes the same.

    Args:
        model: with operators of the ONNX standard.
        graph: its name, for messages.

    Raises:
        BuildError: operators of another domain than the standard's, or an input that cannot be cast first.
    """
    strange = [node for node in model.graph.all_nodes() if node.domain]
    if strange:
        kinds = sorted({f"{node.domain}::{node.op_type}" for node in strange})
        raise BuildError(
            f"Graph '{graph}' has the operators {kinds}, which TensorRT does not know: {strange[0].op_type} "
            f"'{strange[0].name}' and {len(strange) - 1} more. Export the bundle with --operators standard."
        )
    for value in model.graph.inputs:
        if value.dtype == onnx_ir.DataType.UINT8:
            _cast_first(model.graph, value, graph)


def _cast_first(graph: onnx_ir.Graph, value: onnx_ir.Value, name: str) -> None:
    """Move the cast of an input before whatever else is done to it."""
    moves, casts = _users(value, name)
    if not moves:
        return
    kinds = {cast.attributes["to"].as_int() for cast in casts}
    if len(kinds) != 1:
        raise BuildError(
            f"Input '{value.name}' of graph '{name}' is uint8 and is cast to {len(kinds)} types after {_shown(moves[0])}; "
            "TensorRT casts an input first. Cast it once, before anything else, and export again."
        )
    kind = onnx_ir.DataType(kinds.pop())
    first = onnx_ir.node("Cast", [value], {"to": kind}, name=f"{value.name}.cast")
    result = first.outputs[0]
    result.name, result.shape, result.dtype = f"{value.name}.{kind.name.lower()}", value.shape, kind
    for move in moves:
        if move.inputs[0] is value:
            move.replace_input_with(0, result)
        move.outputs[0].dtype = kind
    graph.insert_before(graph[0], first)
    for cast in casts:
        source = cast.inputs[0]
        assert source is not None
        cast.outputs[0].replace_all_uses_with(result if source is value else source)
        graph.remove(cast, safe=True)


def _users(value: onnx_ir.Value, name: str) -> tuple[list[onnx_ir.Node], list[onnx_ir.Node]]:
    """The nodes that move an input about before it is cast, and those that cast it."""
    moves: list[onnx_ir.Node] = []
    casts: list[onnx_ir.Node] = []
    waiting = [value]
    while waiting:
        for node in (use.node for use in waiting.pop().uses()):
            if node.op_type == "Cast":
                casts.append(node)
            elif node.op_type in _MOVES:
                moves.append(node)
                waiting.append(node.outputs[0])
            else:
                raise BuildError(
                    f"Graph '{name}' computes {_shown(node)} on its uint8 input '{value.name}'; TensorRT does nothing with uint8 "
                    "but cast it. Cast the input before anything else, and export again."
                )
    return moves, casts


def _shown(node: onnx_ir.Node) -> str:
    return f"{node.op_type} '{node.name}'"
