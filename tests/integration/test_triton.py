"""What the Triton engine has of its own, with NVIDIA's real tritonserver; see test_congruence.py for what every engine does."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from hero_sdk.engines.triton import TritonEngine
from hero_sdk.errors import EngineError, InputError, ServerError
from hero_sdk.manifest import Manifest
from hero_sdk.serve import Server
from tests.tiny_bundle import VOCABULARY, example_inputs


@pytest.fixture(scope="module")
def engine(triton_server: Server) -> Iterator[TritonEngine]:
    with TritonEngine(triton_server.grpc_url) as engine:
        yield engine


def run_in_process(
    bundle: Path, manifest: Manifest, graph: str, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(bundle / manifest.graphs[graph].file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_concurrent_requests_share_a_batch(engine: TritonEngine, tiny_bundle: Path, triton_server: Server) -> None:
    def counts() -> tuple[int, int]:
        statistics = client.get_inference_statistics("hero_query").model_stats[0]
        return statistics.inference_count, statistics.execution_count

    requests = [example_inputs(engine.manifest, "query", 1, seed=number) for number in range(200)]
    expected = run_in_process(
        tiny_bundle,
        engine.manifest,
        "query",
        {name: np.concatenate([r[name] for r in requests]) for name in requests[0]},
    )
    with grpc_client.InferenceServerClient(triton_server.grpc_url.removeprefix("grpc://")) as client:
        before = counts()
        with ThreadPoolExecutor(16) as pool:
            results = list(pool.map(lambda inputs: engine.run("query", inputs), requests))
        inferences, executions = (after - old for after, old in zip(counts(), before, strict=True))
    for name, array in expected.items():
        np.testing.assert_allclose(np.concatenate([result[name] for result in results]), array, rtol=1e-6, atol=1e-6)
    assert inferences == len(requests)
    assert executions < inferences / 1.5


def test_a_bad_request_fails_alone_and_not_its_neighbours(engine: TritonEngine) -> None:
    def run(number: int) -> str:
        inputs = example_inputs(engine.manifest, "query", 1, seed=number)
        if number % 5 == 0:
            inputs["token_ids"][0, 0] = VOCABULARY + number
        try:
            engine.run("query", inputs)
        except EngineError as error:
            return f"{type(error).__name__}: {error}"
        return "good"

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(run, range(100)))
    for number, result in enumerate(results):
        if number % 5 == 0:
            assert result.startswith("EngineError: ")  # and no ServerError, for the server is well
            assert "hero_query" in result
            assert f"idx={VOCABULARY + number} must be within" in result
        else:
            assert result == "good"


@pytest.mark.parametrize("file", ["model.py", "../config.pbtxt", "/etc/hostname", ""])
def test_the_server_hands_out_the_manifest_and_the_tokenizer_only(triton_server: Server, file: str) -> None:
    with grpc_client.InferenceServerClient(triton_server.grpc_url.removeprefix("grpc://")) as client:
        name = grpc_client.InferInput("file", [1], "BYTES")
        name.set_data_from_numpy(np.array([file.encode()], dtype=np.object_))
        with pytest.raises(InferenceServerException, match=r"expected one of \['manifest.json', 'tokenizer.json'\]"):
            client.infer("hero_bundle", [name])


def test_clients_cannot_map_memory_or_load_models(triton_server: Server) -> None:
    with grpc_client.InferenceServerClient(triton_server.grpc_url.removeprefix("grpc://")) as client:
        actions: list[Callable[[], object]] = [
            lambda: client.register_system_shared_memory("mine", "/mine", 64),
            lambda: client.load_model("hero_query"),
            lambda: client.update_log_settings({"log_verbose_level": 1}),
        ]
        for action in actions:
            with pytest.raises(InferenceServerException, match="restricted"):
                action()


def test_a_server_that_is_not_there_is_an_error_in_time() -> None:
    port = free_port()
    start = time.monotonic()
    with pytest.raises(ServerError, match=rf"127.0.0.1:{port} .*2 attempts.*UNAVAILABLE.*8001"):
        TritonEngine(f"127.0.0.1:{port}", timeout=5, retries=1)
    assert time.monotonic() - start < 5


def test_a_server_that_does_not_answer_is_an_error_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(ServerError, match="failed while connecting"):
            TritonEngine(f"127.0.0.1:{silent.getsockname()[1]}", timeout=1.5, retries=3)
        assert time.monotonic() - start < 3


def test_the_http_port_is_not_the_grpc_port(triton_server: Server) -> None:
    with pytest.raises(InputError, match=r"HTTP address.*grpc://127.0.0.1:8001"):
        TritonEngine(triton_server.http_url)
    with pytest.raises(ServerError, match="gRPC address"):
        TritonEngine(triton_server.http_url.replace("http", "grpc"), timeout=5, retries=0)
