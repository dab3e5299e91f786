"""``hero-bench`` on a real, tiny HERO: PyTorch, in process and NVIDIA's tritonserver, which counts the requests itself."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as grpc_client

import hero_sdk
from hero_bench import cli
from hero_bench.rounds import WARM_UP_CALLS
from hero_bench.throughput import WARM_UP_CALLS as CLIENT_WARM_UP_CALLS
from hero_bench.throughput import run_load
from hero_export.bundles.export import export_bundle
from hero_export.triton import write_repository
from hero_sdk.serve import Server, running_server
from tests.tiny_checkpoint import GEOMETRY, MAX_BATCH, write_checkpoint

ENCODERS = ["torch, padded", "torch, packed", "in process", "Triton"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("bench") / "checkpoint")


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    export_bundle(checkpoint, checkpoint.parent / "bundle", geometry=GEOMETRY, max_batch=MAX_BATCH)
    return checkpoint.parent / "bundle"


@pytest.fixture(scope="module")
def repository(bundle: Path) -> Path:
    return write_repository(bundle, bundle.parent / "repository", threads=1)


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    with running_server(repository) as server:
        yield server


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; gives its exit code and what it printed, on both outputs."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["hero-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, "".join(capsys.readouterr())

    return run


def rows_run(server: Server, model: str) -> int:
    """How many rows a model has run, as the server counts them."""
    with grpc_client.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
        return int(client.get_inference_statistics(model).model_stats[0].inference_count)


def test_all_ways_are_measured_side_by_side(
    run: Run, bundle: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    file = tmp_path / "results.json"
    options = ["--rounds", 2, "--max-seconds", 60, "--corpus", 20, "--threads", 1, "--json", file]
    code, printed = run("latency", bundle, "--serve", "--checkpoint", checkpoint, *options)
    assert code == 0, printed
    results: dict[str, Any] = json.loads(file.read_text())
    variants = {case["name"]: list(case["variants"]) for case in results["cases"]}
    assert variants == {
        "encode a query": ENCODERS,
        "encode 8 queries": ENCODERS,
        "encode a video (50 clips, 25 subtitles)": ENCODERS,
        "encode a video of one clip": ENCODERS,
        "encode a long video": ENCODERS,
        "encode a frame": ENCODERS[2:],
        "encode 32 frames": ENCODERS[2:],
        "search 20 videos": ["default", "exact"],
    }
    assert results["skipped"] == []
    assert results["machine"]["versions"]["tritonserver"].count(".") == 2
    for case in results["cases"]:
        for name, variant in case["variants"].items():
            assert name in printed
            assert 0 < variant["p50_ms"] <= variant["p95_ms"]
            assert len(variant["rounds_ms"]) == 2
            if case["baseline"] in ENCODERS and name != case["baseline"]:
                assert variant["deviation"]["relative_error"] <= 1e-4
        assert case["name"] in printed
    video = next(case for case in results["cases"] if case["name"].endswith("25 subtitles)"))["facts"]
    assert (video["clips"], video["subtitles"]) == (50, 25)
    assert video["used slots"] <= min(video["packed slots"], video["padded slots"])
    assert str(tmp_path) not in file.read_text()
    assert str(bundle) not in file.read_text()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_another_checkpoint_is_found_out_and_nothing_is_timed(run: Run, bundle: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", seed=1)
    file = tmp_path / "results.json"
    code, printed = run("latency", bundle, "--checkpoint", other, "--json", file)
    assert code == 2
    assert "UnequalResultsError: 'encode a query': the results of in process and torch, padded differ" in printed
    assert not file.exists()


def test_a_server_of_another_bundle_is_not_measured(run: Run, bundle: Path, triton_server: Server) -> None:
    for command in ("latency", "throughput"):
        code, printed = run(command, bundle, "--url", triton_server.grpc_url)
        assert code == 2
        assert "BenchmarkError: The server runs another bundle (fingerprint tiny-0)" in printed


def test_each_call_reaches_the_server_once(run: Run, bundle: Path, server: Server, tmp_path: Path) -> None:
    before = rows_run(server, "hero_query")
    file = tmp_path / "results.json"
    options = ["--only", "query", "--rounds", 3, "--json", file]
    code, printed = run("latency", bundle, "--url", server.grpc_url, *options)
    assert code == 0, printed
    cases = json.loads(file.read_text())["cases"]

    def calls(case: dict[str, Any]) -> int:
        return int(case["variants"]["Triton"]["n"])

    # One call to compare the results, some to warm up (the quicker the more), and those that were timed.
    fewest, most = (sum(case["items"] * (calls(case) + 1 + n) for case in cases) for n in (1, WARM_UP_CALLS))
    assert fewest <= rows_run(server, "hero_query") - before <= most


def test_requests_are_counted_as_the_server_counts_them(run: Run, bundle: Path, server: Server, tmp_path: Path) -> None:
    before = rows_run(server, "hero_query")
    file = tmp_path / "results.json"
    options = ["--concurrency", "1,3", "--seconds", 0.4, "--json", file]
    code, printed = run("throughput", bundle, "--url", server.grpc_url, *options)
    assert code == 0, printed
    loads = json.loads(file.read_text())["loads"]
    assert [(load["workload"].split(" (")[0], load["clients"]) for load in loads] == [
        ("encode a query", 1),
        ("encode a query", 3),
        ("encode a video", 1),
        ("encode a video", 3),
    ]
    for load in loads:
        assert load["errors"] == {}
        assert load["requests"] >= 1
        assert load["seconds"] >= 0.4
        assert load["per_second"] == pytest.approx(load["requests"] / load["seconds"])
        assert 0 < load["p50_ms"] <= load["p95_ms"] <= load["p99_ms"]
    answered = sum(load["requests"] for load in loads[:2])
    assert rows_run(server, "hero_query") - before == answered + (1 + 3) * CLIENT_WARM_UP_CALLS


def test_a_server_that_ends_meanwhile_is_counted_and_not_waited_for(repository: Path) -> None:
    with running_server(repository) as server:
        heroes = [hero_sdk.connect(server.grpc_url) for _ in range(2)]
        stopper = threading.Timer(0.4, server.stop)
        stopper.start()
        began = time.monotonic()
        load = run_load("encode a query", [partial(hero.encode_query, "who are you") for hero in heroes], 1.2)
        assert time.monotonic() - began < 20
        stopper.join()
        for hero in heroes:
            hero.close()
    assert len(load.latencies) > 0
    assert load.errors["ServerError"] > 0
    assert list(load.errors) == ["ServerError"]
    assert server.grpc_url.removeprefix("grpc://") in load.messages["ServerError"]
