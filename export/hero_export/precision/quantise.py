"""A graph in eight bits, through onnxruntime's quantisation; what goes in and what comes out is prepared and checked here.

What is quantised: matrix products with a stored weight. Weights are symmetric, with one scale per output channel. What is not: the
two products of attentions, whose operands are both computed; products with a handful of outputs (the scores of a pooling, the
logit of a statement), which cost nothing and decide much; and the layers that are kept.

Only the products read what was rounded. onnxruntime's quantiser gives every reader of a tensor its rounded form, the residual
connections and the outputs of the graph included; here those get the tensor itself again, which costs no time and spares much of
the error.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, RemoveUnusedNodesPass

from hero_export.errors import CalibrationError, PrecisionError
from hero_export.onnx.export import MODULE_PATH
from hero_export.precision.cast import check_file, save_model
from hero_export.precision.layers import is_of, layer_of, select

Quantisation = Literal["int8", "int8-dynamic", "int8-weights", "int4-weights"]

NARROW = 8
"""Products with fewer outputs than this stay in float32."""

BLOCK = 32
"""Weights along the input that share a scale, in weight-only quantisation."""

_WEIGHTED = frozenset({"MatMul", "Gemm", "Conv"})
_CONVOLUTIONAL = ("Conv", "Add", "Clip", "Relu", "MaxPool", "MatMul", "Gemm")
"""Operators of a convolutional network that are quantised together, so that nothing is float in between."""


def quantise_file(
    source: Path,
    target: Path,
    precision: Quantisation,
    *,
    rows: Iterable[Mapping[str, np.ndarray]] = (),
    keep: Collection[str] = (),
    graph: str = "",
) -> frozenset[str]:
    """Write the graph of an ONNX file in eight bits, or with its weights in eight or four, and check it with ONNX's own checker.

    Args:
        source: the file, float32.
        target: of the new file; its folder must exist.
        precision: "int8" rounds activations by what ``rows`` showed of them, "int8-dynamic" by what each call shows; the others
            round weights alone.
        rows: inputs of the graph, for "int8".
        keep: layers that stay in float32, see ``layers.select``.
        graph: its name, for messages.

    Returns:
        The layers with a stored weight that stayed in float32.

    Raises:
        CalibrationError: no rows to calibrate with.
        PrecisionError: nothing to quantise, or an invalid result.
        ExportError: a layer to keep that is not there.
    """
    graph = graph or source.stem
    model = onnx_ir.load(source)
    InlinePass()(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    if precision != "int8":
        _split_gemms(model)
    kept = select(model.graph, keep, graph)
    weighted = [node for node in model.graph if _is_weighted(node)]
    chosen = [node for node in quantisable(model.graph, precision) if node not in kept]
    if not chosen:
        raise PrecisionError(
            f"Graph '{graph}' has no matrix product that could be in {precision}: {len(weighted)} have a stored weight, and "
            f"{len(kept.intersection(weighted))} of them are kept. Leave the graph in fp32, or keep fewer layers."
        )
    _separate_weights(model, chosen)
    names = [node.name for node in chosen if node.name is not None]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared, made = Path(folder) / "prepared.onnx", Path(folder) / "made.onnx"
        onnx_ir.save(model, prepared, external_data="prepared.data")
        if precision == "int8":
            _quantise_static(prepared, made, rows, names, graph)
        elif precision == "int8-dynamic":
            _quantise_dynamic(prepared, made, names)
        else:
            others = [node.name for node in weighted if node not in chosen]
            _quantise_weights(prepared, made, others, bits=8 if precision == "int8-weights" else 4)
        result = onnx_ir.external_data.load_to_model(onnx_ir.load(made))
        if not any(node.op_type == "Conv" for node in chosen):  # there ranges of rounded tensors stand for activations
            _spare_other_readers(result, set(names))
        _keep_names(model, result)
        RemoveUnusedNodesPass()(result)
        save_model(result, target, beside=source.with_name(f"{source.name}.data").exists())
    check_file(target, graph)
    return frozenset(layer_of(node) for node in weighted if node not in chosen)


def can_be_quantised(path: Path, precision: Quantisation, keep: Collection[str] = ()) -> bool:
    """Whether a graph has a product that this precision is for, beside those of the layers that are kept."""
    products = quantisable(onnx_ir.load(path).graph, precision)
    return any(not any(is_of(node, layer) for layer in keep) for node in products)


def quantisable(nodes: Iterable[onnx_ir.Node], precision: Quantisation) -> list[onnx_ir.Node]:
    """The products that a precision is for: of a stored weight, with more than a handful of outputs."""
    found = [node for node in nodes if _is_weighted(node) and not _is_narrow(node)]
    # Integer convolutions without known ranges are slower than those in float32.
    return found if precision == "int8" else [node for node in found if node.op_type != "Conv"]


def _is_weighted(node: onnx_ir.Node) -> bool:
    if node.domain or node.op_type not in _WEIGHTED or len(node.inputs) < 2:
        return False
    weight = node.inputs[1]
    return weight is not None and weight.is_initializer()


def _is_narrow(node: onnx_ir.Node) -> bool:
    weight = node.inputs[1]
    assert weight is not None
    assert weight.shape is not None
    by_rows = node.op_type == "Conv" or (node.op_type == "Gemm" and _flag(node, "transB"))
    return weight.shape.numpy()[0 if by_rows else -1] < NARROW


def _flag(node: onnx_ir.Node, name: str) -> bool:
    attribute = node.attributes.get(name)
    return attribute is not None and bool(attribute.value)


def _split_gemms(model: onnx_ir.Model) -> None:
    """A product with a bias as a product and a sum, which is what onnxruntime knows without ranges of activations."""
    for node in list(model.graph):
        factors = [node.attributes[name].value for name in ("alpha", "beta") if name in node.attributes]
        if (
            node.op_type != "Gemm"
            or not _is_weighted(node)
            or _flag(node, "transA")
            or any(one != 1 for one in factors)
        ):
            continue
        weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
        assert weight is not None
        assert weight.const_value is not None
        if _flag(node, "transB"):
            array = np.ascontiguousarray(weight.const_value.numpy().T)
            weight = onnx_ir.val(f"{weight.name}.{node.name}.transposed", const_value=onnx_ir.tensor(array))
            model.graph.register_initializer(weight)
        product = onnx_ir.node("MatMul", [node.inputs[0], weight], name=node.name)
        product.metadata_props.update(node.metadata_props)
        last, result = product, node.outputs[0]
        if bias is not None:
            product.outputs[0].name = f"{result.name}.product"
            last = onnx_ir.node("Add", [product.outputs[0], bias], name=f"{node.name}.bias")
            last.metadata_props.update(node.metadata_props)
        onnx_ir.convenience.replace_nodes_and_values(
            model.graph, node, [node], [product] if last is product else [product, last], [result], [last.outputs[0]]
        )


def _separate_weights(model: onnx_ir.Model, chosen: list[onnx_ir.Node]) -> None:
    """Give products a weight of their own where something else reads it too, such as the table of word embeddings."""
    for node in chosen:
        weight = node.inputs[1]
        assert weight is not None
        if all(use.node in chosen for use in weight.uses()):
            continue
        assert weight.const_value is not None
        own = onnx_ir.val(f"{weight.name}.{node.name}", const_value=onnx_ir.tensor(weight.const_value.numpy()))
        model.graph.register_initializer(own)
        node.replace_input_with(1, own)


def _quantise_static(
    source: Path,
    target: Path,
    rows: Iterable[Mapping[str, np.ndarray]],
    names: list[str],
    graph: str,
) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    reader = _Rows(rows)
    if reader.empty:
        raise CalibrationError(
            f"There are no calibration rows of graph '{graph}'; expected real inputs, from which int8 takes the ranges of "
            "activations. Write them with `hero-export calibrate`, or choose int8-dynamic."
        )
    model = onnx.load(str(source), load_external_data=False)
    convolutional = any(node.op_type == "Conv" and node.name in names for node in model.graph.node)
    kinds = set(_CONVOLUTIONAL) if convolutional else {"MatMul", "Gemm"}
    left = [node.name for node in model.graph.node if node.op_type in _WEIGHTED and node.name not in names]
    quantize_static(
        str(source),
        str(target),
        reader,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=sorted(kinds),
        nodes_to_exclude=left,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        # Measured on a trained model: entropy chose the same ranges, and percentiles cut off what single clips live on.
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={
            "MatMulConstBOnly": True,
            # A product whose result is rounded too is no faster and errs more; a network of convolutions is rounded throughout.
            "OpTypesToExcludeOutputQuantization": [] if convolutional else ["MatMul", "Gemm"],
        },
    )


def _quantise_dynamic(source: Path, target: Path, names: list[str]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(source),
        str(target),
        op_types_to_quantize=["MatMul"],
        nodes_to_quantize=names,
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )


def _quantise_weights(source: Path, target: Path, left: list[str | None], bits: int) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    # The fourth level of accuracy multiplies in eight bits where the processor can.
    quantizer = MatMulNBitsQuantizer(
        onnx.load(str(source)), bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=4, nodes_to_exclude=left
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(target), use_external_data_format=True)


def _spare_other_readers(model: onnx_ir.Model, names: set[str]) -> None:
    """Let whatever is no quantised operator read tensors as they were before they were rounded for the products."""
    for rounded in [node for node in model.graph if node.op_type == "DequantizeLinear"]:
        source = rounded.inputs[0]
        maker = None if source is None else source.producer()
        if maker is None or maker.op_type != "QuantizeLinear":
            continue
        exact, value = maker.inputs[0], rounded.outputs[0]
        assert exact is not None
        for number, output in enumerate(model.graph.outputs):
            if output is value:
                exact.shape, exact.type = value.shape, value.type
                value.name, exact.name = f"{value.name}.rounded", value.name
                model.graph.outputs[number] = exact
        for use in list(value.uses()):
            reader = use.node
            quantised = reader.name in names or any(
                use.node.op_type == "QuantizeLinear" for value in reader.outputs for use in value.uses()
            )
            if not quantised:
                reader.replace_input_with(use.idx, exact)


def _keep_names(source: onnx_ir.Model, made: onnx_ir.Model) -> None:
    """Give the products that onnxruntime replaced the names and modules of those that they stand for."""
    modules = {node.name: node.metadata_props.get(MODULE_PATH) for node in source.graph}
    for node in made.graph:
        name = node.name or ""
        for ending in ("_quant", "_Q8", "_Q4"):
            name = name.removesuffix(ending)
        if name in modules:
            node.name = name
            if (module := modules[name]) is not None:
                node.metadata_props[MODULE_PATH] = module


class _Rows:
    """Rows as onnxruntime's calibration asks for them."""

    def __init__(self, rows: Iterable[Mapping[str, np.ndarray]]) -> None:
        self._rows: Iterator[Mapping[str, np.ndarray]] = iter(rows)
        self._first = next(self._rows, None)

    @property
    def empty(self) -> bool:
        return self._first is None

    def get_next(self) -> dict[str, Any] | None:
        row, self._first = self._first, None
        row = row if row is not None else next(self._rows, None)
        return None if row is None else dict(row)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what onnxruntime's quantiser logs and prints, which no user can act on."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
