"""Half precision: what is cast, what is not, that it computes the same to rounding, and what is refused."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from hero_export.errors import ExportError, PrecisionError
from hero_export.onnx.fusion import model_nodes, operator_counts, read_model
from hero_export.onnx.operators import Operators, fused_counts
from hero_export.precision.cast import HalfPrecision, cast_file, cast_graph
from hero_export.precision.readback import read_precision
from hero_export.precision.running import output_errors, run_graph
from hero_sdk.manifest import CAPTIONING, QUESTION_ANSWERING, RETRIEVAL
from tests.precision_graphs import (
    FLOATS,
    products_of,
    rows_of,
    save,
    value_types,
    write_chain,
    write_exported,
    write_pictures,
)

GRAPHS = [(RETRIEVAL, "query"), (QUESTION_ANSWERING, "temporal"), (CAPTIONING, "caption_step")]
"""A pooling with its mask; two tables and a choice between them; a cache and a table that is a weight as well."""

LARGEST = {"fp16": 3e-3, "bf16": 3e-2}
"""Errors of outputs as a share of the largest value: rounding is 2 ** -11 and 2 ** -8 and adds up over a few layers."""


@pytest.fixture(params=["fp16", "bf16"])
def precision(request: pytest.FixtureRequest) -> HalfPrecision:
    return request.param


@pytest.mark.parametrize(("task", "name"), GRAPHS)
@pytest.mark.parametrize("form", ["standard", "onnxruntime"])
def test_a_graph_in_half_precision(
    task: str, name: str, form: Operators, precision: HalfPrecision, tmp_path: Path
) -> None:
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    spec = write_exported(source, task, name, form)
    cast_file(source, target, precision)
    before, after = read_model(source).graph, read_model(target).graph
    assert list(after.input) == list(before.input)
    assert [(one.name, one.type) for one in after.output] == [(one.name, one.type) for one in before.output]
    counts = [fused_counts(operator_counts(model_nodes(read_model(path)))) for path in (source, target)]
    assert counts[0] == counts[1] != {}
    assert read_precision(target).shares() == {precision: 1.0}
    rows = rows_of(task, name)
    errors = output_errors(run_graph(source, spec, rows), run_graph(target, spec, rows), rows)
    assert 0 < max(error.largest for error in errors) < LARGEST[precision]
    floats = [weight for weight in after.initializer if weight.data_type == TensorProto.FLOAT]
    assert (
        sum(np.prod(weight.dims) for weight in floats) <= 2 * 64
    )  # the norm of frame features, and constants of masks
    assert target.stat().st_size < 0.7 * source.stat().st_size


@pytest.mark.parametrize(("task", "name"), GRAPHS)
def test_no_operator_mixes_types(task: str, name: str, precision: HalfPrecision, tmp_path: Path) -> None:
    """TensorRT's networks are strongly typed; ONNX's own inference says which types there are."""
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    write_exported(source, task, name)
    cast_file(source, target, precision)
    types = value_types(target)
    for node in onnx.load(str(target)).graph.node:
        if node.op_type != "Cast":
            found = {FLOATS[types[value]] for value in (*node.input, *node.output) if types.get(value) in FLOATS}
            assert len(found) <= 1, (node.op_type, node.name, found)


def test_masks_softmaxes_and_sums_are_in_float32(precision: HalfPrecision, tmp_path: Path) -> None:
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    write_exported(source, RETRIEVAL, "query")
    cast_file(source, target, precision)
    types = value_types(target)
    full = {"Softmax", "ReduceSum", "Where", "Mul"}
    seen = [node for node in onnx.load(str(target)).graph.node if node.op_type in full]
    assert {node.op_type for node in seen} == full
    assert {types[node.output[0]] for node in seen} == {TensorProto.FLOAT}


def test_a_layer_that_is_kept_is_in_float32_and_nothing_else(precision: HalfPrecision, tmp_path: Path) -> None:
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    write_exported(source, RETRIEVAL, "query")
    cast_file(source, target, precision, keep=["layers.0.attention.key", "query.projection"])
    found = {product.layer for product in read_precision(target).products if product.precision == "fp32"}
    assert found == {"model.cross_modal.layers.0.attention.key", "model.query.projection.linear"}
    with pytest.raises(ExportError, match=r"no layer 'layers\.7'.*model\.cross_modal\.layers\.0\.output"):
        cast_file(source, target, precision, keep=["layers.7"])


def test_weights_beyond_the_range_are_refused_and_not_clipped(tmp_path: Path) -> None:
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    weights = [np.eye(16, dtype=np.float32), np.eye(16, dtype=np.float32)]
    weights[1][3, 3] = 70000.0
    write_chain(source, weights)
    with pytest.raises(PrecisionError, match=r"'layers\.1\.weight'.*up to 7e\+04; fp16 holds up to 6\.55e\+04.*--keep"):
        cast_file(source, target, "fp16")
    assert not target.exists()
    cast_file(source, target, "fp16", keep=["layers.1"])
    assert read_precision(target).counts() == {"fp16": 1, "fp32": 1}
    cast_file(source, target, "bf16")
    write_chain(source, [weights[0] * 1e-9, weights[0]])
    with pytest.raises(PrecisionError, match=r"'layers\.0\.weight'.*loses 100% of its norm in fp16"):
        cast_file(source, target, "fp16")


def test_pictures_are_scaled_in_float32_and_convolved_in_half(precision: HalfPrecision, tmp_path: Path) -> None:
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    spec = write_pictures(source)
    cast_file(source, target, precision)
    types = value_types(target)
    named = {
        node.op_type: FLOATS[types[node.output[0]]]
        for node in onnx.load(str(target)).graph.node
        if node.op_type != "Cast" and types[node.output[0]] in FLOATS
    }
    assert named == {
        "Sub": "fp32",
        "Div": "fp32",
        "Conv": precision,
        "Clip": precision,
        "Add": precision,
        "ReduceMean": "fp32",
    }
    rows = [{"images": np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)}]
    (error,) = output_errors(run_graph(source, spec, rows), run_graph(target, spec, rows), rows)
    assert 0 < error.largest < LARGEST[precision]


def test_bfloat16_is_computed_as_its_rounding_says(tmp_path: Path) -> None:
    """Against numpy, with types of its own: one product of rounded operands, its result rounded."""
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    rng = np.random.default_rng(0)
    weight, x = rng.standard_normal((16, 16), dtype=np.float32), rng.standard_normal((4, 16), dtype=np.float32)
    spec = write_chain(source, [weight])
    cast_file(source, target, "bf16")

    def rounded(array: np.ndarray) -> np.ndarray:
        return array.astype(ml_dtypes.bfloat16).astype(np.float32)

    found = run_graph(target, spec, [{"x": x}])[0]["y"]
    np.testing.assert_allclose(found, rounded(rounded(x) @ rounded(weight)), rtol=2**-7)
    assert (found == rounded(found)).all()


def test_control_flow_is_refused() -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2])],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)],
        "flow",
        [
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    with pytest.raises(PrecisionError, match="control flow \\(If 'choice'\\)"):
        cast_graph(onnx_ir.from_proto(model), "fp16", graph="flow")


def test_weights_beside_a_graph_stay_beside_it(tmp_path: Path) -> None:
    source, target = tmp_path / "source.onnx", tmp_path / "other" / "target.onnx"
    write_chain(source, [np.eye(32, dtype=np.float32)] * 2)
    onnx.save(onnx.load(str(source)), str(source), save_as_external_data=True, location="source.onnx.data")
    target.parent.mkdir()
    cast_file(source, target, "fp16")
    assert sorted(path.name for path in target.parent.iterdir()) == ["target.onnx", "target.onnx.data"]
    assert [one.data_type for one in read_model(target).graph.initializer] == [TensorProto.FLOAT16] * 2


def test_a_constant_of_a_mask_comes_out_as_it_is(tmp_path: Path) -> None:
    """bfloat16 has no -10000; it would come out as -9984."""
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"], name="product"),
            helper.make_node("Where", ["seen", "product", "low"], ["y"], name="mask"),
        ],
        "mask",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8]),
            helper.make_tensor_value_info("seen", TensorProto.BOOL, ["batch", 8]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [
            numpy_helper.from_array(np.eye(8, dtype=np.float32), "w"),
            numpy_helper.from_array(np.float32(-1e4), "low"),
        ],
    )
    save(source, graph)
    cast_file(source, target, "bf16")
    spec = write_chain(tmp_path / "spec.onnx", [np.eye(8)])
    rows = [{"x": np.ones((1, 8), np.float32), "seen": np.arange(8)[None] < 4}]
    np.testing.assert_array_equal(run_graph(target, spec, rows)[0]["y"][0], [1] * 4 + [-1e4] * 4)
    assert len(products_of(onnx.load(str(target)))) == 1
