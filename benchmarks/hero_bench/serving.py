"""The Triton server of a measurement: one that runs already, or one of its own on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hero_bench.errors import BenchmarkError
from hero_export.triton import write_repository
from hero_sdk.errors import InputError
from hero_sdk.manifest import Manifest
from hero_sdk.serve import running_server


@contextmanager
def triton(bundle: Path, *, url: str | None, serve: bool, threads: int) -> Iterator[str | None]:
    """The address of the server to measure, or None when none was asked for.

    Args:
        bundle: what the server is to run.
        url: of a server that runs.
        serve: start one on 127.0.0.1, with free ports and a repository in a temporary folder, for the time of the block.
        threads: of one run on a server that is started.

    Raises:
        InputError: both were asked for.
        MissingPackageError, ServerError: no server is installed, or it does not become ready.
    """
    if url is not None and serve:
        raise InputError("Both --url and --serve are given; expected one: a server that runs, or a server of its own.")
    if not serve:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="hero-bench-") as folder:
        repository = write_repository(bundle, Path(folder) / "repository", threads=threads)
        with running_server(repository, host="127.0.0.1") as server:
            yield server.grpc_url


def require_same_bundle(served: Manifest, local: Manifest) -> None:
    """Refuse to compare a server that runs another bundle.

    Raises:
        BenchmarkError: the manifests differ.
    """
    if served != local:
        raise BenchmarkError(
            f"The server runs another bundle (fingerprint {served.fingerprint[:12]}) than the one named "
            f"({local.fingerprint[:12]}), or the same one with other shapes or files; expected the same manifest. "
            "Name the bundle that the server's repository was written from, or use --serve."
        )
