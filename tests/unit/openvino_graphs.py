"""Small ONNX graphs with real fused operators and module names, and a bundle of arithmetic with variants for OpenVINO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model

from hero_export.onnx.export import MODULE_PATH
from hero_export.precision.calibration import write_calibration
from hero_export.verification.bundle_cases import BundleCases
from hero_sdk.manifest import read_bundle

WIDTH, PLACES, HEADS = 32, 8, 2


def write_block(path: Path, seed: int = 0) -> Path:
    """One attention block as ``hero-export onnx`` would write it: projections, attention, a norm, a wide product, a GELU."""
    rng = np.random.default_rng(seed)
    weights: list[TensorProto] = []
    nodes = []

    def stored(name: str, array: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(array, name))
        return name

    def add(operator: str, inputs: list[str], output: str, module: str = "", **attributes: object) -> str:
        node = helper.make_node(operator, inputs, [output], name=f"node_{output}", **attributes)
        if module:
            node.metadata_props.add(key=MODULE_PATH, value=str(["", module, "call"]))
        nodes.append(node)
        return output

    def weight(name: str, rows: int = WIDTH, columns: int = WIDTH) -> str:
        return stored(f"{name}.weight", rng.standard_normal((rows, columns), dtype=np.float32) / np.float32(rows**0.5))

    shape = stored("heads", np.array([0, PLACES, HEADS, WIDTH // HEADS]))
    parts = []
    for name in ("query", "key", "value"):
        product = add("MatMul", ["x", weight(name)], f"{name}_product", f"layers.0.attention.{name}")
        parts.append(
            add("Transpose", [add("Reshape", [product, shape], f"{name}_cut")], f"{name}_heads", perm=[0, 2, 1, 3])
        )
    attended = add("Attention", parts, "attended", "layers.0.attention")
    moved = add("Transpose", [attended], "moved", perm=[0, 2, 1, 3])
    joined = add("Reshape", [moved, stored("joined_shape", np.array([0, PLACES, WIDTH]))], "joined")
    gain, shift = stored("gain", np.ones(WIDTH, np.float32)), stored("shift", np.zeros(WIDTH, np.float32))
    norm = add("LayerNormalization", [add("Add", [joined, "x"], "sum"), gain, shift], "norm", axis=-1)
    inner = add("Gelu", [add("MatMul", [norm, weight("inner", WIDTH, 64)], "wide", "layers.0.intermediate")], "gelu")
    add("MatMul", [inner, weight("outer", 64, WIDTH)], "y", "layers.0.output")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", PLACES, WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "block", values[:1], values[1:], weights)
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11), path)
    return path


def block_rows(count: int, seed: int = 1) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((1, PLACES, WIDTH), dtype=np.float32)} for _ in range(count)]


def write_rows(bundle: Path, out: Path) -> Path:
    """A calibration set of a bundle, made of the cases of its graphs."""
    manifest = read_bundle(bundle)
    cases = BundleCases(bundle, manifest)
    rows = {}
    for name in manifest.graphs:
        of_graph = cases.cases_of(name)
        rows[name] = {key: np.concatenate([case.inputs[key] for case in of_graph]) for key in of_graph[0].inputs}
    write_calibration(out, rows, manifest, data=bundle / "tokenizer.json", videos=1, seed=0, script="")
    return out
