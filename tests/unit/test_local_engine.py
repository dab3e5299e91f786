"""The engine in this process, on real graphs in onnxruntime."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from hero_sdk.engines import Engine, cores
from hero_sdk.engines import onnxruntime as session
from hero_sdk.engines.local import LocalEngine
from hero_sdk.engines.session import open_graph
from hero_sdk.errors import BundleError, EngineError, InputError, MissingPackageError
from hero_sdk.manifest import Manifest, TensorSpec
from tests.tiny_bundle import MAX_BATCH, VOCABULARY, example_inputs, seal, write_tiny_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle")


def test_it_is_an_engine(bundle: Path) -> None:
    engine: Engine = LocalEngine(bundle, threads=1)
    assert engine.manifest.fingerprint == "tiny-0"
    assert engine.tokenizer_json == (bundle / "tokenizer.json").read_text(encoding="utf-8")
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run("query", {})


@pytest.mark.parametrize("graph", ["frames", "cross_modal", "temporal", "query"])
@pytest.mark.parametrize("batch", [1, MAX_BATCH, 2 * MAX_BATCH + 1])
def test_results_are_onnxruntimes_own(bundle: Path, graph: str, batch: int) -> None:
    with LocalEngine(bundle, threads=1) as engine:
        inputs = example_inputs(engine.manifest, graph, batch)
        found = engine.run(graph, inputs)
        spec = engine.manifest.graphs[graph]
    direct = onnxruntime.InferenceSession(bundle / spec.file, providers=["CPUExecutionProvider"]).run(None, inputs)
    for tensor, expected in zip(spec.outputs, direct, strict=True):
        np.testing.assert_allclose(found[tensor.name], expected, rtol=0, atol=1e-6)


def test_graphs_are_opened_on_first_use(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = open_graph

    def counting(path: Path, *arguments: str, **options: object) -> object:
        opened.append(path.name)
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("hero_sdk.engines.local.open_graph", counting)
    with LocalEngine(bundle, threads=1) as engine:
        assert opened == []
        inputs = example_inputs(engine.manifest, "query", 2)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: engine.run("query", inputs)["query_vector"], range(16)))
    assert opened == ["query.onnx"]
    assert all(np.array_equal(result, results[0]) for result in results)


def test_unknown_graph_and_inputs_that_do_not_fit(bundle: Path) -> None:
    with LocalEngine(bundle, threads=1) as engine:
        with pytest.raises(
            InputError, match=r"no graph 'answers'; it has \['cross_modal', 'frames', 'moment', 'query', 'temporal'\]"
        ):
            engine.run("answers", {})
        inputs = example_inputs(engine.manifest, "query", 2)
        with pytest.raises(InputError, match="'token_ids' of graph 'query' is int64"):
            engine.run("query", {**inputs, "token_ids": inputs["token_ids"].astype(np.int64)})


def test_a_graph_that_fails(bundle: Path) -> None:
    with LocalEngine(bundle, threads=1) as engine:
        inputs = example_inputs(engine.manifest, "query", 2)
        inputs["token_ids"][0, 0] = VOCABULARY
        with pytest.raises(EngineError, match=r"Graph 'query' of .* failed in onnxruntime"):
            engine.run("query", inputs)


def altered(bundle: Path, **change: object) -> None:
    """Seal the bundle with another query graph in its manifest."""
    manifest = Manifest.from_json((bundle / "manifest.json").read_text(encoding="utf-8"))
    query = dataclasses.replace(manifest.graphs["query"], **change)  # type: ignore[arg-type]
    seal(bundle, dataclasses.replace(manifest, graphs={**manifest.graphs, "query": query}))


@pytest.mark.parametrize(
    "tensors",
    [
        (TensorSpec("token_ids", "int32", (-1, 10)),),
        (TensorSpec("token_ids", "int64", (-1, 10)), TensorSpec("segment_ids", "int32", (-1, 10))),
        (TensorSpec("token_ids", "int32", (-1, 12)), TensorSpec("segment_ids", "int32", (-1, 10))),
        (TensorSpec("token_ids", "int32", (-1,)), TensorSpec("segment_ids", "int32", (-1, 10))),
    ],
)
def test_a_manifest_that_says_something_else_than_the_graph(bundle: Path, tensors: tuple[TensorSpec, ...]) -> None:
    altered(bundle, inputs=tensors)
    with pytest.raises(BundleError, match=r"query\.onnx has the tensors"):
        LocalEngine(bundle)


def test_a_graph_that_is_none(bundle: Path) -> None:
    (bundle / "graphs" / "query.onnx").write_bytes(b"not a graph")
    altered(bundle)
    with pytest.raises(BundleError, match=r"query\.onnx is not a whole ONNX file"):
        LocalEngine(bundle)


def test_a_graph_that_was_replaced_after_the_bundle_was_checked(bundle: Path) -> None:
    with LocalEngine(bundle, threads=1) as engine:
        inputs = example_inputs(engine.manifest, "query", 1)
        shutil.copyfile(bundle / "graphs" / "temporal.onnx", bundle / "graphs" / "query.onnx")
        with pytest.raises(BundleError, match=r"query\.onnx has the tensors"):
            engine.run("query", inputs)
        (bundle / "graphs" / "query.onnx").write_bytes(b"not a graph")
        with pytest.raises(BundleError, match="cannot be opened by onnxruntime"):
            engine.run("query", inputs)


def test_a_bundle_that_was_altered_is_refused(bundle: Path) -> None:
    with (bundle / "graphs" / "query.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"query\.onnx is not the file that was exported"):
        LocalEngine(bundle)


def test_sessions_have_the_threads_asked_for_and_do_not_spin(bundle: Path) -> None:
    options = session.open_session(bundle / "graphs" / "query.onnx", threads=1).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    options = session.open_session((bundle / "graphs" / "query.onnx").read_bytes()).get_session_options()
    assert options.intra_op_num_threads == cores.available_cores()


def test_session_arguments(bundle: Path) -> None:
    graph = bundle / "graphs" / "query.onnx"
    with pytest.raises(EngineError, match=r"no providers \['TurboExecutionProvider'\]"):
        session.open_session(graph, providers=["TurboExecutionProvider"])
    with pytest.raises(EngineError, match="threads is 0"):
        session.open_session(graph, threads=0)
    with pytest.raises(BundleError, match="is not a file"):
        session.open_session(bundle / "none.onnx")


def test_available_cores(tmp_path: Path) -> None:
    assert 1 <= cores.available_cores() <= (os.cpu_count() or 1)
    quota = tmp_path / "cpu.max"
    for content, expected in [
        ("200000 100000\n", 2),
        ("150000 100000\n", 1),
        ("50000 100000\n", 1),
        ("max 100000\n", None),
    ]:
        quota.write_text(content)
        assert cores._container_quota(quota) == expected
    assert cores._container_quota(tmp_path / "none") is None


def test_both_builds_of_onnxruntime(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What pip's records say is all that tells the two builds apart, so the test sets the records.
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0")
    with pytest.raises(EngineError, match="pip uninstall -y onnxruntime onnxruntime-gpu"):
        session.open_session(bundle / "graphs" / "query.onnx")


def test_no_onnxruntime(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", no_version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"hero-video-sdk\[local\].*hero-video-sdk\[gpu\]"):
        session.open_session(bundle / "graphs" / "query.onnx")
