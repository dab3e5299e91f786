"""A graph in OpenVINO as the SDK runs it, and files that are not what they should be."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hero_export.openvino.convert import convert_graph, save_graph
from hero_sdk.engines import openvino as engine
from hero_sdk.engines.openvino import OpenVinoSession, run_options
from hero_sdk.engines.session import GraphSession, OpenTensor, open_graph
from hero_sdk.errors import BundleError, EngineError, MissingPackageError
from tests.unit.openvino_graphs import PLACES, WIDTH, block_rows, write_block


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openvino")
    for seed, name in enumerate(("block", "other")):
        source = write_block(folder / f"{name}.onnx", seed)
        save_graph(convert_graph(source, name).model, folder / f"{name}.xml", precision="fp32", source="0" * 64)
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    for name in ("block", "other"):
        for suffix in (".xml", ".bin"):
            shutil.copyfile(folder / f"{name}{suffix}", tmp_path / f"{name}{suffix}")
    return tmp_path


def test_it_is_a_session_like_any_other(folder: Path) -> None:
    session: GraphSession = open_graph(folder / "block.xml", "openvino", "fp32", threads=1)
    assert session.inputs == {"x": OpenTensor("float32", (None, PLACES, WIDTH))}
    assert session.outputs == {"y": OpenTensor("float32", (None, PLACES, WIDTH))}
    reference = open_graph(folder / "block.onnx", "onnxruntime", "fp32", threads=1)
    for batch in (1, 5, 2):  # compiled once, for any
        inputs = {"x": np.concatenate([row["x"] for row in block_rows(batch)])}
        (found,), (expected,) = (one.run(["y"], inputs) for one in (session, reference))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_result_is_not_written_over_by_the_next_call(folder: Path) -> None:
    session = OpenVinoSession(folder / "block.xml", "fp32", threads=1)
    first, second = block_rows(2)
    (before,) = session.run(["y"], first)
    kept = before.copy()
    session.run(["y"], second)
    np.testing.assert_array_equal(before, kept)


def test_several_threads_may_call(folder: Path) -> None:
    session = OpenVinoSession(folder / "block.xml", "fp32", threads=1)
    rows = block_rows(8)
    alone = [session.run(["y"], row)[0] for row in rows]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda row: session.run(["y"], row)[0], rows * 4))
    for found, expected in zip(together, alone * 4, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_openvino_is_told_everything(folder: Path) -> None:
    compiled = OpenVinoSession(folder / "block.xml", "fp32", threads=1).compiled
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("NUM_STREAMS") == 1
    assert engine.load_openvino().Core().get_property("CACHE_DIR") == ""


def test_options_by_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "capabilities", lambda: frozenset({"FP32", "BF16"}))
    hints = {name: run_options(name)["INFERENCE_PRECISION_HINT"] for name in ("fp32", "fp16", "bf16", "int8")}
    # A CPU that computes in bfloat16 does not make fp16 of it, which is finer.
    assert hints == {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32"}
    groups = {name: run_options(name)["DYNAMIC_QUANTIZATION_GROUP_SIZE"] for name in ("int8-dynamic", "int8-weights")}
    assert groups == {"int8-dynamic": engine.DYNAMIC_GROUP, "int8-weights": 0}


def test_bf16_where_the_cpu_has_none_is_said(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_graph(engine.read_model(copy / "block.xml"), copy / "block2.xml", precision="bf16", source="0" * 64)
    monkeypatch.setattr(engine, "capabilities", lambda: frozenset({"FP32"}))
    with pytest.warns(RuntimeWarning, match="made for bf16, which this CPU does not compute in; it runs in fp32"):
        session = OpenVinoSession(copy / "block2.xml", "bf16", threads=1)
    assert session.compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


def test_the_file_says_its_own_precision(copy: Path) -> None:
    """A variant's frame encoder is float32 whatever the variant is."""
    session = OpenVinoSession(copy / "block.xml", "bf16", threads=1)
    assert session.compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


def truncated_weights(folder: Path) -> None:
    path = folder / "block.bin"
    path.write_bytes(path.read_bytes()[:-100])


def no_weights(folder: Path) -> None:
    (folder / "block.bin").unlink()


def truncated_graph(folder: Path) -> None:
    path = folder / "block.xml"
    path.write_bytes(path.read_bytes()[:-1000])


def another_name(folder: Path) -> None:
    for suffix in (".xml", ".bin"):
        shutil.copyfile(folder / f"other{suffix}", folder / f"block{suffix}")


DAMAGE: dict[Callable[[Path], None], str] = {
    truncated_weights: r"block\.xml cannot be read by OpenVINO .*expected a whole graph with its weights",
    no_weights: r"block\.bin is not a file; expected a graph of OpenVINO, \.xml with its \.bin",
    truncated_graph: r"block\.xml cannot be read by OpenVINO",
    another_name: r"block\.xml is the graph 'other' under another name; expected 'block'",
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_damaged_files(copy: Path, damage: Callable[[Path], None]) -> None:
    damage(copy)
    with pytest.raises(BundleError, match=DAMAGE[damage]):
        OpenVinoSession(copy / "block.xml", "fp32", threads=1)


def test_wrong_number_of_threads(folder: Path) -> None:
    with pytest.raises(EngineError, match="threads is 0"):
        OpenVinoSession(folder / "block.xml", "fp32", threads=0)


def test_no_openvino(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPackageError, match=r'pip install "hero-video-sdk\[openvino\]"'):
        OpenVinoSession(folder / "block.xml", "fp32", threads=1)


def test_openvino_tells_nobody_that_it_is_used(tmp_path: Path) -> None:
    """Its import would write an id into the home folder and send it."""
    code = "import sys; from hero_sdk.engines.openvino import load_openvino; load_openvino(); print('sys' in dir())"
    code += "; assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]"
    environment = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    assert list(tmp_path.iterdir()) == []
