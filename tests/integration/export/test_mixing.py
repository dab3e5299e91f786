"""``hero-export mix``: which layers may be kept, what a search leaves, and what it tells when it does not get there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hero_export.exit_codes import ExitCode
from hero_export.precision.calibration import read_calibration
from hero_export.precision.making import kept_by_graph
from hero_export.verification import mixing
from hero_export.verification.mixing import rank
from hero_sdk.manifest import read_bundle
from tests.integration.export.exported import Exported
from tests.unit.hero_export_command import RunExport, make_export_run


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunExport:
    return make_export_run(monkeypatch, capsys)


def calibrated(run: RunExport, bundle: Path, data: Path, folder: Path) -> Path:
    """A bundle with a variant in int8, and its calibration set."""
    done = run("calibrate", bundle, "--data", data, "--out", folder, "--rows", 8)
    assert done.code == 0, done.err
    done = run("onnx", bundle, "--precision", "int8", "--calibration", folder)
    assert done.code == 0, done.err
    return folder


def test_int8_is_judged_on_rows_of_the_split_and_mixed_when_the_task_asks_for_it(
    run: RunExport, exported: Exported, copy: Path, data: Path, tmp_path: Path
) -> None:
    calibration = calibrated(run, copy, data, tmp_path / "calibration")
    own = (copy, "--checkpoint", exported.checkpoint, "--data", data)
    done = run("verify", *own, "--report", tmp_path / "report", "--budget", 100, "--no-latency", "--json")
    assert done.code == 0, done.err
    cases = [case for case in done.report["cases"] if case["variant"] == "onnxruntime-int8"]
    judged = {case["result"]["case"] for case in cases if case["judged"]}
    assert judged == {"rows of the split"}
    assert len(cases) > 20
    worst = {one["graph"]: one["case"] for one in done.report["worst"] if one["variant"] == "onnxruntime-int8"}
    assert set(worst.values()) == judged

    found = run("mix", *own, "--calibration", calibration, "--budget", 0, "--trials", 3, "--json")
    search = copy / "reports" / "variants" / "onnxruntime-int8" / "search.json"
    if found.code == ExitCode.BUDGET:  # random weights: which layers matter is a matter of luck
        assert "Nothing was changed" in found.err
        assert "Tried: none: up to " in found.err
        assert not search.exists()
    else:
        assert found.code == 0, found.err
        assert found.report == json.loads(search.read_text(encoding="utf-8"))
        assert found.report["trail"][-1]["metric"] <= 0 or found.report["kept"] == []
    generous = run("mix", *own, "--calibration", calibration, "--budget", 100, "--json").report
    assert (generous["kept"], generous["reached"], len(generous["trail"])) == ([], True, 1)
    assert run("inspect", copy).code == 0

    refused = run("mix", *own, "--calibration", calibration, "--precision", "bf16")
    assert refused.code == ExitCode.INPUT
    assert "onnxruntime does not run bf16 on a CPU" in refused.err
    whole = ("--engine", "openvino", "--precision", "bf16", "--budget", 100, "--json")
    graphs = run("mix", *own, "--calibration", calibration, *whole).report
    assert (graphs["kept"], graphs["reached"]) == ([], True)
    assert "openvino-bf16" in read_bundle(copy).variants


def test_a_search_that_does_not_get_there_tells_what_it_tried(
    run: RunExport, exported: Exported, copy: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = calibrated(run, copy, data, tmp_path / "calibration")
    monkeypatch.setattr(mixing, "TaskMetric", lambda *_: lambda kept: len(kept) / 8 - 3)
    own = (copy, "--checkpoint", exported.checkpoint, "--data", data, "--calibration", calibration)
    before = (copy / "manifest.json").read_bytes()
    found = run("mix", *own, "--trials", 3)
    assert found.code == ExitCode.BUDGET
    tried = "none: up to 3.00; the most sensitive: up to 2.88; the 2 most sensitive: up to 2.75."
    assert f"Tried: {tried}" in found.err
    assert (copy / "manifest.json").read_bytes() == before


def test_what_may_be_kept_is_what_an_engine_can_keep(
    run: RunExport, exported: Exported, copy: Path, data: Path, tmp_path: Path
) -> None:
    folder = calibrated(run, copy, data, tmp_path / "calibration")
    manifest = read_bundle(copy)
    rows = read_calibration(folder, manifest)
    layers = rank(copy, manifest, "onnxruntime", "int8", rows)
    assert {layer.partition(":")[0] for layer in layers} == {"cross_modal", "temporal", "query"}
    assert all(":" in layer for layer in layers)
    attentions = rank(copy, manifest, "openvino", "int8", rows)[len(layers) :]
    assert attentions[0] == "cross_modal:cross_modal.layers.0.attention"
    assert kept_by_graph(copy, manifest, attentions).keys() == manifest.graphs.keys(), "--keep takes each"
    assert len(attentions) == sum(
        manifest.graphs[name].fused["Attention"] for name in ("cross_modal", "temporal", "query")
    )
    graphs = rank(copy, manifest, "openvino", "bf16", rows)
    assert set(graphs) <= set(manifest.graphs) - {"frames"}
    assert {"cross_modal", "temporal", "query"} <= set(graphs)
