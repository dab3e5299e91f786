"""What ``hero-export onnx`` writes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.numpy import load_file
from typer.main import get_command

from hero_export.cli import app
from hero_export.dry_run import plan_export
from hero_sdk.graph_files import SIZES
from hero_sdk.manifest import read_bundle
from tests.integration.export.exported import GRAPHS, Exported, content
from tests.tiny_checkpoint import GEOMETRY, MAX_BATCH


def test_the_manifest_lists_every_file_with_its_size_and_sha256(exported: Exported) -> None:
    manifest = json.loads((exported.bundle / "manifest.json").read_text(encoding="utf-8"))
    found = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name, (data, _) in content(exported.bundle).items()
        if name != "manifest.json"
    }
    assert manifest["files"] == found
    assert sorted(found) == [
        "frame_encoder/frame_encoder.json",
        "frame_encoder/frame_encoder.onnx",
        *(f"graphs/{name}.onnx" for name in sorted(GRAPHS)),
        "reports/export.json",
        "reports/export.md",
        "reports/reproduce.sh",
        "tokenizer.json",
    ]
    assert manifest["geometry"] == dataclasses.asdict(GEOMETRY)
    # In the order in which a video passes them, in the report as well.
    batches = [("frames", 32), *((name, MAX_BATCH) for name in GRAPHS)]
    assert [(name, graph["max_batch"]) for name, graph in manifest["graphs"].items()] == batches
    assert [(graph["name"], graph["max_batch"]) for graph in exported.report["graphs"]] == batches


def test_every_tensor_of_every_graph_is_held_to_the_sizes_of_the_manifest(exported: Exported) -> None:
    """One that the table lacks would be left unchecked when a bundle is read."""
    for name, graph in read_bundle(exported.bundle).graphs.items():
        # The temporal graph of other tasks reads texts as well.
        others = {"token_ids"} if name == "temporal" else set()
        assert {tensor.name for tensor in (*graph.inputs, *graph.outputs)} == set(SIZES[name]) - others


def test_tokenizer_and_frame_encoder_are_the_checkpoints(exported: Exported) -> None:
    for name in ("tokenizer.json", "frame_encoder/frame_encoder.onnx", "frame_encoder/frame_encoder.json"):
        assert (exported.bundle / name).read_bytes() == (exported.checkpoint / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "fused"),
    [
        ("cross_modal", {"Attention": 2, "LayerNormalization": 7, "Gelu": 2}),
        ("temporal", {"Attention": 1, "LayerNormalization": 4, "Gelu": 1}),
        ("query", {"Attention": 3, "LayerNormalization": 8, "Gelu": 2}),
        ("moment", {}),
    ],
)
def test_graphs_are_valid_onnx_of_the_standard_alone_with_fused_operators(
    exported: Exported, name: str, fused: dict[str, int]
) -> None:
    path = exported.bundle / "graphs" / f"{name}.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    graph = onnx.load(str(path))
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", 23)]
    assert not graph.functions
    counts = Counter(node.op_type for node in graph.graph.node)
    assert {operator: counts[operator] for operator in fused} == fused
    assert counts["Softmax"] == (1 if name == "query" else 0)
    manifest = json.loads((exported.bundle / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["graphs"][name]["fused"] == fused
    reported = next(graph for graph in exported.report["graphs"] if graph["name"] == name)
    assert reported["fused"] == reported["expected"] == fused
    assert reported["operators"] == counts


def test_graphs_say_nothing_about_the_machine_that_exported_them(exported: Exported) -> None:
    for name in GRAPHS:
        data = (exported.bundle / "graphs" / f"{name}.onnx").read_bytes()
        for path in (Path(__file__).parents[2], Path(torch.__file__).parent, exported.checkpoint):
            assert str(path).encode() not in data


def test_the_report_has_every_case_of_the_grid_with_its_errors(exported: Exported) -> None:
    written = json.loads((exported.bundle / "reports" / "export.json").read_text(encoding="utf-8"))
    assert all(stage["seconds"] >= 0 and stage["peak_bytes"] > 0 for stage in exported.report["stages"])
    assert exported.report["stages"]
    # What the export took is told and not kept: the same checkpoint gives the same bundle.
    assert {**exported.report, "stages": []} == written
    cases = exported.report["cases"]
    names = {(case["graph"], case["case"]) for case in cases}
    for graph in GRAPHS:
        assert {(graph, "batch of one"), (graph, "maximal batch"), (graph, "empty tail row")} <= names
    assert ("cross_modal", "one-token segment") in names
    assert ("cross_modal + temporal", "one-frame video") in names
    assert {case["batch"] for case in cases if case["case"] == "maximal batch"} == {MAX_BATCH}
    for case in cases:
        assert case["passed"]
        assert 0 <= case["mean_error"] <= case["max_error"] <= 1e-4 * case["scale"]
        assert case["cosine"] == pytest.approx(1, abs=1e-6)
    text = (exported.bundle / "reports" / "export.md").read_text(encoding="utf-8")
    assert text.count("| ok |") == len(cases)
    assert set(exported.report["tools"]) >= {"torch", "onnx", "onnxruntime"}


def test_the_stages_are_told_on_standard_error(exported: Exported) -> None:
    for stage in ("Reading the checkpoint", *(f"Exporting {name}" for name in GRAPHS), "Comparing the whole path"):
        assert stage in exported.stages


@pytest.mark.slow  # a second export by a process of its own
def test_the_script_makes_the_same_bytes_again(exported: Exported, tmp_path: Path) -> None:
    script = exported.bundle / "reports" / "reproduce.sh"
    text = script.read_text(encoding="utf-8")
    options = {name for option in get_command(app).commands["onnx"].params for name in option.opts}  # type: ignore[attr-defined]
    elsewhere = {"source", "--tokenizer", "--frame-encoder", "--force", "--dry-run", "--json"}
    elsewhere |= {"--precision", "--calibration", "--keep", "--require-signature"}  # a variant has a script of its own
    assert {word for word in text.split() if word.startswith("--")} >= options - elsewhere
    for path in (exported.checkpoint, Path(sys.prefix), Path(__file__).parents[3], tmp_path):
        assert str(path) not in text
    (tmp_path / "input").symlink_to(exported.checkpoint)
    variables = {"CHECKPOINT": "input", "OUT": "again", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", script], cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made, again = content(exported.bundle), content(tmp_path / "again")
    assert {name: data for name, (data, _) in again.items()} == {name: data for name, (data, _) in made.items()}


SHAPES = 256
"""Bytes of the small constants of a graph, such as shapes, which a dry run does not count."""


def test_a_dry_run_says_before_how_large_the_graphs_will_be(exported: Exported, tmp_path: Path) -> None:
    plan = plan_export(exported.checkpoint, tmp_path / "bundle", geometry=GEOMETRY, max_batch=MAX_BATCH)
    planned = {file.path: file for file in plan.files}
    assert set(planned) == set(content(exported.bundle))
    for name, (data, _) in content(exported.bundle).items():
        if planned[name].exact:
            assert planned[name].bytes == len(data)
    weights = load_file(exported.checkpoint / "model.safetensors")
    tables = sum(table.nbytes for name, table in weights.items() if "position" in name or "token_type" in name)
    for name in GRAPHS:
        weights = onnx.load(str(exported.bundle / "graphs" / f"{name}.onnx")).graph.initializer
        size = sum(onnx.numpy_helper.to_array(weight).nbytes for weight in weights)
        # What folding may take away: types go into positions, and of positions that are always the same only those remain.
        assert size - SHAPES <= planned[f"graphs/{name}.onnx"].bytes <= size + tables + SHAPES
    assert not list(tmp_path.iterdir())
