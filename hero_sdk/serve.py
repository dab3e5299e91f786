"""Serving a model repository with NVIDIA's ``tritonserver``, without a container.

    with running_server(repository) as server:
        hero_sdk.connect(server.grpc_url)

``serve`` is what ``hero serve REPO`` calls; ``python -m hero_sdk.serve --setup`` installs the server.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from hero_sdk.errors import HeroError, MissingPackageError
from hero_sdk.server_environment import LIBRARIES, create_server_environment, default_environment_path
from hero_sdk.triton_process import REPOSITORY_FILE, Server, check_repository, running_server

__all__ = ["NOT_INSTALLED", "Server", "create_server_environment", "docker_command", "main", "running_server", "serve"]

NOT_INSTALLED = 3
"""Exit code of ``serve`` when there is no Triton server to start."""

IMAGE = "nvcr.io/nvidia/tritonserver:25.12-py3"


def serve(
    repository: Path | str,
    *,
    host: str = "127.0.0.1",
    http_port: int = 8000,
    grpc_port: int = 8001,
    metrics_port: int = 8002,
    ready_timeout: float = 120,
    echo: Callable[[str], object] = print,
) -> int:
    """Serve a model repository until Ctrl-C or SIGTERM.

    Returns:
        0 when it was stopped, 1 when the server ended by itself, 3 when no server is installed (``echo`` then gets the
        commands that install one or run NVIDIA's image).

    Raises:
        InputError, ServerError: as ``running_server``.
    """
    repository = Path(repository).resolve()
    check_repository(repository)
    try:
        with ExitStack() as stack:
            stack.enter_context(_stop_signals())
            echo(f"Starting Triton on {repository}")
            server = stack.enter_context(
                running_server(
                    repository,
                    host=host,
                    http_port=http_port,
                    grpc_port=grpc_port,
                    metrics_port=metrics_port,
                    ready_timeout=ready_timeout,
                )
            )
            echo(f"Ready: {server.grpc_url} (HTTP {server.http_url}, metrics {server.metrics_url})")
            echo(f"Log: {server.log_path}. Ctrl-C stops it.")
            while server.exit_code is None:
                time.sleep(0.2)
            echo(f"The Triton server ended with {server.exit_code}. Its log says:\n{server.log_tail()}")
            return 1
    except KeyboardInterrupt:
        echo("Stopped")
        return 0
    except MissingPackageError as error:
        echo(f"{error}\n\nOr run NVIDIA's image:\n\n{docker_command(repository, http_port, grpc_port, metrics_port)}")
        return NOT_INSTALLED


def docker_command(repository: Path, http_port: int = 8000, grpc_port: int = 8001, metrics_port: int = 8002) -> str:
    """The command that serves a repository with NVIDIA's image, for a shell."""
    about = json.loads((repository / REPOSITORY_FILE).read_text(encoding="utf-8"))
    gpu = about.get("device") == "gpu"
    server = "tritonserver --model-repository=/models"
    if about.get("backend") == "python":
        # The image has numpy and no onnxruntime in its Python; NVIDIA's ONNX Runtime backend needs none.
        version = next(line for line in LIBRARIES if line.startswith("onnxruntime") and ">=" in line).split(";")[0]
        package = version.replace("onnxruntime", "onnxruntime-gpu") if gpu else version
        server = f"bash -c 'pip install --break-system-packages {package} && exec {server}'"
    return (
        f"docker run --rm {'--gpus all ' if gpu else ''}--shm-size=1g \\\n"
        f"  -p {http_port}:8000 -p {grpc_port}:8001 -p {metrics_port}:8002 \\\n"
        f'  -v "{repository}:/models:ro" {IMAGE} \\\n'
        f"  {server}"
    )


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into KeyboardInterrupt; further ones must not disturb the stopping."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m hero_sdk.serve``: install the server, or serve a repository. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hero_sdk.serve", description="Serve a HERO model repository with Triton."
    )
    parser.add_argument("repository", nargs="?", type=Path, help="folder that `hero-export triton` wrote")
    parser.add_argument(
        "--setup", action="store_true", help=f"install NVIDIA's server into {default_environment_path()}"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    for name, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        parser.add_argument(f"--{name}-port", type=int, default=port, help="0 picks a free one (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    if not chosen.setup and chosen.repository is None:
        parser.error("name a repository, or use --setup")
    try:
        if chosen.setup:
            create_server_environment()
        if chosen.repository is None:
            return 0
        return serve(
            chosen.repository,
            host=chosen.host,
            http_port=chosen.http_port,
            grpc_port=chosen.grpc_port,
            metrics_port=chosen.metrics_port,
        )
    except HeroError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
