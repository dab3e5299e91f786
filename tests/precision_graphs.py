"""Graphs for the tests of precision: real ones, exported once per process, and some that are written by hand."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hero_export.onnx.export import export_graph, rewrite_graph
from hero_export.onnx.graphs import Graph, graphs_of
from hero_export.onnx.onnxruntime_form import fuse_for_onnxruntime
from hero_export.precision.layers import PRODUCTS
from hero_export.verification.cases import CaseMaker
from hero_sdk.manifest import GraphSpec, TensorSpec
from tests.tiny_checkpoint import ANSWERS, CAPTION_TOKENS, MAX_BATCH, TEXT_GEOMETRY, make_task_model, task_config
from tests.torch_engine import spec_of

FLOATS = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}


@functools.cache
def graph_of(task: str, name: str) -> Graph:
    model = make_task_model(task)
    return graphs_of(model, TEXT_GEOMETRY, answers=ANSWERS, caption_tokens=CAPTION_TOKENS)[name]


@functools.cache
def _exported(task: str, name: str, form: str) -> bytes:
    graph = graph_of(task, name)
    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder) / "graph.onnx", Path(folder) / "other.onnx"
        if form == "standard":
            export_graph(graph, path)
            return path.read_bytes()
        path.write_bytes(_exported(task, name, "standard"))
        rewrite_graph(graph, path, other, fuse_for_onnxruntime)
        return other.read_bytes()


def write_exported(path: Path, task: str, name: str, form: str = "standard") -> GraphSpec:
    """Write an exported graph of a tiny model."""
    path.write_bytes(_exported(task, name, form))
    return spec_of(graph_of(task, name))


@functools.cache
def rows_of(task: str, name: str) -> list[dict[str, np.ndarray]]:
    """Inputs of the graph, row by row, packed by the SDK."""
    case = CaseMaker(task_config(task), TEXT_GEOMETRY, MAX_BATCH).cases_of(graph_of(task, name))[0]
    count = len(next(iter(case.inputs.values())))
    return [{key: array[number : number + 1] for key, array in case.inputs.items()} for number in range(count)]


def value_types(path: Path) -> dict[str, int]:
    """The element type of each value of a graph with operators of the ONNX standard, as ONNX infers it."""
    model = onnx.shape_inference.infer_shapes(onnx.load(str(path)), check_type=True, strict_mode=True)
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {weight.name: weight.data_type for weight in model.graph.initializer}


def products_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if (node.domain, node.op_type) in PRODUCTS]


def write_chain(path: Path, weights: Sequence[np.ndarray], activation: str = "Tanh") -> GraphSpec:
    """Write a chain of products, ``layers.0`` and so on, with an activation after each but the last.

    Args:
        path: of the file.
        weights: (in, out) each.
        activation: an operator without parameters.
    """
    nodes, stored, value = [], [], "x"
    for number, weight in enumerate(weights):
        last = number == len(weights) - 1
        name, product = f"layers.{number}", "y" if last else f"product_{number}"
        stored.append(numpy_helper.from_array(weight.astype(np.float32), f"{name}.weight"))
        nodes.append(helper.make_node("MatMul", [value, f"{name}.weight"], [product], name=name))
        if not last:
            value = f"active_{number}"
            nodes.append(helper.make_node(activation, [product], [value], name=f"{name}.{activation}"))
    sizes = (weights[0].shape[0], weights[-1].shape[1])
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in zip("xy", sizes, strict=True)
    ]
    graph = helper.make_graph(nodes, "chain", ports[:1], ports[1:], stored)
    save(path, graph)
    specs = [TensorSpec(name, "float32", (-1, size)) for name, size in zip("xy", sizes, strict=True)]
    return GraphSpec(path.name, "fp32", 8, (specs[0],), (specs[1],))


def save(path: Path, graph: onnx.GraphProto) -> None:
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11), str(path))


def write_pictures(path: Path) -> GraphSpec:
    """Write a network of convolutions on uint8 pictures of 8 pixels."""
    rng = np.random.default_rng(0)
    weights = {
        "first": rng.standard_normal((16, 3, 3, 3), dtype=np.float32) / 5,
        "second": rng.standard_normal((16, 16, 3, 3), dtype=np.float32) / 12,
        "mean": np.float32(127.0),
        "scale": np.float32(64.0),
        "low": np.float32(0.0),
        "high": np.float32(6.0),
    }
    nodes = [
        helper.make_node("Transpose", ["images"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["turned"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["floats", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["pixels"]),
        helper.make_node("Conv", ["pixels", "first"], ["a"], name="body.first", pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["a", "low", "high"], ["b"], name="body.clip"),
        helper.make_node("Conv", ["b", "second"], ["c"], name="body.second", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["b", "c"], ["d"], name="body.add"),
        helper.make_node("ReduceMean", ["d", "axes"], ["features"], keepdims=0),
    ]
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    stored.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    graph = helper.make_graph(
        nodes,
        "pictures",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 8, 8, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 16])],
        stored,
    )
    save(path, graph)
    return GraphSpec(
        path.name,
        "fp32",
        8,
        (TensorSpec("images", "uint8", (-1, 8, 8, 3)),),
        (TensorSpec("features", "float32", (-1, 16)),),
    )
