"""The precision of a graph, read back from its ONNX file: what types its matrix products multiply.

Neither what a file is called nor what a converter promised counts, nor the types that the file itself notes down: they are inferred
again from its inputs and weights. A product is one in int8 only when an engine can multiply integers: when both of its operands
come out of ``DequantizeLinear`` of eight bits, or when it is an operator on integers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from hero_export.errors import PrecisionError
from hero_export.onnx.fusion import model_nodes, module_of, read_model
from hero_export.precision.microsoft import known_to_onnx

INT8, INT8_DYNAMIC, FP32 = "int8", "int8-dynamic", "fp32"

LEAST = 0.95
"""The smallest part of a graph's multiply-adds that must be in the precision that was asked for."""

UNKNOWN = "unknown"

_FLOATS: dict[int, str] = {
    TensorProto.FLOAT: FP32,
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp64",
}
_EIGHT_BITS: dict[int, str] = {
    TensorProto.INT8: INT8,
    TensorProto.UINT8: INT8,
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT8E5M2: "fp8",
}

_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "FusedMatMul"})
_ATTENTIONS = frozenset({"Attention", "MultiHeadAttention"})
_INTEGER_PRODUCTS = {
    "QLinearMatMul": 3,
    "QLinearConv": 3,
    "QGemm": 3,
    "MatMulInteger": 1,
    "ConvInteger": 1,
    "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
}
"""Operators that multiply integers, with the place of the weight among their inputs."""

_KEPT_VALUES = 64
"""Values of a weight that type inference may want to see, such as the shape of a Reshape."""


@dataclass(frozen=True)
class Product:
    """A matrix product, or the two of an attention.

    Attributes:
        layer: the module that it came from, or the node's own name.
        operator: such as "MatMul".
        precision: what is multiplied.
        multiply_adds: for a batch of one; None where the file does not tell.
        count: how many products.
        weighted: whether one operand is stored in the graph.
    """

    layer: str
    operator: str
    precision: str
    multiply_adds: int | None
    count: int = 1
    weighted: bool = False


@dataclass(frozen=True)
class Readback:
    """All matrix products of a graph, in its order."""

    products: tuple[Product, ...]

    def counts(self) -> dict[str, int]:
        """How many products per precision, the most frequent first."""
        counts: Counter[str] = Counter()
        for product in self.products:
            counts[product.precision] += product.count
        return dict(counts.most_common())

    def shares(self) -> dict[str, float]:
        """The part of the multiply-adds per precision, the largest first; of the products, where some have no known size."""
        weights: Counter[str] = Counter()
        for product in self.products:
            weights[product.precision] += _weight(product, self.products)
        total = sum(weights.values())
        return {precision: weight / total for precision, weight in weights.most_common()} if total else {}

    @property
    def precision(self) -> str:
        """Of most multiply-adds; "none" where the graph multiplies nothing."""
        return next(iter(self.shares()), "none")


def read_precision(path: Path) -> Readback:
    """Read back the precision of an ONNX file.

    Args:
        path: the file; weights that lie beside it are not read.

    Raises:
        BundleError: not a whole ONNX file.
        PrecisionError: its types contradict one another.
    """
    return precision_of(read_model(path), path.stem)


def precision_of(model: onnx.ModelProto, graph: str) -> Readback:
    """Read back the precision of a graph; its types are inferred, whatever it says of them.

    Args:
        model: is left as it is.
        graph: its name, for the message.

    Raises:
        PrecisionError: its types contradict one another.
    """
    return Readback(tuple(_Reader(model, graph).products()))


def require_precision(
    found: Readback, precision: str, graph: str, *, least: float = LEAST, excused: Collection[str] = ()
) -> None:
    """Refuse a graph whose matrix products are not in the precision that was asked for.

    Products with a stored weight can be in eight bits; those of attentions, of two computed operands, can't and don't count there.

    Args:
        found: what was read back.
        precision: that was asked for.
        graph: its name, for the message.
        least: the smallest part of the multiply-adds.
        excused: layers that were kept in higher precision on purpose, which do not count.

    Raises:
        PrecisionError: less is in that precision; names what is not.
    """
    halves = (*_FLOATS.values(), "fp8")
    asked = [
        product
        for product in found.products
        if (precision in halves or product.weighted) and product.layer not in excused
    ]
    others = [product for product in asked if product.precision != precision]
    if not asked and not excused:
        raise PrecisionError(
            f"Graph '{graph}' has no matrix product that could be in {precision}; expected at least one. Leave the graph in fp32."
        )
    total = sum(_weight(product, asked) for product in asked)
    share = 1 - sum(_weight(product, asked) for product in others) / total if total else 1.0
    if share >= least and not any(product.precision == UNKNOWN for product in others):
        return
    shown = [f"{product.layer} ({product.operator}) in {product.precision}" for product in others]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    raise PrecisionError(
        f"Graph '{graph}' is not in {precision}: it has {share:.1%} of its multiply-adds in it, expected at least {least:.0%}. "
        f"Not in {precision}: {', '.join(shown[:5])}{more}. Make it again with the versions that constraints.txt names; "
        "layers that are to stay in higher precision are named with --keep."
    )


def _weight(product: Product, among: Collection[Product]) -> int:
    """How much a product counts: its multiply-adds, or where those of one are not known, the products."""
    if any(one.multiply_adds is None for one in among):
        return product.count
    return product.multiply_adds or 0


class _Reader:
    """Reads one graph."""

    def __init__(self, model: onnx.ModelProto, graph: str) -> None:
        self._name = graph
        self._nodes = list(model.graph.node)
        self._inner = model_nodes(model)[len(self._nodes) :] if _has_inner(model) else []
        self._stored = {weight.name for weight in model.graph.initializer}
        self._makers = {name: node for node in self._nodes for name in node.output if name}
        self._types = _inferred(model, graph)

    def products(self) -> list[Product]:
        found = [product for node in self._nodes if (product := self._product(node)) is not None]
        # What lies in a branch or a function may run or not, on types that nobody can tell here.
        found += [
            Product(_layer(node), node.op_type, UNKNOWN, None)
            for node in self._inner
            if node.op_type in _PRODUCTS | _ATTENTIONS | _INTEGER_PRODUCTS.keys() | {"MatMulNBits"}
        ]
        return found

    def _product(self, node: onnx.NodeProto) -> Product | None:
        layer, operator = _layer(node), node.op_type
        if operator in _INTEGER_PRODUCTS:
            place = _INTEGER_PRODUCTS[operator]
            dynamic = operator == "DynamicQuantizeMatMul" or self._made_by(node.input[0], "DynamicQuantizeLinear")
            precision = INT8_DYNAMIC if dynamic else INT8
            return Product(
                layer, operator, precision, self._size(node, place), weighted=self._is_stored(node.input[place])
            )
        if operator == "MatMulNBits":
            attributes = {attribute.name: attribute.i for attribute in node.attribute}
            rows = self._rows(node.output[0], attributes["N"])
            size = None if rows is None else rows * attributes["N"] * attributes["K"]
            return Product(layer, operator, f"int{attributes.get('bits', 4)}-weights", size, weighted=True)
        if operator in _ATTENTIONS:
            return Product(layer, operator, self._float(node.input[0]), self._attention_size(node), count=2)
        if operator in _PRODUCTS:
            operands = node.input[:2]
            kinds = {self._eight_bits(name) for name in operands}
            kind = kinds.pop() if len(kinds) == 1 else None
            weighted = any(self._is_stored(name) for name in operands)
            return Product(layer, operator, kind or self._float(operands[0]), self._size(node, 1), weighted=weighted)
        return None

    def _float(self, name: str) -> str:
        kind = self._types.get(name)
        return UNKNOWN if kind is None else _FLOATS.get(kind.tensor_type.elem_type, UNKNOWN)

    def _made_by(self, name: str, operator: str) -> bool:
        return name in self._makers and self._makers[name].op_type == operator

    def _eight_bits(self, name: str) -> str | None:
        """The kind of eight bits that an operand is made of; None where it is not."""
        if not self._made_by(name, "DequantizeLinear"):
            return None
        kind = self._types.get(self._makers[name].input[0])
        return None if kind is None else _EIGHT_BITS.get(kind.tensor_type.elem_type)

    def _is_stored(self, name: str) -> bool:
        if name not in self._stored and self._made_by(name, "DequantizeLinear"):
            return self._is_stored(self._makers[name].input[0])
        return name in self._stored

    def _shape(self, name: str) -> list[int] | None:
        """Sizes of a value, 1 for the batch; None where the graph leaves another open."""
        kind = self._types.get(name)
        if kind is None or not kind.tensor_type.HasField("shape"):
            return None
        sizes = [size.dim_value if size.HasField("dim_value") else None for size in kind.tensor_type.shape.dim]
        if sizes and sizes[0] is None:
            sizes[0] = 1
        return None if None in sizes else [size for size in sizes if size is not None]

    def _rows(self, name: str, width: int) -> int | None:
        shape = self._shape(name)
        return None if shape is None else math.prod(shape) // max(width, 1)

    def _size(self, node: onnx.NodeProto, place: int) -> int | None:
        """Multiply-adds of a product of two operands, the second of which stands at ``place`` among the inputs."""
        left, right, result = (self._shape(name) for name in (node.input[0], node.input[place], node.output[0]))
        if right is None or result is None:
            return None
        if "Conv" in node.op_type:
            return math.prod(result) * math.prod(right[1:])
        if left is None:
            return None
        transposed = any(one.name in ("transA",) and one.i for one in node.attribute)
        return math.prod(result) * (left[-2] if transposed else left[-1])

    def _attention_size(self, node: onnx.NodeProto) -> int | None:
        query, key = (self._shape(name) for name in node.input[:2])
        if query is None or key is None:
            return None
        # (batch, heads, places, width) or (batch, places, hidden); either way the widths of all heads together.
        places, seen = query[-2], key[-2]
        width = math.prod(query[1:]) // places
        return 2 * places * seen * width


def _layer(node: onnx.NodeProto) -> str:
    return module_of(node) or node.name or node.output[0]


def _has_inner(model: onnx.ModelProto) -> bool:
    return bool(model.functions) or len(model_nodes(model)) > len(model.graph.node)


def _inferred(model: onnx.ModelProto, graph: str) -> dict[str, onnx.TypeProto]:
    """The types of all values by name, inferred from the inputs and the weights alone."""
    bare = onnx.ModelProto()
    bare.CopyFrom(_without_weights(model))
    del bare.graph.value_info[:]
    try:
        with known_to_onnx():
            typed = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise PrecisionError(
            f"The types of graph '{graph}' contradict one another ({str(error).strip()}); expected a graph that ONNX's type "
            "inference accepts. Make it again."
        ) from error
    values = (*typed.graph.input, *typed.graph.value_info, *typed.graph.output)
    return {value.name: value.type for value in values}


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its large weights as inputs, of which inference needs the types alone."""
    bare = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            part = getattr(bare, field.name)
            if isinstance(value, (str, int)):
                setattr(bare, field.name, value)
            else:
                part.MergeFrom(value)
    graph = bare.graph
    graph.name = model.graph.name
    graph.node.MergeFrom(model.graph.node)
    graph.output.MergeFrom(model.graph.output)
    stored = {weight.name for weight in model.graph.initializer}
    graph.input.MergeFrom(value for value in model.graph.input if value.name not in stored)
    for weight in model.graph.initializer:
        graph.input.append(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims)))
        if math.prod(weight.dims) <= _KEPT_VALUES and weight.data_location != TensorProto.EXTERNAL:
            graph.initializer.append(weight)
    return bare
