"""What a model of OpenVINO really is: from its file, and from what OpenVINO makes of it on this machine.

The file says how weights are stored and where activations are quantised. What a product is computed in is decided when the model is
compiled: OpenVINO computes in bfloat16, or in integers, only where the CPU can, and says nothing when it does not. So the compiled
graph is read as well, and the two are compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hero_export.errors import FusionError, PrecisionError
from hero_export.onnx.operators import ATTENTION, GELU, NORM
from hero_export.openvino.convert import PRODUCTS, SDPA
from hero_export.precision.readback import FP32, INT8, INT8_DYNAMIC, Product, Readback
from hero_sdk.engines.openvino import HALF_CAPABILITIES, capabilities, stamp_of

if TYPE_CHECKING:
    import openvino

FUSED = {SDPA: ATTENTION, "MVN": NORM, "Gelu": GELU}
"""OpenVINO's operators by the standard's names of them."""

_STORED = {
    "f32": FP32,
    "f16": "fp16",
    "bf16": "bf16",
    "i8": INT8,
    "u8": INT8,
    "i4": "int4",
    "u4": "int4",
}
"""Precisions by the types of stored weights."""

_WEIGHT_STEPS = frozenset({"Convert", "Multiply", "Subtract", "Reshape", "Transpose", "FakeQuantize", "Unsqueeze"})
"""What may stand between a stored weight and its product."""

_MOVES = frozenset(
    {"Reshape", "Transpose", "Unsqueeze", "Squeeze", "Gather", "Slice", "StridedSlice", "Split", "VariadicSplit"}
)
"""What may stand between a quantised activation and its product: it takes or moves values, and changes none."""

_RUN_PRODUCTS = frozenset({"FullyConnected", "MatMul", "Convolution", "Deconvolution"})
_RUN_ATTENTIONS = frozenset({SDPA, "Subgraph", "MHA"})
"""Kinds of nodes of a compiled graph: products, and what computes an attention as one."""

_RUN_TYPES = {"f32": FP32, "f16": "fp16", "bf16": "bf16", "i8": INT8, "u8": INT8, "I8": INT8}


@dataclass(frozen=True)
class Execution:
    """A graph as OpenVINO compiled it on this machine.

    Attributes:
        products: matrix products per precision that they are computed in; an attention has two.
        attentions: how many attentions are one operation.
        apart: those that are not, by name.
    """

    products: dict[str, int]
    attentions: int
    apart: tuple[str, ...]


def read_products(model: openvino.Model) -> Readback:
    """The matrix products of a model, as its file has them.

    A product of two computed values has no weight that would tell; it is in the precision that the model is compiled for.
    """
    precision = stamp_of(model).get("precision", FP32)
    return Readback(tuple(_products(model, precision)))


def fused_operators(model: openvino.Model) -> dict[str, int]:
    """How many of each fused operator a model has, by the standard's names; those that it has none of are left out."""
    counts = Counter(FUSED.get(operator.get_type_name()) for operator in model.get_ops())
    return {name: counts[name] for name in FUSED.values() if counts[name]}


def check_fused(graph: str, found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Compare the fused operators of a model with those of the ONNX graph.

    Raises:
        FusionError: a number differs.
    """
    if dict(found) != dict(expected):
        raise FusionError(
            f"Graph '{graph}' has the fused operators {dict(found)} in OpenVINO; its architecture implies {dict(expected)}. Use "
            "the version of OpenVINO that constraints.txt names."
        )


def _products(model: openvino.Model, precision: str) -> Iterator[Product]:
    computed = precision if precision in _RUN_TYPES.values() and precision != INT8 else FP32
    for operator in model.get_ordered_ops():
        kind = operator.get_type_name()
        if kind not in PRODUCTS:
            continue
        layer, values = operator.get_friendly_name(), operator.input_values()
        if kind == SDPA:
            places, width = _shape(values[0])[-2], _shape(values[0])[-1]
            size = math.prod(_shape(values[0])[:-2]) * places * _shape(values[1])[-2] * width
            scores = INT8 if all(_is_quantised(value) for value in values[:2]) else computed
            yield Product(layer, kind, scores, size)
            yield Product(layer, kind, computed, size)  # of the probabilities, which nothing quantises
            continue
        stored = [_stored_type(value) for value in values[:2]]
        weight = next((number for number, one in enumerate(stored) if one is not None), None)
        if weight is None:
            both = all(_is_quantised(value) for value in values[:2])
            yield Product(layer, kind, INT8 if both else computed, _size(operator))
            continue
        found = _STORED.get(str(stored[weight]), str(stored[weight]))
        if found in (INT8, "int4") and not _is_quantised(values[1 - weight]):
            found = INT8_DYNAMIC if precision == INT8_DYNAMIC and found == INT8 else f"{found}-weights"
        yield Product(layer, kind, found, _size(operator), weighted=True)


def _stored_type(value: openvino.Output) -> str | None:
    """The type in which a product's operand is stored; None for one that is computed."""
    node = value.get_node()
    while node.get_type_name() in _WEIGHT_STEPS:
        node = node.input_value(0).get_node()
    return str(node.get_element_type().get_type_name()) if node.get_type_name() == "Constant" else None


def _is_quantised(value: openvino.Output) -> bool:
    """Whether a computed operand comes out of a quantisation to eight bits."""
    node = value.get_node()
    while node.get_type_name() in _MOVES:
        node = node.input_value(0).get_node()
    return node.get_type_name() == "FakeQuantize" and node.get_attributes()["levels"] in (255, 256)


def _shape(value: openvino.Output) -> list[int]:
    """Sizes, 1 for the batch."""
    return [1 if size.is_dynamic else size.get_length() for size in value.get_partial_shape()]


def _size(operator: openvino.Node) -> int:
    """Multiply-adds of a product, for a batch of one."""
    first, second = (_shape(value) for value in operator.input_values()[:2])
    result = math.prod(_shape(operator.output(0)))
    if operator.get_type_name() != "MatMul":
        return result * math.prod(second[1:])
    return result * first[-2 if operator.get_attributes()["transpose_a"] else -1]


def read_execution(model: openvino.Model, compiled: openvino.CompiledModel) -> Execution:
    """What OpenVINO computes a model in on this machine.

    Args:
        model: that was compiled.
        compiled: what came of it.
    """
    attentions = [one.get_friendly_name() for one in model.get_ops() if one.get_type_name() == SDPA]
    rest = _RUN_TYPES.get(str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()), FP32)
    products: Counter[str] = Counter()
    holders: dict[str, list[str]] = {name: [] for name in attentions}
    for node in compiled.get_runtime_model().get_ops():
        about = {name: value.astype(str) for name, value in node.get_rt_info().items()}
        kind, names = about["layerType"], about.get("originalLayersNames", "").split(",")
        inside = [name for name in attentions if name in names]
        computed = _RUN_TYPES.get(about["primitiveType"].rpartition("_")[2], about["runtimePrecision"])
        if kind in _RUN_PRODUCTS:
            products[computed] += 1
        elif inside and kind in _RUN_ATTENTIONS:
            products[computed] += len(inside)
            products[rest if computed == INT8 else computed] += len(inside)
        for name in inside:
            if kind in _RUN_ATTENTIONS or kind in _RUN_PRODUCTS or kind == "Softmax":
                holders[name].append(kind)
    apart = tuple(name for name, kinds in holders.items() if len(kinds) != 1 or kinds[0] not in _RUN_ATTENTIONS)
    return Execution(dict(products.most_common()), len(attentions) - len(apart), apart)


def check_execution(graph: str, precision: str, stored: Readback, found: Execution) -> str | None:
    """Compare what a graph is computed in with what it was made in.

    Args:
        graph: its name.
        precision: that was asked for.
        stored: what its file says.
        found: what this machine makes of it.

    Returns:
        Why the precision was seen in the file alone; None where it was executed.

    Raises:
        PrecisionError: this CPU can compute in the precision, and OpenVINO computes in another.
        FusionError: an attention is not one operation.
    """
    if found.apart:
        raise FusionError(
            f"Graph '{graph}': OpenVINO does not compute {len(found.apart)} of {len(found.apart) + found.attentions} attentions as "
            f"one operation on this machine: {', '.join(found.apart[:3])}. Use the version of OpenVINO that constraints.txt names."
        )
    needed = HALF_CAPABILITIES.get(precision)
    if needed is not None and needed not in capabilities():
        _require_only(graph, FP32, found, Counter())
        return f"checked in the file, not executed here: this CPU does not compute in {precision}, and runs it in fp32"
    # What is stored in eight bits and multiplied as numbers, or quantised on the way, looks like fp32 in a compiled graph.
    counts: Counter[str] = Counter()
    for kind, count in stored.counts().items():
        counts[kind if kind in _RUN_TYPES.values() else FP32] += count
    asked = precision if precision in _RUN_TYPES.values() else FP32
    _require_only(graph, asked, found, counts)
    return None


def _require_only(graph: str, asked: str, found: Execution, allowed: Counter[str]) -> None:
    """Refuse products in another precision than the one that was asked for, beyond those that the file has in it."""
    wrong = {kind: count for kind, count in found.products.items() if kind != asked and count > allowed[kind]}
    if wrong or (allowed[asked] and asked not in found.products):
        raise PrecisionError(
            f"Graph '{graph}' was made for {asked}, and OpenVINO computes its products in {found.products} here; expected "
            f"{dict(allowed) or {asked: sum(found.products.values())}}. Use the version of OpenVINO that constraints.txt names, or "
            "another precision."
        )
