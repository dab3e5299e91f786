"""From an ONNX graph to a plan: parsed, its products read back, built for one kind of GPU; or an error that names the nodes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from hero_export.errors import BuildError
from hero_export.onnx.fusion import module_of, read_model
from hero_export.precision.readback import Readback, require_precision
from hero_export.tensorrt.module import PlanOptions, TensorRT
from hero_export.tensorrt.readback import node_of, read_network
from hero_sdk.engines.tensorrt import make_log

NO_KERNEL = "not supported by a dedicated kernel"
"""What the builder says of an attention that it has no fused kernel for. It does not say of which."""

_ONNX_TYPES = {
    "FLOAT": onnx.TensorProto.FLOAT,
    "HALF": onnx.TensorProto.FLOAT16,
    "BF16": onnx.TensorProto.BFLOAT16,
    "BOOL": onnx.TensorProto.BOOL,
}


@dataclass(frozen=True)
class Plan:
    """A plan, and what is known of it.

    Attributes:
        data: its bytes.
        products: how many matrix products per precision, as read back from the network.
        precision: of most of them.
        unfused: attentions of a single query, which the builder may compute in several kernels.
        warnings: what the builder said.
        seconds: that the building took; 0 for one from a cache.
    """

    data: bytes
    products: dict[str, int]
    precision: str
    unfused: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class _Parsed:
    """A graph as the builder reads it; all of it must live as long as the network."""

    builder: Any
    network: Any
    parser: Any
    log: Any


def build_plan(
    tensorrt: TensorRT,
    path: Path,
    graph: str,
    precision: str,
    options: PlanOptions,
    *,
    timing_cache: Path | None = None,
    excused: Collection[str] = (),
) -> Plan:
    """Build a plan.

    Args:
        tensorrt: that builds it.
        path: of the ONNX file; its weights may lie beside it.
        graph: its name, for messages.
        precision: that its matrix products must have.
        options: what to build for; ``TensorRT.check`` has passed them.
        timing_cache: a file that keeps what was timed from one build to the next; it is made if need be.
        excused: layers that are in a higher precision on purpose.

    Raises:
        BuildError: the builder refuses the graph; names the nodes and the reason.
        PrecisionError: the graph is not in the precision that was asked for.
    """
    began = time.perf_counter()
    modules = {node.name: module_of(node) for node in read_model(path).graph.node}
    parsed = _parse(tensorrt, path, graph, modules)
    found = read_network(tensorrt, parsed.network, modules)
    # Attentions multiply what was computed, which stays in half precision beside eight bits.
    judged = tuple(product for product in found.products if precision not in ("int8", "fp8") or product.weighted)
    if judged:
        require_precision(Readback(judged), precision, graph, excused=excused)
    unfused = tuple(modules.get(node) or node for node in _allow_single_queries(tensorrt, parsed.network))
    config = tensorrt.create_config(parsed.builder, options)
    config.add_optimization_profile(_profile(parsed, options))
    timed = None if timing_cache is None else _use_times(config, timing_cache, parsed.log)
    data = parsed.builder.build_serialized_network(parsed.network, config)
    if data is None:
        raise _refusal(tensorrt, parsed, graph, precision, options, modules)
    if timing_cache is not None and timed is not None:
        _replace(timing_cache, bytes(timed.serialize()))
    return Plan(
        data=bytes(data),
        products=found.counts(),
        precision=found.precision if found.products else precision,
        unfused=unfused,
        warnings=tuple(text for _, text in parsed.log.lines),
        seconds=time.perf_counter() - began,
    )


def _parse(tensorrt: TensorRT, path: Path, graph: str, modules: dict[str, str]) -> _Parsed:
    log = make_log(tensorrt.api)
    builder = tensorrt.api.Builder(log)
    network = tensorrt.create_network(builder)
    parser = tensorrt.api.OnnxParser(network, log)
    # By path, so that it finds the weights beside the file.
    if not parser.parse_from_file(str(path)):
        problems = []
        for number in range(parser.num_errors):
            error = parser.get_error(number)
            problems.append(
                f"{error.node_operator() or 'the graph'} {_place(error.node_name(), modules)}: {' '.join(error.desc().split())}"
            )
        raise BuildError(
            f"{tensorrt.builder} cannot read graph '{graph}': {'; '.join(problems) or 'it does not say why'}. Expected operators "
            "and types of its support matrix. Change that part of the model, or run the graph in another engine."
        )
    return _Parsed(builder, network, parser, log)


def _place(node: str, modules: dict[str, str]) -> str:
    module = modules.get(node, "")
    return f"'{node}' of {module}" if module else f"'{node}'"


def _profile(parsed: _Parsed, options: PlanOptions) -> Any:
    """The batches that the plan takes: from 1 to the largest, fastest with one of them."""
    profile = parsed.builder.create_optimization_profile()
    for number in range(parsed.network.num_inputs):
        tensor = parsed.network.get_input(number)
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, *((batch, *rest) for batch in (1, options.opt_batch, options.max_batch)))
    return profile


def _allow_single_queries(tensorrt: TensorRT, network: Any) -> list[str]:
    """Let the builder compute attentions of one query in several kernels, for it has no fused one for them.

    A caption decoder's step has such; each is two products of a vector and a matrix, which no fused kernel would make faster. All
    other attentions stay as they are, so that a plan proves that they are fused.

    Returns:
        Their nodes.
    """
    found = []
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        if layer.type.name == "ATTENTION_INPUT" and layer.get_input(0).shape[2] == 1:
            layer.__class__ = tensorrt.api.IAttentionInputLayer
            layer.attention.decomposable = True
            found.append(node_of(layer))
    return found


def _refusal(
    tensorrt: TensorRT, parsed: _Parsed, graph: str, precision: str, options: PlanOptions, modules: dict[str, str]
) -> BuildError:
    """Why the builder refused, and because of which nodes."""
    said = "; ".join(text for severity, text in parsed.log.lines if "ERROR" in severity) or "it does not say why"
    layers = [parsed.network.get_layer(number) for number in range(parsed.network.num_layers)]
    if NO_KERNEL in said:
        places = [
            f"Attention {_place(node_of(layer), modules)} ({_signature(layer)})"
            for layer in _without_kernel(tensorrt, layers, options)
        ]
        advice = (
            "Attention has fused kernels in fp16 and bf16: ask for one of these"
            if precision not in ("fp16", "bf16")
            else "Choose another --target, or export the model with other shapes"
        )
    else:
        nodes = {node_of(layer) for layer in layers if layer.metadata}
        places = [f"node {_place(node, modules)}" for node in sorted(nodes) if node and node in said]
        advice = "Choose another --target or --precision, or run the graph in another engine"
    shown = ", ".join(places[:4]) + (f" and {len(places) - 4} more" if len(places) > 4 else "")
    return BuildError(
        f"{tensorrt.builder} cannot build graph '{graph}' for {options.target}"
        f"{f' because of {shown}' if shown else ''}: {said}. Expected a kernel for every node. {advice}."
    )


def _signature(layer: Any) -> str:
    """What decides whether there is a kernel for an attention: types and shapes of its inputs."""
    tensors = (layer.get_input(number) for number in range(layer.num_inputs))
    return ", ".join(f"{tensor.dtype.name} {tuple(tensor.shape)}" for tensor in tensors if tensor is not None)


def _without_kernel(tensorrt: TensorRT, layers: list[Any], options: PlanOptions) -> list[Any]:
    """The attentions that are refused when each is built alone; those that are alike are built once."""
    attentions = [
        layer for layer in layers if layer.type.name == "ATTENTION_INPUT" and layer.get_input(0).shape[2] != 1
    ]
    alike = {_signature(layer): layer for layer in attentions}
    refused = {signature for signature, layer in alike.items() if not _builds_alone(tensorrt, layer, options)}
    return [layer for layer in attentions if _signature(layer) in refused]


def _builds_alone(tensorrt: TensorRT, layer: Any, options: PlanOptions) -> bool:
    """Whether a graph of nothing but this attention can be built."""
    values = []
    for number in range(layer.num_inputs):
        tensor = layer.get_input(number)
        shape = ["batch", *tuple(tensor.shape)[1:]]
        values.append(onnx.helper.make_tensor_value_info(f"input_{number}", _ONNX_TYPES[tensor.dtype.name], shape))
    node = onnx.helper.make_node("Attention", [value.name for value in values], ["output"], "attention", scale=1.0)
    query, value = layer.get_input(0), layer.get_input(2)
    shape = ["batch", *tuple(query.shape)[1:3], value.shape[3]]
    output = onnx.helper.make_tensor_value_info("output", _ONNX_TYPES[query.dtype.name], shape)
    alone = onnx.helper.make_model(
        onnx.helper.make_graph([node], "attention", values, [output]),
        opset_imports=[onnx.helper.make_opsetid("", 23)],
        ir_version=11,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "attention.onnx"
        onnx.save(alone, path)
        parsed = _parse(tensorrt, path, "attention", {})
        config = tensorrt.create_config(parsed.builder, options)
        config.add_optimization_profile(_profile(parsed, options))
        return parsed.builder.build_serialized_network(parsed.network, config) is not None


def _use_times(config: Any, path: Path, log: Any) -> Any:
    """Let the builder read and add to the times of kernels in a file."""
    heard = len(log.lines)
    timed = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    # What it cannot read it takes for empty, with a warning, and the file would be lost.
    if timed is None or log.lines[heard:] or not config.set_timing_cache(timed, ignore_mismatch=False):
        raise BuildError(
            f"{path} is not a timing cache of this GPU and this release; expected a new file, or one that a build here has made. "
            "Name another --timing-cache, or remove it."
        )
    return timed


def _replace(path: Path, data: bytes) -> None:
    """Write a file in one step, for another build may read it at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(data)
    Path(file.name).replace(path)
