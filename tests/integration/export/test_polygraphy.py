"""NVIDIA's Polygraphy reads and runs the graphs of every task, on our inputs, and computes what the SDK computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from polygraphy.comparator import RunResults
from polygraphy.json import save_json

from hero_export.onnx.graphs import graphs_of
from hero_export.verification.cases import CaseMaker
from hero_sdk.engines.local import LocalEngine
from hero_sdk.manifest import FRAME_GRAPH, Manifest, read_bundle
from hero_train.model.hero import HeroEncoders, HeroModel
from tests.integration.export.exported import Exported
from tests.tiny_checkpoint import ANSWERS, CAPTION_TOKENS, MAX_BATCH, make_task_model

TOLERANCE = 1e-5


def polygraphy(*arguments: object) -> str:
    """What the command prints, the program that it names in its documentation."""
    command = [str(Path(sys.executable).with_name("polygraphy")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(bundle: Path, model: HeroEncoders, folder: Path) -> None:
    """Inspect each graph; run it in Polygraphy's onnxruntime on inputs of the grid, and compare with the SDK's outputs."""
    manifest = read_bundle(bundle)
    graphs = graphs_of(model, manifest.geometry, answers=ANSWERS, caption_tokens=CAPTION_TOKENS)
    maker = CaseMaker(model.config, manifest.geometry, MAX_BATCH)
    with LocalEngine(bundle, threads=1) as engine:
        for name, spec in manifest.graphs.items():
            path = bundle / spec.file
            shown = polygraphy("inspect", "model", path, "--show", "layers")
            for tensor in (*spec.inputs, *spec.outputs):
                assert tensor.name in shown
            if name == FRAME_GRAPH:
                continue
            batches = [case.inputs for case in maker.cases_of(graphs[name])[:2]]
            inputs, outputs = folder / f"{name}-inputs.json", folder / f"{name}-outputs.json"
            save_json(batches, str(inputs))
            polygraphy(
                *("run", path, "--onnxrt", "--providers", "cpu", "--load-inputs", inputs, "--save-outputs", outputs)
            )
            compare(engine, name, batches, RunResults.load(str(outputs)), manifest)


def compare(
    engine: LocalEngine, name: str, batches: list[dict[str, np.ndarray]], results: RunResults, manifest: Manifest
) -> None:
    ((_, iterations),) = results.items()
    assert len(iterations) == len(batches)
    for inputs, iteration in zip(batches, iterations, strict=True):
        expected = engine.run(name, inputs)
        for tensor in manifest.graphs[name].outputs:
            found = np.asarray(iteration[tensor.name])
            assert found.shape == expected[tensor.name].shape
            np.testing.assert_allclose(found, expected[tensor.name], rtol=TOLERANCE, atol=TOLERANCE)


def test_polygraphy_runs_the_graphs_of_retrieval(exported: Exported, model: HeroModel, tmp_path: Path) -> None:
    check(exported.bundle, model, tmp_path)


def test_polygraphy_runs_the_graphs_of_every_other_task(task: str, exported_task: Exported, tmp_path: Path) -> None:
    check(exported_task.bundle, make_task_model(task), tmp_path)
