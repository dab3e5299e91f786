"""A graph in half precision: float16 or bfloat16 inside, float32 at its inputs and outputs.

Own code, since the converters that there are (onnxruntime's and onnxconverter-common's, which are one) know no bfloat16, clip a
weight beyond the range without a word, and cast around whole operator types where this pass follows the values.

What is computed in half precision, and what is not:

- Matrix products, attention, tables that rows are looked up in, and everything that passes their results on (sums of two, norms,
  activations, changes of shape) are in half precision. A norm keeps its statistics in float32 (``stash_type``).
- What a graph does to its inputs before the first product stays in float32: the scaling of pixels, the norm of frame features,
  which may be of any scale.
- Masks that fill in a constant, softmaxes and what is weighted by them, sums and means over an axis stay in float32 up to the next
  product: there rounding adds up, and the constants must come out as they are.

Every operator sees one floating type, as strongly typed engines demand.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, RemoveUnusedNodesPass, ShapeInferencePass

from hero_export.errors import PrecisionError
from hero_export.onnx.folding import array_of
from hero_export.precision.layers import is_product, layer_of, select

HalfPrecision = Literal["fp16", "bf16"]

_FLOAT = onnx_ir.DataType.FLOAT
HALVES: dict[str, tuple[onnx_ir.DataType, type]] = {
    "fp16": (onnx_ir.DataType.FLOAT16, np.float16),
    "bf16": (onnx_ir.DataType.BFLOAT16, ml_dtypes.bfloat16),
}

_CARRIERS = frozenset(
    {
        *(
            ("", name)
            for name in (
                *("Add", "Sub", "Mul", "Div", "Neg", "Min", "Max", "Where", "Identity"),
                *("Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Gelu"),
                *("Concat", "Split", "Slice", "Gather", "Expand", "Pad", "MaxPool"),
                *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"),
                *("LayerNormalization", "BatchNormalization"),
            )
        ),
        *(("com.microsoft", name) for name in ("SkipLayerNormalization", "BiasGelu")),
    }
)
"""Operators that pass on what they are given, in its precision. Any other operator is computed in float32."""

_UNTYPED = frozenset({("", "Shape"), ("", "Size")})
"""Operators to which the type of their input is nothing."""

MOST_LOST = 0.01
"""The largest part of a weight, by its norm, that may be lost in half precision. Rounding takes 0.0003 (fp16) or 0.003 (bf16); more
is lost where values are beyond what the type can tell from 0."""


def cast_graph(model: onnx_ir.Model, precision: HalfPrecision, *, keep: Collection[str] = (), graph: str = "") -> None:
    """Cast a graph to half precision, in place. Names, shapes and types of its inputs and outputs stay what they are.

    Args:
        model: of float32, with operators of the ONNX standard or ONNX Runtime's own.
        precision: of its matrix products.
        keep: layers that stay in float32, see ``layers.select``.
        graph: its name, for messages.

    Raises:
        PrecisionError: a weight that the type cannot hold, or control flow.
        ExportError: a layer to keep that is not there.
    """
    graph = graph or model.graph.name or "graph"
    InlinePass()(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    if flow := [node for node in model.graph if any(value.type in _SUBGRAPHS for value in node.attributes.values())]:
        raise PrecisionError(
            f"Graph '{graph}' has control flow ({flow[0].op_type} '{flow[0].name}'), which is not cast to {precision}; expected "
            "a graph of operators alone. Export it without branches and loops, or leave it in fp32."
        )
    ShapeInferencePass()(model)
    _Cast(model, precision, select(model.graph, keep, graph), graph).run()
    RemoveUnusedNodesPass()(model)


_SUBGRAPHS = (onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS)


def cast_file(
    source: Path, target: Path, precision: HalfPrecision, *, keep: Collection[str] = (), graph: str = ""
) -> None:
    """Write the graph of an ONNX file in half precision, and check it with ONNX's own checker.

    Args:
        source: the file, float32.
        target: of the new file; its folder must exist. Weights lie beside it if they lie beside the source.
        precision, keep, graph: as for ``cast_graph``.

    Raises:
        PrecisionError: as ``cast_graph``, or the result is not valid.
    """
    model = onnx_ir.load(source)
    cast_graph(model, precision, keep=keep, graph=graph or source.stem)
    save_model(model, target, beside=source.with_name(f"{source.name}.data").exists())
    check_file(target, graph or source.stem)


def save_model(model: onnx_ir.Model, path: Path, *, beside: bool) -> None:
    """Write an ONNX file; with ``beside`` its weights lie in ``<file>.data``."""
    onnx_ir.save(model, path, external_data=f"{path.name}.data" if beside else None)


def check_file(path: Path, graph: str) -> None:
    """Run ONNX's full check on a file.

    Raises:
        PrecisionError: it is not valid.
    """
    try:
        # By path: the checker then reads external data, and models beyond 2 GB.
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise PrecisionError(
            f"Graph '{graph}' is not valid ONNX after its precision was changed: {str(error).strip()} "
            "Export with the versions that constraints.txt names."
        ) from error


class _Cast:
    """One pass over one graph, from its inputs to its outputs."""

    def __init__(self, model: onnx_ir.Model, precision: HalfPrecision, kept: set[onnx_ir.Node], graph: str) -> None:
        self._graph = model.graph
        self._name = graph
        self._precision = precision
        self._type, self._dtype = HALVES[precision]
        self._kept = kept
        inputs = (*model.graph.inputs, *model.graph.initializers.values())
        self._floating = {value for value in inputs if value.dtype == _FLOAT}
        self._half: set[onnx_ir.Value] = set()
        self._full: set[onnx_ir.Value] = set()  # not to be rounded before the next product
        self._casts: dict[onnx_ir.Value, onnx_ir.Value] = {}

    def run(self) -> None:
        for node in list(self._graph):
            if (node.domain, node.op_type) in _UNTYPED:
                continue
            floats = [value for value in node.inputs if value is not None and value in self._floating]
            half = self._is_half(node, floats)
            for number, value in enumerate(node.inputs):
                if value in floats:
                    assert value is not None
                    node.replace_input_with(number, self._converted(value, node, half=half))
            full = node not in self._kept and not half and self._is_full(node, floats)
            for value in _results(node, bool(floats)):
                self._floating.add(value)
                if half:
                    self._half.add(value)
                    value.dtype = self._type
                elif full:
                    self._full.add(value)
        for number, value in enumerate(self._graph.outputs):
            if value in self._half:
                self._graph.outputs[number] = self._as_output(value)
        self._name_weights()

    def _is_half(self, node: onnx_ir.Node, floats: list[onnx_ir.Value]) -> bool:
        """Whether a node is computed in half precision, by what was decided for the nodes before it."""
        if not floats or node in self._kept:
            return False
        if is_product(node):
            return True
        if not _is_carrier(node) or self._is_full(node, floats):
            return False
        computed = [value for value in floats if not value.is_initializer()]
        if computed:
            return any(value in self._half for value in computed)
        # Rows of a table; or constants alone, such as the mask of ONNX Runtime's attention.
        users = [use.node for value in node.outputs for use in value.uses()]
        return node.op_type == "Gather" or all(is_product(user) and user not in self._kept for user in users)

    def _is_full(self, node: onnx_ir.Node, floats: list[onnx_ir.Value]) -> bool:
        """Whether a node's results must not be rounded before the next product."""
        if is_product(node):
            return False
        if not _is_carrier(node) or any(value in self._full for value in floats):
            return True
        constants = [value for value in floats if value.is_initializer()]
        return node.op_type == "Where" and 0 < len(constants) < len(floats)

    def _converted(self, value: onnx_ir.Value, node: onnx_ir.Node, *, half: bool) -> onnx_ir.Value:
        """A value in the precision in which a node is computed."""
        if half == (value in self._half):
            return value
        if value not in self._casts:
            if value.is_initializer():
                self._casts[value] = self._weight(value, node)
            else:
                kind, suffix = (self._type, self._precision) if half else (_FLOAT, "fp32")
                cast = _cast_node(value, kind, f"{value.name}.{suffix}")
                self._graph.insert_before(node, cast)
                self._casts[value] = cast.outputs[0]
        return self._casts[value]

    def _weight(self, value: onnx_ir.Value, node: onnx_ir.Node) -> onnx_ir.Value:
        """A weight in half precision, beside the one in float32."""
        array = array_of(value)
        with np.errstate(over="ignore"):  # looked for below
            cast: np.ndarray = array.astype(self._dtype)
        wide = cast.astype(np.float32)
        where = f"The weight '{value.name}' of graph '{self._name}' ({layer_of(node)})"
        advice = f"Keep that layer in fp32 (--keep {layer_of(node)}), or choose bf16, which has the range of fp32."
        if (np.isfinite(array) & ~np.isfinite(wide)).any():
            most = np.abs(array[np.isfinite(array)]).max()
            limit = float(ml_dtypes.finfo(self._dtype).max)
            raise PrecisionError(
                f"{where} has values up to {most:.4g}; {self._precision} holds up to {limit:.4g}. {advice}"
            )
        finite = np.isfinite(array)
        lost, norm = np.linalg.norm((array - wide)[finite]), np.linalg.norm(array[finite])
        if lost > MOST_LOST * norm:
            raise PrecisionError(
                f"{where} loses {lost / norm:.0%} of its norm in {self._precision}, which cannot tell its smallest values from 0; "
                f"expected at most {MOST_LOST:.0%}. {advice}"
            )
        made = onnx_ir.Value(
            name=f"{value.name}.{self._precision}",
            shape=value.shape,
            type=onnx_ir.TensorType(self._type),
            const_value=onnx_ir.tensor(cast, dtype=self._type, name=f"{value.name}.{self._precision}"),
        )
        self._graph.register_initializer(made)
        return made

    def _as_output(self, value: onnx_ir.Value) -> onnx_ir.Value:
        """An output in float32, under its own name."""
        name = value.name
        assert name is not None
        value.name = f"{name}.{self._precision}"
        cast = _cast_node(value, _FLOAT, name)
        self._graph.append(cast)
        return cast.outputs[0]

    def _name_weights(self) -> None:
        """Give a weight that is used in half precision alone the name that it had."""
        for value, made in self._casts.items():
            if value.is_initializer() and not value.uses():
                name = value.name
                assert name is not None
                del self._graph.initializers[name]
                made.name = name


def _is_carrier(node: onnx_ir.Node) -> bool:
    return (node.domain, node.op_type) in _CARRIERS


def _results(node: onnx_ir.Node, floating: bool) -> list[onnx_ir.Value]:
    """The outputs of a node that are of a floating type; those of a product or carrier are of the type of its inputs."""
    if not (is_product(node) or _is_carrier(node)):
        return [value for value in node.outputs if value.dtype == _FLOAT]
    if not floating:
        return []
    # The second and third of a norm are statistics in float32, the second of a pooling are indices.
    single = node.op_type.endswith("Normalization") or node.op_type == "MaxPool"
    return [value for number, value in enumerate(node.outputs) if number in (0, 3) or not single]


def _cast_node(value: onnx_ir.Value, kind: onnx_ir.DataType, name: str) -> onnx_ir.Node:
    node = onnx_ir.node("Cast", [value], {"to": kind}, name=f"{name}.cast")
    result = node.outputs[0]
    result.name, result.shape, result.dtype = name, value.shape, kind
    return node
