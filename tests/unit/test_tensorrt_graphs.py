"""Graphs as TensorRT gets them compute what they did: casts come first, and eight bits lose little."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from hero_export.bundles.variants import amend
from hero_export.errors import BuildError, CalibrationError, PrecisionError
from hero_export.precision.cast import cast_graph
from hero_export.precision.readback import read_precision
from hero_export.tensorrt.adapt import adapt_graph, is_standard
from hero_export.tensorrt.module import TensorRT
from hero_export.tensorrt.prepare import check_precisions, prepare_graph
from hero_export.tensorrt.quantise import NARROW, quantise_graph, weighted_products, wide_products
from hero_export.tensorrt.ranges import largest_values
from hero_export.tensorrt.readback import engine_types, read_engine
from hero_sdk.manifest import read_bundle
from hero_sdk.variants import Variant, VariantGraph
from tests.tiny_bundle import write_tiny_bundle

RNG = np.random.default_rng(0)


def write_graph(path: Path, nodes: list, inputs: list, outputs: list, weights: dict[str, np.ndarray]) -> Path:
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=11), path)
    return path


def run(path: Path, **inputs: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, inputs)


def write_pixels(path: Path, *middle: onnx.NodeProto, last: str = "moved") -> Path:
    nodes = [
        helper.make_node("Transpose", ["images"], ["channels"], "turn", perm=[0, 3, 1, 2]),
        helper.make_node("Flatten", ["channels"], ["moved"], "flatten"),
        *middle,
        helper.make_node("Cast", [last], ["pixels"], "cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["pixels", "weight"], ["features"], "product"),
    ]
    weights = {"weight": RNG.standard_normal((12, 5), dtype=np.float32)}
    images = ("images", TensorProto.UINT8, ["batch", 2, 2, 3])
    return write_graph(path, nodes, [images], [("features", TensorProto.FLOAT, ["batch", 5])], weights)


def test_pixels_are_cast_before_they_are_moved(tmp_path: Path) -> None:
    path = write_pixels(tmp_path / "frames.onnx")
    model = onnx_ir.load(path)
    adapt_graph(model, "frames")
    assert [node.op_type for node in model.graph] == ["Cast", "Transpose", "Flatten", "MatMul"]
    onnx_ir.save(model, tmp_path / "adapted.onnx")
    onnx.checker.check_model(str(tmp_path / "adapted.onnx"), full_check=True)
    images = RNG.integers(0, 256, (3, 2, 2, 3), dtype=np.uint8)
    np.testing.assert_array_equal(run(tmp_path / "adapted.onnx", images=images)[0], run(path, images=images)[0])
    before = onnx_ir.serde.serialize_model(model).SerializeToString()
    adapt_graph(model, "frames")  # what is cast first already stays as it is
    assert onnx_ir.serde.serialize_model(model).SerializeToString() == before


def test_pixels_that_are_computed_with_are_refused(tmp_path: Path) -> None:
    most = helper.make_node("Max", ["moved", "moved"], ["most"], "most")
    model = onnx_ir.load(write_pixels(tmp_path / "frames.onnx", most, last="most"))
    with pytest.raises(BuildError, match=r"computes Max 'most' on its uint8 input 'images'.*Cast the input before"):
        adapt_graph(model, "frames")


def test_operators_of_another_domain_are_refused_by_name(tmp_path: Path) -> None:
    node = helper.make_node("FastGelu", ["x"], ["y"], "gelu", domain="com.microsoft")
    shape = ["batch", 3]
    values = [(name, TensorProto.FLOAT, shape) for name in "xy"]
    model = onnx_ir.load(write_graph(tmp_path / "made.onnx", [node], values[:1], values[1:], {}))
    assert not is_standard(model)
    with pytest.raises(BuildError, match=r"'com.microsoft::FastGelu'.*FastGelu 'gelu'.*--operators standard"):
        adapt_graph(model, "temporal")


WIDE, LOUD = 16, 40.0


def write_products(path: Path) -> Path:
    """A MatMul and two Gemms, of which one is narrow, after one another; the columns of weights are of different scales."""
    columns = np.geomspace(0.01, 1, WIDE, dtype=np.float32)
    weights = {
        "first": RNG.standard_normal((WIDE, WIDE), dtype=np.float32) * columns,
        "second": RNG.standard_normal((WIDE, WIDE), dtype=np.float32) * columns[:, None],
        "third": RNG.standard_normal((WIDE, NARROW - 1), dtype=np.float32),
        "bias": RNG.standard_normal(WIDE, dtype=np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["one"], "matmul"),
        helper.make_node("Relu", ["one"], ["positive"], "relu"),
        helper.make_node("Gemm", ["positive", "second", "bias"], ["two"], "gemm", transB=1),
        helper.make_node("Add", ["two", "positive"], ["sum"], "residual"),
        helper.make_node("Gemm", ["sum", "third"], ["y"], "narrow"),
    ]
    x, y = ("x", TensorProto.FLOAT, ["batch", WIDE]), ("y", TensorProto.FLOAT, ["batch", NARROW - 1])
    return write_graph(path, nodes, [x], [y], weights)


@pytest.fixture
def products(tmp_path: Path) -> Path:
    return write_products(tmp_path / "products.onnx")


def test_ranges_are_the_largest_values_on_the_rows(products: Path) -> None:
    rows = [{"x": RNG.standard_normal((2, WIDE), dtype=np.float32)} for _ in range(3)]
    first = numpy_helper.to_array(next(one for one in onnx.load(products).graph.initializer if one.name == "first"))
    positive = np.maximum(np.concatenate([row["x"] for row in rows]) @ first, 0)
    found = largest_values(products, ["positive", "x", "positive"], rows)
    assert found == pytest.approx(
        {"positive": positive.max(), "x": max(np.abs(row["x"]).max() for row in rows)}, rel=1e-5
    )
    assert largest_values(products, ["x"], rows)["x"] == found["x"]
    assert largest_values(products, ["x"], []) == {}
    broken = largest_values(products, ["x"], [{"x": np.full((1, WIDE), np.nan, np.float32)}, *rows])
    assert np.isnan(broken["x"])


def quantised(products: Path, kind: str, rows: list[dict[str, np.ndarray]]) -> Path:
    model = onnx_ir.load(products)
    cast_graph(model, "fp16")
    operands = {node.inputs[0].name: node.inputs[0].name.removesuffix(".fp16") for node in wide_products(model)}  # type: ignore[union-attr]
    found = largest_values(products, operands.values(), rows)
    quantise_graph(model, kind, {name: found[origin] for name, origin in operands.items()}, "made")  # type: ignore[arg-type]
    path = products.with_name(f"{kind}.onnx")
    onnx_ir.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)
    return path


@pytest.mark.parametrize(("kind", "error"), [("int8", 0.02), ("fp8", 0.06)])
def test_eight_bits_lose_little_and_are_read_back(products: Path, kind: str, error: float) -> None:
    x = RNG.standard_normal((200, WIDE), dtype=np.float32)
    path = quantised(products, kind, [{"x": x}])
    assert read_precision(path).counts() == {kind: 2, "fp16": 1}
    expected, found = run(products, x=x)[0], run(path, x=x)[0]
    assert found.dtype == np.float32
    relative = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    assert 1e-4 < relative < error
    # Beyond the range of the rows values are cut off, so that it is the ranges that count.
    loud, cut = run(products, x=LOUD * x)[0], run(path, x=LOUD * x)[0]
    assert np.linalg.norm(cut - loud) > 0.5 * np.linalg.norm(loud)


def test_int8_has_a_scale_for_each_column_and_no_zero_points(products: Path) -> None:
    model = onnx.load(quantised(products, "int8", [{"x": RNG.standard_normal((20, WIDE), dtype=np.float32)}]))
    weights = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(nodes) == 6
    stored = [node for node in nodes if node.input[0] in weights]
    assert [weights[node.input[1]].shape for node in stored] == [(WIDE,), (WIDE,)]
    assert [helper.get_node_attr_value(node, "axis") for node in stored] == [1, 0]
    for node in stored:
        assert weights[node.input[0]].dtype == np.int8
        axis = 1 - helper.get_node_attr_value(node, "axis")
        np.testing.assert_array_equal(np.abs(weights[node.input[0]]).max(axis=axis), 127)
    zeros = [weights[node.input[2]] for node in nodes if len(node.input) > 2]
    assert len(zeros) == 4
    assert not np.any(zeros)
    assert "second" not in weights


def test_narrow_products_are_not_quantised(products: Path) -> None:
    model = onnx_ir.load(products)
    assert [node.name for node in weighted_products(model)] == ["matmul", "gemm", "narrow"]
    assert [node.name for node in wide_products(model)] == ["matmul", "gemm"]


@pytest.mark.parametrize("ranges", [{}, {"x.fp16": float("nan")}, {"x.fp16": float("inf")}])
def test_a_product_without_a_range_is_refused(products: Path, ranges: dict[str, float]) -> None:
    model = onnx_ir.load(products)
    cast_graph(model, "fp16")
    with pytest.raises(PrecisionError, match="into matmul of graph 'made' have no range"):
        quantise_graph(model, "int8", ranges, "made")


def test_precisions_are_checked_before_anything_is_done() -> None:
    assert check_precisions(("fp16", "bf16"), None) == ("fp16", "bf16")
    assert check_precisions(("int8",), object()) == ("int8",)
    with pytest.raises(PrecisionError, match="no plans in fp64; expected some of fp16, bf16, fp32, int8, fp8"):
        check_precisions(("fp16", "fp64"), None)
    with pytest.raises(CalibrationError, match=r"Plans in int8, fp8 need .*--calibration"):
        check_precisions(("int8", "fp8"), None)


def test_a_variant_in_half_precision_is_taken_and_its_layers_in_fp32_are_excused(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    cast = prepare_graph(bundle, read_bundle(bundle), "query", "fp16", tmp_path / "cast")
    assert (cast.origin, cast.precision, cast.excused) == ("graphs/query.onnx", "fp16", ())
    assert read_precision(cast.path).counts() == {"fp16": 1}
    with amend(bundle) as amendment:
        # A graph that was left in fp32 as a whole stands for one with some layers in it.
        place = amendment.place("onnxruntime-fp16")
        (place / "query.onnx").write_bytes((bundle / "graphs" / "query.onnx").read_bytes())
        graph = VariantGraph("variants/onnxruntime-fp16/query.onnx", "fp32", {"fp32": 1})
        amendment.add(Variant("onnxruntime", "fp16", {"query": graph}))
    kept = prepare_graph(bundle, read_bundle(bundle), "query", "fp16", tmp_path / "kept")
    assert kept.origin == "variants/onnxruntime-fp16/query.onnx"
    (product,) = (node for node in onnx.load(bundle / kept.origin).graph.node if node.op_type == "MatMul")
    assert kept.excused == (product.name or product.output[0],)
    assert prepare_graph(bundle, read_bundle(bundle), "query", "bf16", tmp_path / "other").origin == "graphs/query.onnx"


@pytest.mark.parametrize(
    "output",
    [
        {"Name": "y", "Format/Datatype": "Row major linear FP16 format"},  # release 10
        {"Name": "y", "Format": "Row major linear FP16 format (kLINEAR)", "DataType": "Half"},  # release 11
    ],
)
def test_types_of_an_engine_are_counted_in_every_form_of_the_inspector(output: dict[str, str]) -> None:
    text = json.dumps({"Layers": ["only a name", {"Name": "layer", "Outputs": [output, output]}]})
    assert list(engine_types(text).values()) == [2]
    assert next(iter(engine_types(text))) in ("Row major linear FP16 format", "Half")


class Inspected:
    """A TensorRT on a GPU that loads the plan b"plan" and tells of one layer in it."""

    def __init__(self, log: object) -> None:
        self.log = log

    def deserialize_cuda_engine(self, plan: bytes) -> Inspected | None:
        self.log.lines.append(("ERROR", "the tag is another one"))  # type: ignore[attr-defined]
        return self if plan == b"plan" else None

    def create_engine_inspector(self) -> Inspected:
        return self

    def get_engine_information(self, form: str) -> str:
        assert form == "as JSON"
        return json.dumps({"Layers": [{"Name": "layer", "Outputs": [{"Name": "y", "DataType": "Half"}]}]})


def test_an_engine_is_read_back_where_a_gpu_can_load_it() -> None:
    api = SimpleNamespace(
        __version__="11.4",
        ILogger=type("ILogger", (), {"Severity": SimpleNamespace(WARNING=2)}),
        Runtime=Inspected,
        LayerInformationFormat=SimpleNamespace(JSON="as JSON"),
    )
    tensorrt = TensorRT("tensorrt", api)  # type: ignore[arg-type]
    assert read_engine(tensorrt, b"plan") == {"Half": 1}
    with pytest.raises(PrecisionError, match=r"tensorrt 11\.4 cannot load the plan .*the tag is another one"):
        read_engine(tensorrt, b"another")
