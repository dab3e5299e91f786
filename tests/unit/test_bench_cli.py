"""The command ``hero-bench``: what it refuses, with which words and which exit code, before it measures anything."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hero_bench import cli, results
from hero_bench.latency import LatencySettings, measure_latency
from hero_bench.machine import describe_machine
from hero_bench.serving import require_same_bundle
from hero_sdk import HeroError, InputError
from hero_sdk.manifest import read_bundle
from tests.tiny_bundle import write_tiny_bundle

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bench") / "bundle")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["hero-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["latency", "--only", "query,sound"], r"no cases ['sound']; expected some of query, frames, search, video"),
        (["latency", "--rounds", "0"], "rounds is 0"),
        (["latency", "--max-seconds", "0"], "max_seconds 0"),
        (["latency", "--threads", "0"], "threads 0"),
        (["latency", "--corpus", "10,many"], "--corpus is '10,many'; expected whole numbers from 1 on"),
        (["latency", "--corpus", "0"], "--corpus is '0'"),
        (["latency", "--url", "grpc://127.0.0.1:1", "--serve"], "Both --url and --serve"),
        (["latency", "--checkpoint", "/no/checkpoint"], "CheckpointError: /no/checkpoint is not a folder"),
        (["throughput"], "no server to measure"),
        (["throughput", "--serve", "--concurrency", "1,,2"], "--concurrency is '1,,2'"),
        (["throughput", "--serve", "--concurrency", "1000"], "from 1 to 256"),
        (["throughput", "--serve", "--seconds", "-1"], "seconds is -1"),
        (["throughput", "--url", "http://127.0.0.1:8000"], "HTTP address"),
    ],
)
def test_what_cannot_be_measured_is_refused(run: Run, bundle: Path, options: list[str], message: str) -> None:
    code, error = run(options[0], bundle, *options[1:])
    assert message in " ".join(error.split())
    assert code == 2


@pytest.mark.parametrize("command", ["latency", "throughput"])
def test_the_results_file_is_checked_first(run: Run, tmp_path: Path, command: str) -> None:
    code, error = run(command, tmp_path / "no bundle", "--serve", "--json", tmp_path / "none" / "out.json")
    assert "expected the name of a JSON file in a folder that exists" in error
    assert code == 2


@pytest.mark.parametrize("command", ["latency", "throughput"])
def test_what_is_no_bundle_is_refused(run: Run, tmp_path: Path, command: str) -> None:
    code, error = run(command, tmp_path, "--serve")
    assert "expected a bundle that `hero-export onnx` wrote" in error
    assert code == 2


def test_a_bundle_is_measured_in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    options = ["--only", "query,frames,search", "--rounds", "2", "--corpus", "3", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["hero-bench", "latency", str(bundle), *options])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    out, err = capsys.readouterr()
    for case in ("encode a query", "encode 8 queries", "encode a frame", "encode 32 frames", "search 3 videos"):
        assert case in out
    assert "in process" in out
    assert "threads 1" in out
    assert "Not measured" not in err
    assert list(tmp_path.iterdir()) == []


def test_what_there_is_no_time_for_is_named_and_not_made_up(run: Run, bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    options = ["--only", "query,frames", "--max-seconds", "0.000001", "--rounds", "50"]
    code, error = run("latency", bundle, *options, "--json", file)
    written = json.loads(file.read_text())
    assert code == 0
    assert [case["name"] for case in written["cases"]] == ["encode a query"]
    assert len(written["cases"][0]["variants"]["in process"]["rounds_ms"]) == 1
    assert written["skipped"] == ["encode 8 queries", "encode a frame", "encode 32 frames"]
    assert "encode 8 queries, encode a frame, encode 32 frames" in error


@pytest.mark.parametrize(("load", "busy"), [(0.9, False), (1.1, True)])
def test_a_busy_machine_is_pointed_out(
    run: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch, load: float, busy: bool
) -> None:
    machine = dataclasses.replace(describe_machine(), cores=2, load=load)
    monkeypatch.setattr("hero_bench.latency.describe_machine", lambda: machine)
    code, error = run("latency", bundle, "--only", "query", "--rounds", "1")
    assert code == 0
    assert (f"busy before the run (load {load}, 2 cores)" in " ".join(error.split())) == busy


def test_nothing_to_measure_is_an_error(bundle: Path) -> None:
    with pytest.raises(HeroError, match="no case to measure"):
        measure_latency(bundle, LatencySettings(groups=()))
    with pytest.raises(InputError, match="no cases"):
        LatencySettings(groups=("",))


def test_a_server_with_another_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    local, other = read_bundle(bundle), read_bundle(write_tiny_bundle(tmp_path / "other", seed=1))
    require_same_bundle(local, read_bundle(bundle))
    with pytest.raises(HeroError, match=r"another bundle \(fingerprint tiny-1\) than the one named \(tiny-0\)"):
        require_same_bundle(other, local)


def test_the_help_loads_no_engine() -> None:
    code = (
        "import sys; from hero_bench import cli\n"
        "sys.argv = ['hero-bench', 'latency', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: print('LOADED', *{name.split('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split("LOADED")[1].split())
    assert "hero_bench" in loaded
    assert not loaded & {"torch", "onnxruntime", "lancedb", "pyarrow", "grpc", "numpy"}


def test_failed_requests_are_shown_and_end_with_exit_code_one(
    run: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    head = results.Run("throughput", describe_machine(), results.describe_bundle(read_bundle(bundle)), {})
    load = results.LoadResult("encode a query", 2, 1.0, (0.5,), {"ServerError": 7}, {"ServerError": "gone\x1b[2J"}, 0.0)
    monkeypatch.setattr("hero_bench.throughput.measure_throughput", lambda *_: results.ThroughputReport(head, (load,)))
    code, error = run("throughput", bundle, "--serve", "--json", tmp_path / "results.json")
    assert code == 1
    assert "encode a query, 2 clients: 7 x ServerError, first: gone" in error
    assert "\x1b" not in error
    assert json.loads((tmp_path / "results.json").read_text())["loads"][0]["errors"] == {"ServerError": 7}
