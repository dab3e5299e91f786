"""A ``tritonserver`` process: starting it, waiting until it is ready, and ending it with all that it started."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hero_sdk.errors import InputError, ServerError
from hero_sdk.server_environment import ServerEnvironment, find_server_environment

__all__ = ["REPOSITORY_FILE", "Server", "check_repository", "running_server"]

REPOSITORY_FILE = "hero-repository.json"
"""Marks a folder as a model repository of ``hero-export triton``, and says which bundle and backend it has."""

GRACE_SECONDS = 15.0
LOG_LINES, LOG_LINE_LENGTH = 12, 600


class Server:
    """A Triton server that this process started. ``stop`` ends it and everything it started."""

    def __init__(
        self, process: subprocess.Popen[bytes], host: str, ports: tuple[int, int, int], folder: Path, region: str
    ) -> None:
        self._process = process
        self._folder = folder
        self._region = region
        address = f"[{host}]" if ":" in host else host
        self.http_url = f"http://{address}:{ports[0]}"
        self.grpc_url = f"grpc://{address}:{ports[1]}"
        self.metrics_url = f"http://{address}:{ports[2]}/metrics"
        self.log_path = folder / "tritonserver.log"

    @property
    def pid(self) -> int:
        """Process id of the server, and id of the process group that it and its Python models are in."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code of the server when it has ended, negative for a signal; None while it runs."""
        return self._process.poll()

    def log_tail(self) -> str:
        """The last errors in the server's log; its last lines when there are none."""
        if not self.log_path.is_file():
            return ""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        # CudaDriverHelper is what every machine without a GPU reports.
        errors = [line for line in lines if re.match(r"E\d{4} |error:", line) and "CudaDriverHelper" not in line]
        return "\n".join(line[:LOG_LINE_LENGTH] for line in (errors or lines)[-LOG_LINES:])

    def wait_until_ready(self, timeout: float) -> None:
        """Wait until every model can be used.

        Raises:
            ServerError: the server ended, or the time (in seconds) is over; the message ends with its log.
        """
        end = time.monotonic() + timeout
        while not _answers(f"{self.http_url}/v2/health/ready"):
            if self.exit_code is not None:
                raise ServerError(
                    f"The Triton server ended with {self.exit_code} before it was ready. Its log says:\n{self.log_tail()}"
                )
            if time.monotonic() > end:
                raise ServerError(
                    f"The Triton server was not ready after {timeout:g} s; give it more time with ready_timeout, "
                    f"or see what its log says:\n{self.log_tail()}"
                )
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server and its Python models; a second call does nothing.

        Running requests get some seconds to finish; what is left then is killed, this server's process group and nothing else.
        """
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):  # then it is killed below
                self._process.wait(GRACE_SECONDS)
        _end_group(self._process.pid)
        self._process.wait()
        for region in Path("/dev/shm").glob(f"{self._region}*"):  # left there only by a server that was killed
            region.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def running_server(
    repository: Path | str,
    *,
    host: str = "127.0.0.1",
    http_port: int = 0,
    grpc_port: int = 0,
    metrics_port: int = 0,
    ready_timeout: float = 120.0,
    environment: Path | str | None = None,
) -> Iterator[Server]:
    """A server for the time of a ``with`` block: ready when it is entered, gone when it is left.

    Args:
        repository: a model repository that ``hero-export triton`` wrote.
        host: address to listen on; only this machine by default, "0.0.0.0" for all.
        http_port, grpc_port, metrics_port: 0 picks a free one.
        ready_timeout: seconds until all models must be loaded.
        environment: the server's virtual environment; None looks where ``find_server_environment`` does.

    Raises:
        InputError: no such repository, or a port is taken.
        MissingPackageError: the server is not installed.
        ServerError: the server does not become ready; the message ends with its log.
    """
    repository = Path(repository).resolve()
    check_repository(repository)
    found = find_server_environment(environment)
    ports = _free_ports(host, (http_port, grpc_port, metrics_port))
    folder = Path(tempfile.mkdtemp(prefix="hero-triton-"))
    # Its own name for the shared memory of the Python models, so that only this server's is removed should it be killed.
    region = f"hero_triton_{uuid.uuid4().hex[:12]}_"
    try:
        command = _command(found, repository, _backend_folder(found, folder), host, ports, region)
        with (folder / "tritonserver.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_process_environment(found),
                start_new_session=True,  # Ctrl-C reaches this process, which then stops the server in order
            )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    server = Server(process, host if host != "0.0.0.0" else "127.0.0.1", ports, folder, region)
    try:
        server.wait_until_ready(ready_timeout)
        yield server
    finally:
        server.stop()


def check_repository(repository: Path) -> None:
    """Raise InputError unless the folder is a model repository of ``hero-export triton``."""
    if not (repository / REPOSITORY_FILE).is_file():
        raise InputError(
            f"{repository} is not a model repository of HERO (it has no {REPOSITORY_FILE}). "
            "Write one with: hero-export triton BUNDLE --out REPO"
        )


def _free_ports(host: str, wanted: tuple[int, int, int]) -> tuple[int, int, int]:
    """Check that the ports can be had, and pick free ones for those that are 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        ports = []
        for port in wanted:  # all are held until the last one is picked, so that none is picked twice
            probe = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except (OSError, OverflowError) as error:
                raise InputError(
                    f"Port {port} of {host} cannot be had ({error}). Is another server running? "
                    "Stop it, or choose another port (0 picks a free one)."
                ) from error
            ports.append(probe.getsockname()[1])
    return ports[0], ports[1], ports[2]


def _backend_folder(environment: ServerEnvironment, folder: Path) -> Path:
    """The folder that the server looks for backends in, with the Python backend and the stub of this Python."""
    python = folder / "backends" / "python"
    python.mkdir(parents=True)
    for file in (*(environment.triton / "backends" / "python").iterdir(), environment.stub):
        (python / file.name).symlink_to(file.resolve())
    return python.parent


def _command(
    environment: ServerEnvironment,
    repository: Path,
    backends: Path,
    host: str,
    ports: tuple[int, int, int],
    region: str,
) -> list[str]:
    # Over the network nobody may map this machine's memory, load other models or redirect the log: those parts of the protocol
    # ask for a header that nobody knows.
    secret = uuid.uuid4().hex
    closed = f"shared-memory,model-repository,logging,trace:hero-secret={secret}"
    return [
        str(environment.triton / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={region}",
        f"--http-address={host}",
        f"--http-port={ports[0]}",
        f"--grpc-address={host}",
        f"--grpc-port={ports[1]}",
        f"--metrics-address={host}",
        f"--metrics-port={ports[2]}",
        f"--http-restricted-api={closed}",
        f"--grpc-restricted-protocol={closed}",
        "--allow-gpu-metrics=false",
        "--disable-auto-complete-config",
        "--exit-timeout-secs=10",
    ]


def _process_environment(environment: ServerEnvironment) -> dict[str, str]:
    variables = dict(os.environ)
    libraries = [str(folder) for folder in environment.library_folders]
    variables["LD_LIBRARY_PATH"] = ":".join([*libraries, *filter(None, [variables.get("LD_LIBRARY_PATH")])])
    # The stubs of the Python models ignore PYTHONPATH and PYTHONHOME: they take the environment of the first python3 on the PATH.
    variables["PATH"] = ":".join([str(environment.python.parent), *filter(None, [variables.get("PATH")])])
    return variables


def _answers(url: str) -> bool:
    # No proxy: the server is on this machine, whatever the environment says about the way out.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end_group(group: int) -> None:
    """Wait a moment for the rest of a process group to end, then kill it."""
    if not _group_ends(group, 2.0):
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        _group_ends(group, 2.0)  # only zombies can be left after that, where nobody reaps them


def _group_ends(group: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False
