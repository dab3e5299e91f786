"""What integration tests share: a real Triton server on a tiny bundle, and a training set; each is made once.

The server needs the server's environment: ``python -m hero_sdk.serve --setup``. Without it these tests fail; they never skip.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hero_export.triton import write_repository
from hero_sdk.serve import Server, running_server
from tests.tiny_bundle import write_tiny_bundle
from tests.tiny_training import write_training_set


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle", external_weights=True)


@pytest.fixture(scope="session")
def tiny_repository(tiny_bundle: Path) -> Path:
    # A longer wait than the default, so that requests of a slow machine meet in the queue.
    return write_repository(tiny_bundle, tiny_bundle.parent / "repository", queue_delay=0.005)


@pytest.fixture(scope="session")
def triton_server(tiny_repository: Path) -> Iterator[Server]:
    with running_server(tiny_repository) as server:
        yield server


@pytest.fixture(scope="session")
def training_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, subtitles and annotations of every task; runs keep the features there, so that they are extracted once."""
    return write_training_set(tmp_path_factory.mktemp("set"))
