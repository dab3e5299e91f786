"""What the starting of a server says when something is missing, without starting one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hero_export.triton import Backend, Device, write_repository
from hero_sdk.errors import InputError, MissingPackageError, ServerError
from hero_sdk.serve import NOT_INSTALLED, docker_command, main, running_server, serve
from hero_sdk.server_environment import ENVIRONMENT_VARIABLE, create_server_environment, find_server_environment
from tests.tiny_bundle import write_tiny_bundle


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_repository(write_tiny_bundle(tmp_path / "bundle"), tmp_path / "repository")


@pytest.fixture
def no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "nowhere"))


@pytest.mark.usefixtures("no_server")
def test_without_a_server_it_says_how_to_get_one(repository: Path) -> None:
    said: list[str] = []
    assert serve(repository, grpc_port=9001, echo=said.append) == NOT_INSTALLED == 3
    text = "\n".join(said)
    assert "python -m hero_sdk.serve --setup" in text
    assert "docker run" in text
    assert "-p 9001:8001" in text
    with pytest.raises(MissingPackageError, match="not installed"), running_server(repository):
        pass


@pytest.mark.parametrize(
    ("backend", "device", "expected"),
    [
        ("python", "cpu", "pip install --break-system-packages onnxruntime=="),
        ("python", "gpu", "pip install --break-system-packages onnxruntime-gpu=="),
        ("onnxruntime", "gpu", "--gpus all"),
    ],
)
def test_the_docker_command_fits_the_repository(
    tmp_path: Path, backend: Backend, device: Device, expected: str
) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    command = docker_command(write_repository(bundle, tmp_path / "out", backend=backend, device=device))
    assert expected in command
    assert "--shm-size" in command
    assert ("pip install" in command) == (backend == "python")


def test_a_folder_that_is_no_repository_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"hero-export triton BUNDLE --out REPO"):
        serve(tmp_path)
    assert main([str(tmp_path)]) == 2
    assert "is not a model repository of HERO" in capsys.readouterr().err


def test_an_environment_is_not_made_over_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a virtual environment"):
        create_server_environment(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_interpreter_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"python3\.99.*could not be started"):
        create_server_environment(tmp_path / "new", python="python3.99", echo=lambda line: None)


def test_an_environment_without_the_server_is_named(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    interpreter = tmp_path / "bin" / "python"
    interpreter.write_text('#!/bin/sh\nexec /usr/bin/env python3 -S "$@"\n')
    interpreter.chmod(0o755)
    with pytest.raises(MissingPackageError, match="has no pytriton"):
        find_server_environment(tmp_path)
