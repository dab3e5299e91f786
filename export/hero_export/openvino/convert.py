"""From an ONNX graph to a model of OpenVINO, by OpenVINO's own converter, and to its files.

In the model every matrix product is named after the layer that it came from, such as ``cross_modal.layers.0.attention.query``, so
that messages, the layers to keep and what is read back from the file all speak of the same thing.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx_ir

from hero_export.errors import ExportError, PrecisionError
from hero_export.precision.layers import is_of, is_product, layer_of
from hero_export.precision.quantise import NARROW
from hero_sdk.engines.openvino import STAMP, load_openvino

if TYPE_CHECKING:
    import openvino

SDPA = "ScaledDotProductAttention"
"""OpenVINO's fused attention."""

PRODUCTS = frozenset({"MatMul", "Convolution", "GroupConvolution", "ConvolutionBackpropData", SDPA})
"""Operators of OpenVINO that multiply matrices."""

_READERS = PRODUCTS | {"Gather"}
"""Operators whose weights are stored in half precision; those of norms are few."""

_HALVES: dict[str, Any] = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}


@dataclass(frozen=True)
class Converted:
    """A graph in OpenVINO.

    Attributes:
        graph: its name in the bundle.
        model: in float32.
        products: names of the model's products by the ONNX values that they compute.
        nodes: of the ONNX graph.
    """

    graph: str
    model: openvino.Model
    products: dict[str, str]
    nodes: tuple[onnx_ir.Node, ...]

    def kept(self, keep: Collection[str]) -> list[str]:
        """The names of the products that stay in float32 in eight bits: those of the layers that are named, and three more kinds.

        A product with a handful of outputs (the scores of a pooling, the logit of a statement) costs nothing and decides much. One
        of a pooled vector has a row where the others have one for each token or clip, and OpenVINO 2026.4 computes it wrong once
        it quantises in the reduction itself: the logits of a random model were 24 % of their scale away, and without its
        integer kernels 1 %. An attention of one query, as in a step of a caption's decoder, multiplies little and would have its
        whole cache rounded at every step, which takes longer: on the demo, with the rest of the decoder in float32, these alone
        changed 2.1 % of the captions' scores, where 0.8 % change without them.

        Args:
            keep: layers, as ``hero_export.precision.layers.is_of`` takes them; those that the graph does not have are passed over.
        """
        named = {
            self.products[_result(node)]
            for node in self.nodes
            if _result(node) in self.products and any(is_of(node, layer) for layer in keep)
        }
        return [
            name
            for operator in self.model.get_ordered_ops()
            if operator.get_type_name() in PRODUCTS
            and (
                (name := operator.get_friendly_name()) in named
                or _outputs(operator) < NARROW
                or _is_pooled(operator)
                or _has_one_query(operator)
            )
        ]


def _is_pooled(product: openvino.Node) -> bool:
    return any(value.get_node().get_type_name().startswith("Reduce") for value in product.input_values())


def _has_one_query(product: openvino.Node) -> bool:
    if product.get_type_name() != SDPA:
        return False
    shape = product.get_input_partial_shape(0)
    queries = shape[len(shape) - 2]
    return bool(queries.is_static) and queries.get_length() == 1


def _result(node: onnx_ir.Node) -> str:
    return node.outputs[0].name or ""


def _outputs(product: openvino.Node) -> int:
    """How wide a product's result is: its channels, or its last dimension."""
    shape = product.get_output_partial_shape(0)
    size = shape[1 if "Convolution" in product.get_type_name() else len(shape) - 1]
    return NARROW if size.is_dynamic else int(size.get_length())


def convert_graph(source: Path, graph: str) -> Converted:
    """Convert an ONNX file.

    Args:
        source: the file, with the standard's operators, float32.
        graph: its name in the bundle.

    Raises:
        ExportError: OpenVINO cannot convert it, or what it made of it cannot be recognised.
        MissingPackageError: OpenVINO is not installed.
    """
    openvino = load_openvino()
    try:
        model = openvino.convert_model(source)
    except Exception as error:  # OpenVINO's exceptions share no base class but Exception
        raise ExportError(
            f"Graph '{graph}' ({source}) cannot be converted by OpenVINO {openvino.get_version()}: {error} Export the bundle with "
            "the versions that constraints.txt names, and with --operators standard."
        ) from error
    onnx_graph = onnx_ir.load(source).graph
    nodes = tuple(onnx_graph)
    products = _name_products(model, nodes, graph)
    _name_outputs(model, [value.name or "" for value in onnx_graph.outputs])
    return Converted(graph, model, products, nodes)


def _name_outputs(model: openvino.Model, names: Collection[str]) -> None:
    """Leave each output the one name that it has in ONNX; the converter gives it that of every step that changed nothing, too."""
    for port in model.outputs:
        port.get_tensor().set_names(port.get_names() & set(names))


def _name_products(model: openvino.Model, nodes: Collection[onnx_ir.Node], graph: str) -> dict[str, str]:
    """Name the products of a model after their layers, and what ONNX has no name for by its kind and place.

    OpenVINO counts through a whole process there, so that the same graph would give another file each time.
    """
    known = {node.name for node in nodes}
    known |= {value.name for node in nodes for value in (*node.inputs, *node.outputs) if value is not None}
    for place, operator in enumerate(model.get_ordered_ops()):
        if operator.get_friendly_name() not in known:
            operator.set_friendly_name(f"{operator.get_type_name()}.{place}")
    makers = {
        name: operator for operator in model.get_ops() for port in operator.outputs() for name in port.get_names()
    }
    named: dict[str, str] = {}
    for node in nodes:
        if not is_product(node):
            continue
        maker = makers.get(_result(node))
        product = None if maker is None else next(_products_behind(maker), None)
        if product is None or product.get_friendly_name() in named.values():
            raise ExportError(
                f"Graph '{graph}': OpenVINO's converter left no product of its own for {node.op_type} '{node.name}' "
                f"({layer_of(node)}); expected one. Use the version of OpenVINO that constraints.txt names."
            )
        name = layer_of(node) or _result(node)
        while name in named.values():  # a module that multiplies twice
            name = _counted(name)
        product.set_friendly_name(name)
        named[_result(node)] = name
    _rename_namesakes(model, set(named.values()))
    return named


def _rename_namesakes(model: openvino.Model, taken: Collection[str]) -> None:
    """Leave the names of products to them: the converter makes several operators of an attention, all with its node's name.

    NNCF goes by names, and takes the last operator that has one.
    """
    for place, operator in enumerate(model.get_ordered_ops()):
        if operator.get_type_name() not in PRODUCTS and operator.get_friendly_name() in taken:
            operator.set_friendly_name(f"{operator.get_friendly_name()}.{operator.get_type_name()}.{place}")


def _counted(name: str) -> str:
    stem, number = re.fullmatch(r"(.*?)(?:#(\d+))?", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{stem}#{int(number or 1) + 1}"


def _products_behind(operator: openvino.Node) -> Iterator[openvino.Node]:
    """The products that an operator's value comes from, the nearest first: a product with a bias is two operators."""
    waiting = deque([operator])
    while waiting:
        one = waiting.popleft()
        if one.get_type_name() in PRODUCTS:
            yield one
        else:
            waiting.extend(value.get_node() for value in one.input_values())


def store_weights(model: openvino.Model, kind: str, graph: str, *, tables_only: bool = False) -> None:
    """Store weights of products and tables in half precision, in place; what reads them gets them as float32.

    Args:
        model: to be changed.
        kind: "fp16" or "bf16".
        graph: its name, for the message.
        tables_only: only what rows are looked up in.

    Raises:
        PrecisionError: a weight that the type cannot hold.
    """
    openvino = load_openvino()
    readers = {"Gather"} if tables_only else _READERS
    for constant in [one for one in model.get_ops() if one.get_type_name() == "Constant"]:
        uses = constant.output(0).get_target_inputs()
        is_float = constant.get_element_type() == openvino.Type.f32
        if not is_float or not constant.shape or not readers & {use.get_node().get_type_name() for use in uses}:
            continue
        wide = constant.data
        with np.errstate(over="ignore"):  # looked for below
            half = wide.astype(_HALVES[kind])
        if not np.isfinite(half.astype(np.float32)).all():
            raise PrecisionError(
                f"Graph '{graph}' has a weight '{constant.get_friendly_name()}' with values up to {np.abs(wide).max():.4g}, which "
                f"{kind} cannot hold. Choose bf16, which has the range of fp32."
            )
        stored = openvino.opset13.constant(half, dtype=getattr(openvino.Type, {"fp16": "f16"}.get(kind, kind)))
        stored.set_friendly_name(f"{constant.get_friendly_name()}.{kind}")
        widened = openvino.opset13.convert(stored, "f32")
        widened.set_friendly_name(f"{constant.get_friendly_name()}.fp32")
        for use in uses:
            use.replace_source_output(widened.output(0))


def save_graph(model: openvino.Model, path: Path, *, precision: str, source: str) -> None:
    """Write a model, ``.xml`` and ``.bin``, with a note of what it is.

    Args:
        model: to be written.
        path: of the ``.xml`` file, which has the graph's name.
        precision: that it was made in.
        source: sha256 of the ONNX file.
    """
    for name, value in {"graph": path.stem, "precision": precision, "source": source}.items():
        model.set_rt_info(value, [STAMP, name])
    load_openvino().save_model(model, path, compress_to_fp16=False)
