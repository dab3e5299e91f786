"""``hero-export calibrate`` and ``hero-export onnx --precision`` on a bundle of every task; the SDK runs what comes out."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from typer.testing import CliRunner

import hero_sdk
from hero_export.cli import app
from hero_export.precision import making
from hero_export.precision.calibration import read_calibration
from hero_export.precision.cast import cast_file
from hero_export.precision.readback import read_precision
from hero_sdk.engines.local import LocalEngine
from hero_sdk.errors import BundleError
from hero_sdk.manifest import FRAME_GRAPH, read_bundle
from tests.integration.export.exported import Exported, content
from tests.precision_data import write_run
from tests.tiny_checkpoint import CONFIG, SENTENCES
from tests.unit.hero_export_command import RunExport, make_export_run

PRECISIONS = ("fp16", "bf16", "int8", "int8-dynamic")

MEAN_ERROR = {"fp16": 2e-3, "bf16": 2e-2, "int8": 0.05, "int8-dynamic": 0.05}
"""Of an output, as a share of its mean; the weights are random and large."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunExport:
    return make_export_run(monkeypatch, capsys)


def invoke(*arguments: object) -> dict:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def calibrated(bundle: Path, folder: Path) -> Path:
    run = write_run(folder / "data", read_bundle(bundle).task, CONFIG.feature_dim)
    invoke("calibrate", bundle, "--data", run, "--out", folder / "calibration", "--rows", 5, "--threads", 1)
    return folder / "calibration"


def check_precisions(bundle: Path, folder: Path) -> None:
    before = content(bundle)
    manifest = read_bundle(bundle)
    calibration = calibrated(bundle, folder)
    rows = read_calibration(calibration, manifest)
    assert set(rows.record.graphs) == set(manifest.graphs) - {FRAME_GRAPH}
    options = [word for precision in PRECISIONS for word in ("--precision", precision)]
    out = folder / "amended"
    report = invoke("onnx", bundle, "--out", out, "--calibration", calibration, *options)
    assert content(bundle) == before
    amended = read_bundle(out)
    assert set(amended.variants) == {f"onnxruntime-{precision}" for precision in PRECISIONS}
    assert amended.fingerprint == manifest.fingerprint
    for told in report["variants"]:
        name, precision = told["variant"], told["precision"]
        variant = amended.variants[name]
        assert variant.precision == precision
        assert set(variant.graphs) | set(told["left"]) == set(manifest.graphs)
        for graph, spec in variant.graphs.items():
            assert (spec.precision, spec.fused) == (precision, manifest.graphs[graph].fused)
            assert read_precision(out / spec.file).counts() == spec.products
        for one in told["graphs"]:
            assert max(error["mean"] for error in one["errors"]) < MEAN_ERROR[precision], one
            assert bool(one["executed"]) == (precision != "bf16")
        place = out / "reports" / "variants" / name
        assert json.loads((place / "precision.json").read_text(encoding="utf-8")) == told
        script = (place / "reproduce.sh").read_text(encoding="utf-8")
        assert f'--precision {precision} --calibration "$CALIBRATION"' in script
        assert str(folder) not in script
    check_runs(out, rows)


def check_runs(bundle: Path, rows: object) -> None:
    """The SDK's engine runs each variant, and gets what the bundle's own graphs give, to the precision's rounding."""
    manifest = read_bundle(bundle)
    with LocalEngine(bundle, threads=1) as engine:
        expected = {graph: engine.run(graph, rows.arrays(graph)) for graph in rows.record.graphs}  # type: ignore[attr-defined]
    for precision in ("fp16", "int8", "int8-dynamic"):
        with LocalEngine(bundle, variant=f"onnxruntime-{precision}", threads=1) as engine:
            for graph, outputs in expected.items():
                found = engine.run(graph, rows.arrays(graph))  # type: ignore[attr-defined]
                same = all(np.array_equal(found[name], outputs[name]) for name in outputs)
                assert same == (graph not in manifest.variants[f"onnxruntime-{precision}"].graphs)
                assert all(np.isfinite(array).all() for array in found.values())
    with (
        LocalEngine(bundle, variant="onnxruntime-bf16", threads=1) as engine,
        pytest.raises(BundleError, match="cannot be opened by onnxruntime"),
    ):
        engine.run("cross_modal", rows.arrays("cross_modal"))  # type: ignore[attr-defined]


def test_a_bundle_for_retrieval_in_every_precision(exported: Exported, tmp_path: Path) -> None:
    check_precisions(exported.bundle, tmp_path)
    texts = SENTENCES[:3]
    with hero_sdk.load(tmp_path / "amended", threads=1) as exact:
        expected = exact.encode_queries(texts)
    for precision in ("fp16", "int8"):
        with hero_sdk.load(tmp_path / "amended", variant=f"onnxruntime-{precision}", threads=1) as hero:
            for query, wanted in zip(hero.encode_queries(texts), expected, strict=True):
                cosine = query.vector @ wanted.vector / np.linalg.norm(query.vector) / np.linalg.norm(wanted.vector)
                assert cosine > 0.999
                assert (query.vector != wanted.vector).any()


def test_a_bundle_of_another_task_in_every_precision(exported_task: Exported, tmp_path: Path) -> None:
    check_precisions(exported_task.bundle, tmp_path)


def test_a_checkpoint_is_exported_with_its_precisions(exported: Exported, copied: object, tmp_path: Path) -> None:
    """``copied`` spares the time of torch's exporter."""
    shapes = ["--slots", 32, "--frames", 16, "--temporal-slots", 30, "--query-tokens", 12, "--max-batch", 4]
    arguments = ["onnx", exported.checkpoint, "--out", tmp_path / "bundle", *shapes]
    report = invoke(*arguments, "--precision", "fp32", "--precision", "fp16", "--keep", "layers.0.output")
    assert report["fingerprint"] == exported.report["fingerprint"]
    (variant,) = report["variants"]
    assert variant["inputs"] == "noise"
    kept = {one["graph"]: one["kept"] for one in variant["graphs"]}
    assert kept["temporal"] == ["temporal.layers.0.output"]
    assert kept["moment"] == []
    assert list(read_bundle(tmp_path / "bundle").variants) == ["onnxruntime-fp16"]
    planned = invoke(*arguments[:2], "--out", tmp_path / "planned", *shapes, "--precision", "fp16", "--dry-run")
    assert planned["files"][-1]["path"] == "variants/onnxruntime-fp16/"
    assert not (tmp_path / "planned").exists()


def test_a_bundle_is_amended_in_its_place(copy: Path, run: RunExport) -> None:
    planned = run("onnx", copy, "--precision", "fp16", "--dry-run")
    assert planned.code == 0, planned.err
    assert "variants/onnxruntime-fp16/query.onnx" in planned.out
    assert not read_bundle(copy).variants
    (copy / "manifest.sig").write_bytes(b"0" * 64)
    done = run("onnx", copy, "--precision", "fp16", "--keep", "query:query.projection")
    assert done.code == 0, done.err
    assert "Its signature is gone" in done.out
    assert not (copy / "manifest.sig").exists()
    assert "runs them in fp32: the variant is smaller" in " ".join(done.out.split())
    manifest = read_bundle(copy)
    assert manifest.variants["onnxruntime-fp16"].graphs["query"].products["fp32"] == 1
    assert "fp32" not in manifest.variants["onnxruntime-fp16"].graphs["temporal"].products
    script = copy / "reports" / "variants" / "onnxruntime-fp16" / "reproduce.sh"
    assert "--keep query:query.projection" in script.read_text(encoding="utf-8")
    environment = {"BUNDLE": str(copy), "OUT": str(copy.parent / "again"), "PATH": "/usr/bin:/bin"}
    checked = subprocess.run(
        ["sh", "-c", script.read_text(encoding="utf-8").replace("hero-export", "echo hero-export")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr  # the sums of the bundle's graphs are right


def test_a_graph_whose_layers_are_all_kept_stays_in_fp32(copy: Path) -> None:
    report = invoke("onnx", copy, "--precision", "int8-dynamic", "--keep", "query:model")
    assert report["variants"][0]["left"]["query"] == "all of its layers are kept"
    assert set(read_bundle(copy).variants["onnxruntime-int8-dynamic"].graphs) == {"frames", "cross_modal", "temporal"}


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 3, "is a bundle, which has its graphs in fp32; expected --precision"),
        (("--precision", "fp32"), 3, "is a bundle, which has its graphs in fp32"),
        (("--precision", "fp16", "--slots", 64), 3, "found --slots, which only the export of a checkpoint has"),
        (("--precision", "int8"), 4, "there is no calibration set"),
        (("--precision", "int8", "--calibration", "nowhere"), 4, "expected a calibration set"),
        (("--precision", "fp16", "--keep", "layers.9"), 3, "has no layer 'layers.9'"),
        (("--precision", "fp16", "--keep", "nothing:layers.0"), 3, "Graph 'nothing' has no layer"),
        (("--precision", "int3"), 2, "int3"),
    ],
)
def test_what_cannot_be_made_leaves_the_bundle_as_it_was(
    options: tuple[object, ...], code: int, message: str, copy: Path, run: RunExport
) -> None:
    before = content(copy)
    done = run("onnx", copy, *options)
    assert done.code == code
    assert message in done.err
    assert content(copy) == before


def test_a_stale_calibration_is_refused_by_the_command(
    exported: Exported, copy: Path, tmp_path: Path, run: RunExport
) -> None:
    """Exported with other row shapes, the same checkpoint gives other graphs."""
    calibration = calibrated(exported.bundle, tmp_path)
    record = json.loads((calibration / "calibration.json").read_text(encoding="utf-8"))
    record["graphs"]["query"]["graph"] = record["graphs"]["temporal"]["graph"]
    (calibration / "calibration.json").write_text(json.dumps(record), encoding="utf-8")
    before = content(copy)
    done = run("onnx", copy, "--precision", "int8", "--calibration", calibration)
    assert done.code == 4
    assert "CalibrationError: Stale calibration" in done.err
    assert content(copy) == before
    assert run("onnx", exported.checkpoint, "--precision", "fp16").code == 3  # no --out


def copied_unchanged(source: Path, target: Path, *_: object, **__: object) -> frozenset[str]:
    """A converter that falls back to fp32 without a word."""
    shutil.copyfile(source, target)
    return frozenset()


def with_an_infinity(source: Path, target: Path, precision: str, **options: object) -> None:
    """A cast that lets a weight go beyond the range."""
    cast_file(source, target, precision, **options)  # type: ignore[arg-type]

    def spoil(model: onnx.ModelProto) -> None:
        weight = max(model.graph.initializer, key=lambda one: np.prod(one.dims))
        weight.CopyFrom(numpy_helper.from_array(np.full(tuple(weight.dims), np.inf, np.float16), weight.name))

    rewrite_file(target, spoil)


def with_a_norm_taken_apart(source: Path, target: Path, precision: str, **options: object) -> None:
    """A cast that loses a fused operator: a norm that is spelt out."""
    cast_file(source, target, precision, **options)  # type: ignore[arg-type]

    def spoil(model: onnx.ModelProto) -> None:
        nodes = list(model.graph.node)
        place = next((number for number, node in enumerate(nodes) if node.op_type == "LayerNormalization"), None)
        if place is not None:
            nodes[place] = helper.make_node("Identity", nodes[place].input[:1], nodes[place].output)
            del model.graph.node[:]
            model.graph.node.extend(nodes)

    rewrite_file(target, spoil)


def rewrite_file(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(str(path))
    change(model)
    onnx.save(model, str(path))


@pytest.mark.parametrize(
    ("name", "sabotage", "precision", "message"),
    [
        ("quantise_file", copied_unchanged, "int8-dynamic", "is not in int8-dynamic: it has 0.0% of its multiply-adds"),
        ("cast_file", copied_unchanged, "bf16", "is not in bf16: it has 0.0% of its multiply-adds"),
        ("cast_file", with_an_infinity, "fp16", "in fp16 differs from fp32 by inf"),
        ("cast_file", with_a_norm_taken_apart, "fp16", "FusionError: Graph 'cross_modal' has the fused operators"),
    ],
)
def test_a_converter_that_does_something_else_is_caught(
    name: str,
    sabotage: Callable[..., object],
    precision: str,
    message: str,
    copy: Path,
    run: RunExport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(making, name, sabotage)
    before = content(copy)
    done = run("onnx", copy, "--precision", precision)
    assert done.code == 6, done.err
    assert message in done.err
    assert content(copy) == before
