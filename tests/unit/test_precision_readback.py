"""What is read back from a graph, and that nothing passes for a precision that it is not in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hero_export.errors import PrecisionError
from hero_export.precision.cast import cast_file
from hero_export.precision.quantise import quantise_file
from hero_export.precision.readback import precision_of, read_precision, require_precision
from hero_export.precision.running import executed_precision
from hero_sdk.errors import BundleError, EngineError
from hero_sdk.manifest import QUESTION_ANSWERING, RETRIEVAL
from tests.precision_graphs import products_of, rows_of, save, write_chain, write_exported


def chain(path: Path, layers: int = 3, width: int = 16) -> Path:
    rng = np.random.default_rng(0)
    write_chain(path, [rng.standard_normal((width, width)) / 4 for _ in range(layers)])
    return path


def rows(count: int = 8, width: int = 16) -> list[dict[str, np.ndarray]]:
    return [{"x": row} for row in np.random.default_rng(1).standard_normal((count, 1, width), dtype=np.float32)]


@pytest.mark.parametrize("form", ["standard", "onnxruntime"])
def test_products_and_multiply_adds_of_a_graph(form: str, tmp_path: Path) -> None:
    """Counted by hand: the layer and the query encoder of width 32 over 12 words, 2 heads, and what stands around them."""
    path = tmp_path / "graph.onnx"
    write_exported(path, RETRIEVAL, "query", form)
    found = read_precision(path)
    words, width, inner = 12, 32, 64
    linear = 4 * words * width**2
    attention = 2 * words * words * width
    assert found.counts() == {"fp32": 17}
    assert sum(product.multiply_adds or 0 for product in found.products) == (
        linear + attention + 2 * words * width * inner  # the layer
        + words * width**2 + linear + attention + words * width  # the query encoder
        + width**2  # the span vector
    )  # fmt: skip
    assert found.precision == "fp32"


def put_back_into_float(path: Path, name: str) -> None:
    """What a converter does that falls back without a word: one product in float32, with casts around it."""
    model = onnx.load(str(path))
    (node,) = [node for node in model.graph.node if node.name == name]
    place = list(model.graph.node).index(node)
    before = [helper.make_node("Cast", [value], [f"{value}.wide"], to=TensorProto.FLOAT) for value in list(node.input)]
    after = helper.make_node("Cast", [f"{node.output[0]}.wide"], [node.output[0]], to=TensorProto.FLOAT16)
    for number, value in enumerate(list(node.input)):
        node.input[number] = f"{value}.wide"
    node.output[0] += ".wide"
    nodes = [*list(model.graph.node)[:place], *before, node, after, *list(model.graph.node)[place + 1 :]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def test_a_product_that_fell_back_to_float32_is_named(tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    cast_file(chain(tmp_path / "graph.onnx"), path, "fp16")
    require_precision(read_precision(path), "fp16", "graph")
    put_back_into_float(path, "layers.1")
    found = read_precision(path)
    assert found.counts() == {"fp16": 2, "fp32": 1}
    with pytest.raises(PrecisionError, match=r"'graph' is not in fp16: it has 66\.7%.*layers\.1 \(MatMul\) in fp32"):
        require_precision(found, "fp16", "graph")
    require_precision(found, "fp16", "graph", least=0.6)
    require_precision(found, "fp16", "graph", excused=["layers.1"])
    with pytest.raises(PrecisionError, match="not in bf16"):
        require_precision(found, "bf16", "graph", least=0.6)


def test_types_that_a_file_notes_down_are_not_believed(tmp_path: Path) -> None:
    model = onnx.load(str(chain(tmp_path / "graph.onnx")))
    model.graph.value_info.extend(
        helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT16, None) for node in model.graph.node[:-1]
    )
    assert precision_of(model, "graph").counts() == {"fp32": 3}


def test_types_that_contradict_one_another_are_refused(tmp_path: Path) -> None:
    model = onnx.load(str(chain(tmp_path / "graph.onnx")))
    weight = model.graph.initializer[1]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    with pytest.raises(PrecisionError, match="types of graph 'graph' contradict"):
        precision_of(model, "graph")


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(BundleError, match="not a whole ONNX file"):
        read_precision(tmp_path / "graph.onnx")


def test_int8_takes_both_operands(tmp_path: Path) -> None:
    """With the weight alone in eight bits an engine multiplies floats."""
    path = tmp_path / "int8.onnx"
    quantise_file(chain(tmp_path / "graph.onnx"), path, "int8", rows=rows())
    assert read_precision(path).counts() == {"int8": 3}
    model = onnx.load(str(path))
    products = products_of(model)
    makers = {value: node for node in model.graph.node for value in node.output}
    # The second product reads what it read before it was rounded.
    products[1].input[0] = makers[makers[products[1].input[0]].input[0]].input[0]
    assert [product.precision for product in precision_of(model, "graph").products] == ["int8", "fp32", "int8"]
    # And the third reads sixteen bits.
    zero = makers[products[2].input[0]].input[2]
    for weight in model.graph.initializer:
        if weight.name == zero:
            weight.CopyFrom(numpy_helper.from_array(np.uint16(0), zero))
    assert [product.precision for product in precision_of(model, "graph").products] == ["int8", "fp32", "fp32"]


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "int8-weights", "int4-weights"])
def test_each_kind_of_eight_bits_is_told_from_the_others(precision: str, tmp_path: Path) -> None:
    path = tmp_path / "made.onnx"
    quantise_file(chain(tmp_path / "graph.onnx", width=32), path, precision, rows=rows(width=32))  # type: ignore[arg-type]
    found = read_precision(path)
    assert found.counts() == {precision: 3}
    assert {product.multiply_adds for product in found.products} == {32 * 32}
    for other in {"int8", "int8-dynamic", "int8-weights", "int4-weights", "fp16"} - {precision}:
        with pytest.raises(PrecisionError, match=f"not in {other}"):
            require_precision(found, other, "graph")


def test_products_in_a_branch_are_not_vouched_for(tmp_path: Path) -> None:
    def branch(name: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4])
        return helper.make_graph([helper.make_node("MatMul", ["x", "x"], [name], name=name)], name, [], [out])

    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=branch("one"), else_branch=branch("two"))],
        "flow",
        [
            helper.make_tensor_value_info(*one)
            for one in (("c", TensorProto.BOOL, []), ("x", TensorProto.FLOAT, [4, 4]))
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])],
    )
    save(tmp_path / "flow.onnx", graph)
    found = read_precision(tmp_path / "flow.onnx")
    assert found.counts() == {"unknown": 2}
    with pytest.raises(PrecisionError, match="in unknown"):
        require_precision(found, "fp32", "flow", least=0.0)


def test_a_graph_without_a_product_for_the_precision(tmp_path: Path) -> None:
    write_exported(tmp_path / "moment.onnx", RETRIEVAL, "moment")
    found = read_precision(tmp_path / "moment.onnx")
    require_precision(found, "fp32", "moment")
    with pytest.raises(PrecisionError, match="not in int8"):
        require_precision(found, "int8", "moment")


def test_what_onnxruntime_makes_of_a_graph_is_read_back_as_well(tmp_path: Path) -> None:
    """It has no products in fp16 for this kind of processor, and runs them in fp32 without a word; int8 stays int8."""
    source, half, eight = (tmp_path / f"{name}.onnx" for name in ("source", "half", "eight"))
    write_exported(source, QUESTION_ANSWERING, "temporal", "onnxruntime")
    cast_file(source, half, "fp16")
    quantise_file(source, eight, "int8", rows=rows_of(QUESTION_ANSWERING, "temporal"))
    assert executed_precision(source).counts() == read_precision(source).counts() == {"fp32": 9}
    assert read_precision(half).counts() == {"fp16": 9}
    assert executed_precision(half).counts() == {"fp32": 9}
    assert executed_precision(eight).counts() == read_precision(eight).counts() == {"int8": 7, "fp32": 2}


def test_bfloat16_does_not_run_here_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    cast_file(chain(tmp_path / "graph.onnx"), path, "bf16")
    with pytest.raises(EngineError, match=r"onnxruntime [\d.]+ cannot run half\.onnx on the CPU .*MatMul"):
        executed_precision(path)
