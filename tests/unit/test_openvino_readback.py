"""What OpenVINO makes of a graph in each precision, read back from the file and from what it compiles."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hero_export.errors import FusionError, PrecisionError
from hero_export.openvino import readback
from hero_export.openvino.convert import Converted, convert_graph, save_graph, store_weights
from hero_export.openvino.quantise import compress, quantise
from hero_export.openvino.readback import (
    Execution,
    check_execution,
    check_fused,
    fused_operators,
    read_execution,
    read_products,
)
from hero_export.precision.readback import require_precision
from hero_sdk.engines.onnxruntime import OnnxRuntimeSession
from hero_sdk.engines.openvino import OpenVinoSession, capabilities, compile_model
from tests.unit.openvino_graphs import block_rows, write_block

LAYERS = [
    *(f"layers.0.attention.{name}" for name in ("query", "key", "value")),
    "layers.0.attention",
    "layers.0.intermediate",
    "layers.0.output",
]
HALVES = {"fp16": "FP16", "bf16": "BF16"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_block(tmp_path_factory.mktemp("onnx") / "block.onnx")


def made(source: Path, folder: Path, precision: str, keep: tuple[str, ...] = ()) -> OpenVinoSession:
    converted = convert_graph(source, "block")
    model = converted.model
    if precision == "int8":
        model = quantise(converted, block_rows(8), keep=converted.kept(keep))
    elif precision.startswith("int8"):
        model = compress(converted, keep=converted.kept(keep))
    elif precision in HALVES:
        store_weights(model, precision, "block")
    save_graph(model, folder / "block.xml", precision=precision, source="0" * 64)
    return OpenVinoSession(folder / "block.xml", precision, threads=1)


def test_products_are_named_after_their_layers(source: Path) -> None:
    converted = convert_graph(source, "block")
    assert list(converted.products.values()) == LAYERS
    assert [product.layer for product in read_products(converted.model).products] == [*LAYERS[:4], *LAYERS[3:]]


def test_the_same_graph_gives_the_same_file(source: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made(source, tmp_path / name, "fp32")
    assert (tmp_path / "a" / "block.xml").read_bytes() == (tmp_path / "b" / "block.xml").read_bytes()


@pytest.mark.parametrize(
    ("precision", "products"),
    [
        ("fp32", {"fp32": 7}),
        ("fp16", {"fp16": 7}),
        ("bf16", {"bf16": 7}),
        # Of an attention, the scores; nothing quantises the probabilities of the other product.
        ("int8", {"int8": 6, "fp32": 1}),
        ("int8-dynamic", {"int8-dynamic": 5, "fp32": 2}),
        ("int8-weights", {"int8-weights": 5, "fp32": 2}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is made for bf16:RuntimeWarning")
def test_every_precision_is_read_back(source: Path, tmp_path: Path, precision: str, products: dict[str, int]) -> None:
    session = made(source, tmp_path, precision)
    stored = read_products(session.model)
    assert stored.counts() == products
    require_precision(stored, precision, "block")
    assert fused_operators(session.model) == {"Attention": 1, "LayerNormalization": 1, "Gelu": 1}
    executed = read_execution(session.model, session.compiled)
    assert executed.attentions == 1
    assert sum(executed.products.values()) == 7
    note = check_execution("block", precision, stored, executed)
    if precision in HALVES and HALVES[precision] not in capabilities():
        assert note is not None
        assert "not executed here" in note
        assert executed.products == {"fp32": 7}
    else:
        assert note is None
        assert executed.products == {
            kind: sum(
                count for one, count in products.items() if (one if one in HALVES or one == "int8" else "fp32") == kind
            )
            for kind in {one if one in HALVES or one == "int8" else "fp32" for one in products}
        }


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-5), ("fp16", 3e-3), ("int8", 0.1), ("int8-weights", 0.03)])
def test_a_graph_still_computes_what_it_did(source: Path, tmp_path: Path, precision: str, most: float) -> None:
    session, reference = made(source, tmp_path, precision), OnnxRuntimeSession(source, threads=1)
    inputs = {"x": np.concatenate([row["x"] for row in block_rows(3)])}
    (found,), (expected,) = (one.run(["y"], inputs) for one in (session, reference))
    assert np.abs(found - expected).max() <= most * np.abs(expected).max()


def test_a_layer_that_is_kept_stays_in_float32(source: Path, tmp_path: Path) -> None:
    session = made(source, tmp_path, "int8", keep=("layers.0.intermediate", "attention"))
    by_layer = {product.layer: product.precision for product in read_products(session.model).products}
    assert by_layer == {**dict.fromkeys(LAYERS, "fp32"), "layers.0.output": "int8"}
    with pytest.raises(PrecisionError, match=r"not in int8.*layers\.0\.intermediate"):
        require_precision(read_products(session.model), "int8", "block")
    kept = convert_graph(source, "block").kept(("layers.0.intermediate", "attention"))
    require_precision(read_products(session.model), "int8", "block", excused=kept)


def test_a_graph_that_is_something_else_than_its_stamp_says(source: Path, tmp_path: Path) -> None:
    converted = convert_graph(source, "block")
    save_graph(converted.model, tmp_path / "block.xml", precision="bf16", source="0" * 64)
    with pytest.warns(RuntimeWarning) if "BF16" not in capabilities() else does_nothing():
        stored = read_products(OpenVinoSession(tmp_path / "block.xml", "bf16", threads=1).model)
    with pytest.raises(PrecisionError, match="is not in bf16"):
        require_precision(stored, "bf16", "block")


def does_nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


def test_asked_for_bf16_and_got_fp32(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted = convert_graph(source, "block")
    store_weights(converted.model, "bf16", "block")
    save_graph(converted.model, tmp_path / "block.xml", precision="bf16", source="0" * 64)
    model = OpenVinoSession(tmp_path / "block.xml", "bf16", threads=1).model
    stored = read_products(model)
    executed = read_execution(model, compile_model(model, "fp32", threads=1))
    assert executed.products == {"fp32": 7}
    # A CPU that could: refused.
    monkeypatch.setattr(readback, "capabilities", lambda: frozenset({"FP32", "BF16"}))
    with pytest.raises(PrecisionError, match=r"made for bf16.*computes its products in \{'fp32': 7\}"):
        check_execution("block", "bf16", stored, executed)
    # One that cannot: told, and not called executed.
    monkeypatch.setattr(readback, "capabilities", lambda: frozenset({"FP32"}))
    assert check_execution("block", "bf16", stored, executed) == (
        "checked in the file, not executed here: this CPU does not compute in bf16, and runs it in fp32"
    )
    # And one that computes in something else than fp32 instead is refused.
    with pytest.raises(PrecisionError, match="computes its products in"):
        check_execution("block", "bf16", stored, dataclasses.replace(executed, products={"fp16": 7}))


def test_asked_for_int8_and_got_fp32(source: Path, tmp_path: Path) -> None:
    session = made(source, tmp_path, "int8")
    stored = read_products(session.model)
    with pytest.raises(PrecisionError, match=r"made for int8.*\{'fp32': 7\}"):
        check_execution("block", "int8", stored, Execution({"fp32": 7}, 1, ()))


def test_an_attention_in_pieces_is_refused(source: Path) -> None:
    converted = convert_graph(source, "block")
    stored = read_products(converted.model)
    with pytest.raises(FusionError, match=r"1 of 1 attentions.*layers\.0\.attention"):
        check_execution("block", "fp32", stored, Execution({"fp32": 7}, 0, ("layers.0.attention",)))
    with pytest.raises(FusionError, match=r"'Attention': 1.*implies.*'Attention': 2"):
        check_fused("block", fused_operators(converted.model), {"Attention": 2, "LayerNormalization": 1, "Gelu": 1})


def test_an_attention_written_out_is_seen_when_it_runs(tmp_path: Path) -> None:
    """Products and a softmax of their own in the compiled graph, whatever the file says."""
    from hero_sdk.engines.openvino import load_openvino

    openvino = load_openvino()
    ops = openvino.opset13
    parts = [ops.parameter([-1, 2, 8, 16], np.float32, name) for name in ("q", "k", "v")]
    fused = ops.scaled_dot_product_attention(*parts)
    fused.set_friendly_name("layers.0.attention")
    model = openvino.Model([fused], parts, "fused")
    apart = ops.matmul(ops.softmax(ops.matmul(parts[0], parts[1], False, True), 3), parts[2], False, False)
    written_out = openvino.Model([apart], parts, "apart")
    assert read_execution(model, compile_model(model, "fp32", threads=1)).apart == ()
    found = read_execution(model, compile_model(written_out, "fp32", threads=1))
    assert (found.attentions, found.apart) == (0, ("layers.0.attention",))


def test_a_weight_that_half_precision_cannot_hold(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    path = write_block(tmp_path / "block.onnx")
    model = onnx.load(path)
    weight = next(one for one in model.graph.initializer if one.name == "outer.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e6), weight.name))
    onnx.save(model, path)
    converted = convert_graph(path, "block")
    with pytest.raises(PrecisionError, match="fp16 cannot hold"):
        store_weights(converted.model, "fp16", "block")


def test_no_rows_to_calibrate_with(source: Path) -> None:
    converted: Converted = convert_graph(source, "block")
    with pytest.raises(PrecisionError, match="no rows of graph 'block'"):
        quantise(converted, [])
