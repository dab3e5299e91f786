"""Eight bits: what is rounded, what is not, how far it is from float32, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from hero_export.errors import CalibrationError, ExportError, PrecisionError
from hero_export.onnx.fusion import model_nodes, operator_counts, read_model
from hero_export.onnx.operators import fused_counts
from hero_export.precision.quantise import can_be_quantised, quantise_file
from hero_export.precision.readback import read_precision, require_precision
from hero_export.precision.running import output_errors, run_graph
from hero_sdk.manifest import CAPTIONING, QUESTION_ANSWERING, RETRIEVAL
from tests.precision_graphs import products_of, rows_of, write_chain, write_exported, write_pictures

LARGEST_MEAN = {"int8": 0.03, "int8-dynamic": 0.03, "int8-weights": 0.02, "int4-weights": 0.2}
"""Mean errors of outputs as a share of their mean. A step of eight bits is 1/127 of the largest value, one of four 1/7."""


@pytest.mark.parametrize("precision", list(LARGEST_MEAN))
@pytest.mark.parametrize("form", ["standard", "onnxruntime"])
@pytest.mark.parametrize(("task", "name"), [(RETRIEVAL, "query"), (CAPTIONING, "caption_step")])
def test_a_graph_in_few_bits(precision: str, form: str, task: str, name: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    spec, rows = write_exported(source, task, name, form), rows_of(task, name)
    left = quantise_file(source, target, precision, rows=rows)  # type: ignore[arg-type]
    assert left == ({"model.query.pooling"} if name == "query" else frozenset())
    found = read_precision(target)
    require_precision(found, precision, name, least=1.0, excused=left)
    # Module names are those of the source, also where onnxruntime made other nodes.
    assert {product.layer for product in found.products} == {one.layer for one in read_precision(source).products}
    assert {product.operator for product in found.products if product.precision == "fp32"} <= {
        "Attention", "MultiHeadAttention", "MatMul",
    }  # fmt: skip
    counts = [fused_counts(operator_counts(model_nodes(read_model(path)))) for path in (source, target)]
    assert counts[0] == counts[1]
    errors = output_errors(run_graph(source, spec, rows), run_graph(target, spec, rows), rows)
    assert 0 < max(error.mean for error in errors) < LARGEST_MEAN[precision]


def test_only_products_read_what_was_rounded(tmp_path: Path) -> None:
    """Neither residual connections do, nor outputs: the query vector is an output and what a product reads."""
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    write_exported(source, RETRIEVAL, "query")
    quantise_file(source, target, "int8", rows=rows_of(RETRIEVAL, "query"))
    model = onnx.load(str(target))
    rounded = {value for node in model.graph.node if node.op_type == "DequantizeLinear" for value in node.output}
    products = {node.name for node in products_of(model)}
    assert {node.name for node in model.graph.node if rounded & set(node.input)} <= products
    assert not rounded & {one.name for one in model.graph.output}
    quantised = [node for node in products_of(model) if rounded >= set(node.input[:2])]
    assert len(quantised) == 12
    scales = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    makers = {value: node for node in model.graph.node for value in node.output}
    for node in quantised:  # one scale per output channel
        assert len(scales[makers[node.input[1]].input[1]]) == 1


def test_a_kept_layer_stays_in_float32(tmp_path: Path) -> None:
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    write_exported(source, QUESTION_ANSWERING, "temporal")
    rows = rows_of(QUESTION_ANSWERING, "temporal")
    left = quantise_file(source, target, "int8", rows=rows, keep=["layers.0.output", "frames"])
    assert left == {"model.temporal.layers.0.output", "model.temporal.frames.linear"}
    found = read_precision(target)
    assert {one.layer for one in found.products if one.precision == "fp32" and one.weighted} == left
    require_precision(found, "int8", "temporal", excused=left)
    with pytest.raises(PrecisionError, match=r"model\.temporal\.frames\.linear \(MatMul\) in fp32"):
        require_precision(found, "int8", "temporal")
    with pytest.raises(ExportError, match="no layer 'nothing'"):
        quantise_file(source, target, "int8", rows=rows, keep=["nothing"])


def test_a_table_that_is_a_weight_as_well_stays_exact_as_a_table(tmp_path: Path) -> None:
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    write_exported(source, CAPTIONING, "caption_step")
    quantise_file(source, target, "int8", rows=rows_of(CAPTIONING, "caption_step"))
    before, after = (onnx.load(str(path)) for path in (source, target))
    tables = [
        {weight.name: weight.raw_data for weight in model.graph.initializer}[
            next(node.input[0] for node in model.graph.node if node.name == "node_embedding")
        ]
        for model in (before, after)
    ]
    assert tables[0] == tables[1]


def test_convolutions_on_pictures(tmp_path: Path) -> None:
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    spec = write_pictures(source)
    rng = np.random.default_rng(0)
    rows = [{"images": rng.integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)} for _ in range(8)]
    assert quantise_file(source, target, "int8", rows=rows) == frozenset()
    require_precision(read_precision(target), "int8", "pictures", least=1.0)
    (error,) = output_errors(run_graph(source, spec, rows), run_graph(target, spec, rows), rows)
    assert 0 < error.mean < 0.05
    assert not can_be_quantised(source, "int8-dynamic")


def test_what_cannot_be_quantised_is_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    write_chain(source, [np.eye(16)])
    with pytest.raises(CalibrationError, match=r"no calibration rows of graph 'source'.*hero-export calibrate"):
        quantise_file(source, target, "int8")
    with pytest.raises(PrecisionError, match="no matrix product that could be in int8"):
        quantise_file(source, target, "int8", rows=[{"x": np.ones((1, 16), np.float32)}], keep=["layers.0"])
    write_exported(source, RETRIEVAL, "moment")
    assert not can_be_quantised(source, "int8")
    with pytest.raises(PrecisionError, match="Leave the graph in fp32"):
        quantise_file(source, target, "int8", rows=rows_of(RETRIEVAL, "moment"))
    assert not target.exists()
