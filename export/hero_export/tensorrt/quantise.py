"""Explicit quantisation, the one kind that TensorRT knows: eight bits are written into the graph, symmetric, without zero points.

A matrix product with a stored weight gets its operands through ``DequantizeLinear``: the weight is stored in eight bits, with a
scale for each of its columns (int8) or for all of it (fp8, E4M3); the other operand passes a ``QuantizeLinear`` with one scale,
from the largest value that it had on the calibration set. Scales have the precision of the graph around them, for a cast between
a dequantisation and a product would keep the builder from joining them.

Own code beside ``hero_export.precision.quantise``: onnxruntime's quantiser rounds biases to int32, which TensorRT does not take,
and writes scales in float32, which puts casts into a graph in half precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import ml_dtypes
import numpy as np
import onnx_ir

from hero_export.errors import PrecisionError
from hero_export.onnx.folding import array_of, is_constant
from hero_export.precision.layers import layer_of

EightBits = Literal["int8", "fp8"]

_WEIGHTED = frozenset({"MatMul", "Gemm", "Conv"})
"""Operators of the standard whose second input may be a weight."""

NARROW = 8
"""Products with fewer outputs, such as the scores of a pooling, stay as they are: they cost nothing and decide much."""

SMALLEST_SCALE = float(np.finfo(np.float16).tiny)
"""The smallest number that float16 has with all its digits. A smaller scale would be rounded; values below it hardly count."""


@dataclass(frozen=True)
class _Kind:
    """A type of eight bits: the standard's, numpy's, its largest value, and whether each column of a weight has its own scale."""

    type: onnx_ir.DataType
    dtype: np.dtype
    largest: float
    by_column: bool


_KINDS: dict[str, _Kind] = {
    "int8": _Kind(onnx_ir.DataType.INT8, np.dtype(np.int8), 127.0, by_column=True),
    "fp8": _Kind(onnx_ir.DataType.FLOAT8E4M3FN, np.dtype(ml_dtypes.float8_e4m3fn), 448.0, by_column=False),
}


def weighted_products(model: onnx_ir.Model) -> list[onnx_ir.Node]:
    """The products with a stored weight."""
    return [
        node
        for node in model.graph
        if node.op_type in _WEIGHTED and is_constant(node.inputs[1]) and not is_constant(node.inputs[0])
    ]


def wide_products(model: onnx_ir.Model) -> list[onnx_ir.Node]:
    """Those of them that are quantised."""
    return [node for node in weighted_products(model) if _width(node) >= NARROW]


def _width(node: onnx_ir.Node) -> int:
    """How many outputs a product has: columns of its weight, or channels."""
    weight = node.inputs[1]
    assert weight is not None
    assert weight.shape is not None
    return int(weight.shape.numpy()[_columns(node)])


def quantise_graph(model: onnx_ir.Model, kind: EightBits, largest: Mapping[str, float], graph: str) -> None:
    """Quantise the wide products of a graph, in place.

    Args:
        model: in half precision, with operators of the standard.
        kind: of the eight bits.
        largest: the largest absolute value of each wide product's computed operand, by the operand's name.
        graph: its name, for messages.

    Raises:
        PrecisionError: a product whose operand has no range, or one that is not finite.
    """
    operands: dict[onnx_ir.Value, onnx_ir.Value] = {}
    weights: dict[tuple[onnx_ir.Value, int | None], onnx_ir.Value] = {}
    for node in wide_products(model):
        operand, weight = node.inputs[0], node.inputs[1]
        assert operand is not None
        assert weight is not None
        if operand not in operands:
            most = largest.get(operand.name or "", float("nan"))
            if not np.isfinite(most):
                raise PrecisionError(
                    f"The values that go into {layer_of(node)} of graph '{graph}' have no range ({most}); expected their largest "
                    "on the calibration set. Calibrate with data on which the model gives finite numbers."
                )
            operands[operand] = _quantised(model.graph, operand, most, _KINDS[kind], node)
        axis = _columns(node) if _KINDS[kind].by_column else None
        if (weight, axis) not in weights:
            weights[weight, axis] = _stored(model.graph, weight, axis, _KINDS[kind], node)
        node.replace_input_with(0, operands[operand])
        node.replace_input_with(1, weights[weight, axis])
    for weight, _ in weights:
        if not weight.uses() and weight.name is not None:
            del model.graph.initializers[weight.name]


def _columns(node: onnx_ir.Node) -> int:
    """The axis of a weight along which its columns lie, each of which makes one value of the result."""
    weight = node.inputs[1]
    assert weight is not None
    assert weight.shape is not None
    if node.op_type == "Conv":
        return 0
    transposed = node.attributes.get("transB")
    return 0 if transposed is not None and transposed.as_int() else len(weight.shape) - 1


def _scale(most: np.ndarray | float, kind: _Kind, dtype: np.dtype) -> np.ndarray:
    return np.maximum(np.asarray(most, np.float32) / kind.largest, SMALLEST_SCALE).astype(dtype)


def _constant(graph: onnx_ir.Graph, name: str, array: np.ndarray, kind: onnx_ir.DataType) -> onnx_ir.Value:
    value = onnx_ir.Value(
        name=name,
        shape=onnx_ir.Shape(array.shape),
        type=onnx_ir.TensorType(kind),
        const_value=onnx_ir.tensor(array, dtype=kind, name=name),
    )
    graph.register_initializer(value)
    return value


def _quantised(
    graph: onnx_ir.Graph, operand: onnx_ir.Value, most: float, kind: _Kind, user: onnx_ir.Node
) -> onnx_ir.Value:
    """A computed operand, to eight bits and back."""
    name = f"{operand.name}.{kind.type.name.lower()}"
    assert operand.dtype is not None
    scale = _constant(graph, f"{name}.scale", _scale(most, kind, operand.dtype.numpy()), operand.dtype)
    zero = _constant(graph, f"{name}.zero", np.zeros((), kind.dtype), kind.type)
    to = onnx_ir.node("QuantizeLinear", [operand, scale, zero], name=f"{name}.quantise")
    back = onnx_ir.node("DequantizeLinear", [to.outputs[0], scale, zero], name=f"{name}.dequantise")
    for node, suffix, dtype in ((to, "quantised", kind.type), (back, "dequantised", operand.dtype)):
        value = node.outputs[0]
        value.name, value.shape, value.dtype = f"{name}.{suffix}", operand.shape, dtype
        node.metadata_props.update(user.metadata_props)
    graph.insert_before(user, (to, back))
    return back.outputs[0]


def _stored(
    graph: onnx_ir.Graph, weight: onnx_ir.Value, axis: int | None, kind: _Kind, user: onnx_ir.Node
) -> onnx_ir.Value:
    """A weight, stored in eight bits."""
    array = array_of(weight).astype(np.float32)
    others = None if axis is None else tuple(number for number in range(array.ndim) if number != axis)
    assert weight.dtype is not None
    scale = _scale(np.abs(array).max(axis=others), kind, weight.dtype.numpy())
    wide = scale.astype(np.float32)
    if axis is not None:
        wide = wide.reshape([-1 if number == axis else 1 for number in range(array.ndim)])
    shares = np.clip(array / wide, -kind.largest, kind.largest)
    stored = (np.rint(shares) if kind.dtype == np.int8 else shares).astype(kind.dtype)
    name = f"{weight.name}.{kind.type.name.lower()}"
    node = onnx_ir.node(
        "DequantizeLinear",
        [
            _constant(graph, f"{name}.weight" if axis is None else f"{name}.weight.{axis}", stored, kind.type),
            _constant(graph, f"{name}.scale" if axis is None else f"{name}.scale.{axis}", scale, weight.dtype),
        ],
        {} if axis is None else {"axis": axis},
        name=f"{name}.dequantise" if axis is None else f"{name}.dequantise.{axis}",
    )
    value = node.outputs[0]
    value.name, value.shape, value.dtype = f"{node.name}d", weight.shape, weight.dtype
    node.metadata_props.update(user.metadata_props)
    graph.insert_before(user, node)
    return value
