"""Tiny checkpoints, each exported once by the command for all tests here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hero_export import export_bundle
from hero_export.cli import app
from hero_export.onnx import forms
from hero_export.onnx.graphs import Graph
from hero_train.model.hero import HeroModel
from tests.integration.export.exported import OPERATORS, OPTIONS, Exported
from tests.tiny_checkpoint import (
    ANSWERS,
    CAPTION_TOKENS,
    CONFIG,
    GEOMETRY,
    MAX_BATCH,
    TEXT_GEOMETRY,
    make_task_model,
    write_checkpoint,
    write_frame_encoder,
    write_model,
)
from tests.tiny_training import load_run, write_training_set


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("export")
    checkpoint = write_checkpoint(folder / "checkpoint")
    result = CliRunner().invoke(app, ["onnx", str(checkpoint), "--out", str(folder / "bundle"), *OPTIONS])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in folder.iterdir()) == ["bundle", "checkpoint"]
    return Exported(checkpoint, folder / "bundle", json.loads(result.stdout), result.stderr)


@pytest.fixture(scope="session", params=list(OPERATORS))
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def exported_task(task: str, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("task")
    checkpoint = write_model(folder / "checkpoint", make_task_model(task))
    geometry = TEXT_GEOMETRY
    options = [
        *("--slots", str(geometry.slots), "--frames", str(geometry.frames)),
        *("--temporal-slots", str(geometry.temporal_slots), "--query-tokens", str(geometry.query_tokens)),
        *("--answers", str(ANSWERS), "--caption-tokens", str(CAPTION_TOKENS)),
        *("--max-batch", str(MAX_BATCH), "--operators", OPERATORS[task], "--json"),
    ]
    result = CliRunner().invoke(app, ["onnx", str(checkpoint), "--out", str(folder / "bundle"), *options])
    assert result.exit_code == 0, result.output
    return Exported(checkpoint, folder / "bundle", json.loads(result.stdout), result.stderr)


@pytest.fixture(scope="session")
def model(exported: Exported) -> HeroModel:
    return HeroModel.from_pretrained(exported.checkpoint)


@pytest.fixture
def copied(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """``export_bundle`` on the same checkpoint; the graphs are copied from the first export, which saves seconds per test."""

    def copy_graph(graph: Graph, path: Path) -> None:
        shutil.copyfile(exported.bundle / graph.file, path)

    monkeypatch.setattr(forms, "export_graph", copy_graph)

    def run(out: Path, **options: object) -> object:
        return export_bundle(exported.checkpoint, out, geometry=GEOMETRY, max_batch=MAX_BATCH, **options)  # type: ignore[arg-type]

    return run


@pytest.fixture
def copy(exported: Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported.bundle, tmp_path / "copy"))


@pytest.fixture(scope="session")
def training_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short videos with annotations of every task, whose features are of the tiny checkpoints' frame encoder."""
    folder = write_training_set(tmp_path_factory.mktemp("data"))
    write_frame_encoder(folder / "encoder", CONFIG.feature_dim)
    return folder


@pytest.fixture(scope="session")
def data(training_set: Path) -> Path:
    """The run of the retrieval bundle, on the training set."""
    load_run(training_set, "retrieval")
    return training_set / "retrieval.yaml"
