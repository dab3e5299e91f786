"""What is read back from TensorRT: the types of the matrix products in a network, and the layers of an engine on a GPU.

A network is strongly typed: a product is computed in the types of its operands, or, where both come out of a dequantisation, in
the type that they were quantised to. So the network says before it is built what the plan computes.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from hero_export.errors import PrecisionError
from hero_export.precision.readback import Product, Readback
from hero_export.tensorrt.module import TensorRT
from hero_sdk.engines.tensorrt import make_log

_PRECISIONS = {
    "FLOAT": "fp32",
    "HALF": "fp16",
    "BF16": "bf16",
    "INT8": "int8",
    "FP8": "fp8",
    "INT4": "int4",
    "FP4": "fp4",
}
"""The names of precisions by TensorRT's."""

_PASSING = frozenset({"SHUFFLE", "IDENTITY", "SQUEEZE", "UNSQUEEZE"})
"""Layers between a weight, or a dequantisation, and a product that change no value."""


def read_network(tensorrt: TensorRT, network: Any, modules: Mapping[str, str]) -> Readback:
    """The matrix products of a parsed network, in its order.

    Args:
        tensorrt: that parsed it.
        network: is left as it is.
        modules: of the model that each node of the ONNX graph came from, for messages.
    """
    return Readback(tuple(_Reader(tensorrt, network, modules).products()))


class _Reader:
    """Reads one network."""

    def __init__(self, tensorrt: TensorRT, network: Any, modules: Mapping[str, str]) -> None:
        self._api = tensorrt.api
        self._modules = modules
        self._layers = [network.get_layer(number) for number in range(network.num_layers)]
        self._makers = {tensor.name: layer for layer in self._layers for tensor in _outputs(layer)}

    def products(self) -> list[Product]:
        return [product for layer in self._layers if (product := self._product(layer)) is not None]

    def _product(self, layer: Any) -> Product | None:
        kind = layer.type.name
        if kind not in ("MATRIX_MULTIPLY", "CONVOLUTION", "DECONVOLUTION", "ATTENTION_INPUT"):
            return None
        node = node_of(layer)
        first = layer.get_input(0)
        stored = [self._source(tensor) for tensor in _inputs(layer)[:2]]
        eight = {_named(source.get_input(0)) for source in stored if source is not None and _is(source, "DEQUANTIZE")}
        quantised = len(stored) == 2 and all(source is not None and _is(source, "DEQUANTIZE") for source in stored)
        return Product(
            layer=self._modules.get(node) or node,
            operator={"MATRIX_MULTIPLY": "MatMul", "ATTENTION_INPUT": "Attention"}.get(kind, "Conv"),
            precision=eight.pop() if quantised and len(eight) == 1 else _named(first),
            multiply_adds=self._size(layer),
            count=2 if kind == "ATTENTION_INPUT" else 1,
            weighted="CONVOLUTION" in kind or any(source is not None and self._is_stored(source) for source in stored),
        )

    def _source(self, tensor: Any) -> Any:
        """The layer that a tensor comes from, whatever changes no value of it left out; None for an input of the network."""
        layer = self._makers.get(tensor.name)
        while layer is not None and layer.type.name in _PASSING:
            layer = self._makers.get(layer.get_input(0).name)
        return layer

    def _is_stored(self, layer: Any) -> bool:
        while _is(layer, "QUANTIZE") or _is(layer, "DEQUANTIZE"):
            source = self._source(layer.get_input(0))
            if source is None:
                return False
            layer = source
        return _is(layer, "CONSTANT")

    def _size(self, layer: Any) -> int | None:
        """Multiply-adds for a batch of one."""
        left = _shape(layer.get_input(0))
        if _is(layer, "ATTENTION_INPUT"):
            return 2 * math.prod(left) * _shape(layer.get_input(1))[2]
        result = _shape(layer.get_output(0))
        if not _is(layer, "MATRIX_MULTIPLY"):
            layer.__class__ = getattr(
                self._api, "IConvolutionLayer" if _is(layer, "CONVOLUTION") else "IDeconvolutionLayer"
            )
            return math.prod(result) * math.prod(layer.kernel_size_nd) * left[1] // layer.num_groups
        layer.__class__ = self._api.IMatrixMultiplyLayer
        return math.prod(result) * (left[-2] if layer.op0.name == "TRANSPOSE" else left[-1])


def node_of(layer: Any) -> str:
    """The node of the ONNX graph that a layer came from."""
    prefix, text = "[ONNX Layer: ", str(layer.metadata)
    if text.startswith(prefix):
        return text[len(prefix) :].split("]")[0]
    return str(layer.name).removesuffix("_AttentionInput").removesuffix("_AttentionOutput")


def _is(layer: Any, kind: str) -> bool:
    return str(layer.type.name) == kind


def _inputs(layer: Any) -> list[Any]:
    return [tensor for number in range(layer.num_inputs) if (tensor := layer.get_input(number)) is not None]


def _outputs(layer: Any) -> list[Any]:
    return [tensor for number in range(layer.num_outputs) if (tensor := layer.get_output(number)) is not None]


def _named(tensor: Any) -> str:
    name = str(tensor.dtype.name)
    return _PRECISIONS.get(name, name.lower())


def _shape(tensor: Any) -> list[int]:
    """Sizes of a tensor, 1 for the batch, which alone may vary."""
    return [1 if size < 0 else int(size) for size in tensor.shape]


def read_engine(tensorrt: TensorRT, plan: bytes) -> dict[str, int]:
    """How many outputs of an engine's layers have each type, as the engine inspector tells, on a GPU that can load the plan.

    Raises:
        PrecisionError: the plan cannot be loaded.
    """
    log = make_log(tensorrt.api)
    runtime = tensorrt.api.Runtime(log)
    runtime.engine_host_code_allowed = True  # of a plan that was built here
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        said = "; ".join(text for _, text in log.lines[-3:])
        raise PrecisionError(f"{tensorrt.builder} cannot load the plan that it built here ({said}). Build it again.")
    text = engine.create_engine_inspector().get_engine_information(tensorrt.api.LayerInformationFormat.JSON)
    return engine_types(text)


def engine_types(text: str) -> dict[str, int]:
    """The same from what the inspector says.

    Release 10 joins format and type of a tensor in one entry, such as "Row major linear FP16 format"; 11 has one for each.
    """
    counts: Counter[str] = Counter()
    for layer in json.loads(text).get("Layers", ()):
        for output in layer.get("Outputs", ()) if isinstance(layer, dict) else ():
            entries = {key.lower(): str(value) for key, value in output.items()}
            counts[entries.get("datatype") or entries.get("format/datatype") or "unknown"] += 1
    return dict(counts.most_common())
