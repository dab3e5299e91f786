"""Starting and stopping NVIDIA's real tritonserver. Each test starts its own, which takes about 1 s, and 3 s to stop."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hero_export.triton import write_repository
from hero_sdk.engines.triton import TritonEngine
from hero_sdk.errors import InputError, ServerError
from hero_sdk.serve import running_server
from tests.tiny_bundle import example_inputs, write_tiny_bundle


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_another_server_is_not_taken_for_ours(tmp_path: Path, tiny_repository: Path) -> None:
    """A repository mixed from two bundles would give wrong answers without an error; the client refuses it.

    Also the whole life of ``python -m hero_sdk.serve``: ready, then SIGTERM, then nothing is left.
    """
    other = write_repository(write_tiny_bundle(tmp_path / "bundle", seed=1), tmp_path / "other")
    mixed = tmp_path / "mixed"
    shutil.copytree(tiny_repository, mixed)
    shutil.rmtree(mixed / "hero_query")
    shutil.copytree(other / "hero_query", mixed / "hero_query")
    command = [sys.executable, "-u", "-m", "hero_sdk.serve", str(mixed)]
    command += ["--http-port=0", "--grpc-port=0", "--metrics-port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        address = next(word for word in lines[1].split() if word.startswith("grpc://"))
        with pytest.raises(ServerError, match=r"'hero_query'.*written from another bundle.*tiny-1, expected tiny-0"):
            TritonEngine(address)
        server = int(subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, check=True).stdout)
        process.terminate()
        assert process.wait(30) == 0
        assert process.stdout.read() == "Stopped\n"
    assert group_is_gone(server)


def test_connecting_waits_for_a_server_that_starts_and_stopping_leaves_nothing(tiny_repository: Path) -> None:
    port = free_port()
    engines: list[TritonEngine] = []
    connecting = threading.Thread(target=lambda: engines.append(TritonEngine(f"localhost:{port}", retries=6)))
    connecting.start()
    time.sleep(0.7)  # the first attempt has failed by now
    with running_server(tiny_repository, grpc_port=port) as server:
        connecting.join(30)
        (engine,) = engines
        inputs = example_inputs(engine.manifest, "query", 1)
        engine.run("query", inputs)
        work_folder = server.log_path.parent
        with (
            pytest.raises(InputError, match=f"Port {port} .*another server"),
            running_server(tiny_repository, grpc_port=port),
        ):
            pass
    assert group_is_gone(server.pid)
    assert not is_open(port)
    assert not work_folder.exists()
    with pytest.raises(ServerError, match="UNAVAILABLE"):
        engine.run("query", inputs)
    engine.close()


def test_a_killed_server_leaves_no_process_and_no_shared_memory(tiny_repository: Path) -> None:
    before = set(Path("/dev/shm").glob("hero_triton_*"))
    with running_server(tiny_repository) as server:
        assert set(Path("/dev/shm").glob("hero_triton_*")) - before
        os.kill(server.pid, signal.SIGKILL)
    assert server.exit_code == -signal.SIGKILL
    assert group_is_gone(server.pid)
    assert set(Path("/dev/shm").glob("hero_triton_*")) <= before


def test_a_graph_that_was_altered_is_not_served(tmp_path: Path, tiny_repository: Path) -> None:
    altered = tmp_path / "altered"
    shutil.copytree(tiny_repository, altered)
    with (altered / "hero_query" / "1" / "query.weights").open("r+b") as file:
        file.write(b"\xff")
    with (
        pytest.raises(
            # With 1 or, as happens to tritonserver when it gives up on a busy machine, by a signal.
            ServerError,
            match=r"ended with -?\d+ before it was ready(.|\n)*query.weights is not the file of the bundle",
        ),
        running_server(altered),
    ):
        pass
