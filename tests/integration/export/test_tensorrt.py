"""Plans that TensorRT for RTX really builds: of every graph of every task, for GPUs that are not here, and what must be refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import onnx_ir
import pytest
from typer.testing import CliRunner, Result

from hero_export import export_bundle
from hero_export.bundles import export as bundle_module
from hero_export.cli import app
from hero_export.errors import BuildError, CalibrationError, PrecisionError
from hero_export.exit_codes import ExitCode, exit_code_of
from hero_export.frame_encoder import packaged_graph
from hero_export.onnx.export import export_graph
from hero_export.onnx.graphs import graphs_of
from hero_export.precision.calibration import CALIBRATION_FILE, write_calibration
from hero_export.precision.cast import cast_graph
from hero_export.tensorrt import prepare
from hero_export.tensorrt.adapt import adapt_graph
from hero_export.tensorrt.build import build_plan
from hero_export.tensorrt.cache import PLAN_FILE
from hero_export.tensorrt.module import PORTABLE, PlanOptions, TensorRT, find_tensorrt
from hero_export.tensorrt.plans import PlanRequest, add_plans
from hero_export.tensorrt.ranges import largest_values
from hero_export.verification.cases import CaseMaker
from hero_sdk import load
from hero_sdk.errors import BundleError, EngineError, FingerprintError, HeroError
from hero_sdk.manifest import MANIFEST_FILE, RETRIEVAL, TASK_GRAPHS, read_bundle
from hero_train.model.hero import HeroModel
from tests.integration.export.exported import Exported, content
from tests.tiny_checkpoint import (
    ANSWERS,
    CAPTION_TOKENS,
    GEOMETRY,
    MAX_BATCH,
    TEXT_GEOMETRY,
    make_task_model,
    write_model,
)

TARGETS = ("sm80", "sm86", "sm89", "sm120")
NAME = "tensorrt_rtx-fp16-sm86"


@pytest.fixture(scope="session")
def tensorrt() -> TensorRT:
    return find_tensorrt("tensorrt_rtx")


@pytest.fixture(scope="session", params=list(TASK_GRAPHS))
def task_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of each task; that its graphs are right is tested elsewhere."""
    if request.param == RETRIEVAL:
        return Path(request.getfixturevalue("exported").bundle)
    folder = tmp_path_factory.mktemp("task")
    checkpoint = write_model(folder / "checkpoint", make_task_model(request.param))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle_module, "_verify", lambda *arguments: [])
        export_bundle(
            checkpoint,
            folder / "bundle",
            geometry=TEXT_GEOMETRY,
            max_batch=MAX_BATCH,
            answers=ANSWERS,
            caption_tokens=CAPTION_TOKENS,
        )
    return folder / "bundle"


@pytest.fixture(scope="session")
def with_plans(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for retrieval with plans for one kind of GPU."""
    out = tmp_path_factory.mktemp("plans") / "bundle"
    add_plans(exported.bundle, PlanRequest(targets=("sm86",)), out=out)
    return out


@pytest.fixture
def planned(with_plans: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(with_plans, tmp_path / "planned"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["tensorrt", *map(str, arguments)])


def code_of(done: Result) -> ExitCode:
    assert isinstance(done.exception, HeroError), done.output
    return exit_code_of(done.exception)


@pytest.mark.slow  # builds some twenty plans for each task
def test_every_graph_of_every_task_is_built_in_fp16_for_every_target(task_bundle: Path, tmp_path: Path) -> None:
    targets = [word for target in TARGETS for word in ("--target", target)]
    done = run(task_bundle, *targets, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    manifest = read_bundle(tmp_path / "out")
    names = [f"tensorrt_rtx-fp16-{target}" for target in TARGETS]
    graphs = TASK_GRAPHS[manifest.task]
    assert [(plan["variant"], plan["graph"]) for plan in told["plans"]] == [
        (name, graph) for name in names for graph in graphs
    ]
    assert list(manifest.variants) == names
    for name, target in zip(names, TARGETS, strict=True):
        variant = manifest.variants[name]
        assert (variant.engine, variant.precision, variant.target) == ("tensorrt_rtx", "fp16", target)
        assert variant.builder == told["builder"] == find_tensorrt("tensorrt_rtx").builder
        assert tuple(variant.graphs) == graphs
        for graph, built in variant.graphs.items():
            assert built.precision == "fp16"
            assert set(built.products) == {"fp16"}
            assert built.source == manifest.files[manifest.graphs[graph].file].sha256
    for plan in told["plans"]:
        assert plan["products"] == manifest.variants[plan["variant"]].graphs[plan["graph"]].products
        assert plan["bytes"] == manifest.files[plan["file"]].bytes == (tmp_path / "out" / plan["file"]).stat().st_size
        # Of all attentions only those of a single query have no fused kernel; a caption's step has two in each layer.
        assert len(plan["unfused"]) == (2 if plan["graph"] == "caption_step" else 0)
        assert not plan["cached"]
        assert plan["engine"] == {}  # no GPU here to ask
    assert read_bundle(task_bundle).variants == {}


@pytest.mark.slow  # exports a network of 49 convolutions
def test_the_packaged_frame_encoder_is_built_with_images_as_bytes(tensorrt: TensorRT, tmp_path: Path) -> None:
    path = tmp_path / "frames.onnx"
    export_graph(packaged_graph(), path)
    with pytest.raises(BuildError, match=r"cannot read graph 'frames': Transpose 'node_permute'.*UInt8"):
        build_plan(tensorrt, path, "frames", "fp32", PlanOptions("sm86", 32, 32))
    model = onnx_ir.load(path)
    adapt_graph(model, "frames")
    cast_graph(model, "fp16")
    onnx_ir.save(model, path)
    for target in TARGETS:
        plan = build_plan(tensorrt, path, "frames", "fp16", PlanOptions(target, 32, 32))
        assert plan.products == {"fp16": 49}


def test_an_attention_in_fp32_is_refused_by_name_and_the_bundle_stays_as_it_was(exported: Exported, copy: Path) -> None:
    before = content(copy)
    done = run(copy, "--target", "sm86", "--precision", "fp32")
    assert code_of(done) == ExitCode.VERIFICATION
    assert isinstance(done.exception, BuildError)
    message = str(done.exception)
    for part in (
        "cannot build graph 'cross_modal' for sm86",
        "of cross_modal.layers.0.attention",
        "of cross_modal.layers.1.attention",
        "FLOAT (-1, 2, 32, 16)",
        "not supported by a dedicated kernel",
        "fp16 and bf16",
    ):
        assert part in message
    assert content(copy) == before


def test_only_the_attentions_that_are_to_blame_are_named(
    exported: Exported, tensorrt: TensorRT, tmp_path: Path
) -> None:
    """One layer of two has its attention, and all that goes into it, in fp32."""
    layer = "cross_modal.layers.1.attention"
    model = onnx_ir.load(exported.bundle / "graphs" / "cross_modal.onnx")
    cast_graph(model, "fp16", keep=[layer])
    onnx_ir.save(model, tmp_path / "mixed.onnx")
    options = PlanOptions("sm86", MAX_BATCH, MAX_BATCH)
    kept = [layer, *(f"{layer}.{part}" for part in ("query", "key", "value", "output"))]
    with pytest.raises(BuildError) as caught:
        build_plan(tensorrt, tmp_path / "mixed.onnx", "mixed", "fp16", options, excused=kept)
    assert re.search(rf"because of Attention '\w+' of {layer} \(FLOAT", str(caught.value))
    assert "cross_modal.layers.0.attention" not in str(caught.value)


def test_a_graph_in_another_precision_than_was_asked_for_is_refused(exported: Exported, tensorrt: TensorRT) -> None:
    path = exported.bundle / "graphs" / "temporal.onnx"
    with pytest.raises(PrecisionError, match=r"'temporal' is not in fp16: it has 0\.0%.*in fp32"):
        build_plan(tensorrt, path, "temporal", "fp16", PlanOptions("sm86", MAX_BATCH, MAX_BATCH))


def test_a_dry_run_names_what_is_written_then(copy: Path, with_plans: Path) -> None:
    before = content(copy)
    done = run(copy, "--target", "SM86", "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    assert content(copy) == before
    planned = {file["path"] for file in json.loads(done.stdout)["files"]}
    written = {name for name in read_bundle(with_plans).files if "variants/" in name}
    assert planned == {*written, MANIFEST_FILE}


def test_plans_are_built_again_with_the_script_that_lies_beside_them(with_plans: Path, exported: Exported) -> None:
    folder = with_plans / "reports" / "variants" / NAME
    script = (folder / "reproduce.sh").read_text()
    assert 'hero-export tensorrt "$BUNDLE" --out "$OUT" --module tensorrt_rtx --precision fp16 --target sm86' in script
    manifest = read_bundle(exported.bundle)
    assert all(manifest.files[spec.file].sha256 in script for spec in manifest.graphs.values())
    assert len(json.loads((folder / "build.json").read_text())["plans"]) == len(manifest.graphs)


def test_cached_plans_are_not_built_again_and_a_wrong_one_is_refused(exported: Exported, tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    options = (exported.bundle, "--hardware-compatible", "--opt-batch", 2, "--cache", cache, "--out", out, "--json")
    first = run(*options)
    assert first.exit_code == 0, first.output
    name = f"tensorrt_rtx-fp16-{PORTABLE}"
    assert list(read_bundle(out).variants) == [name]
    plans = content(out / "variants" / name)
    again = run(*options, "--force")
    assert again.exit_code == 0, again.output
    assert [plan["cached"] for plan in json.loads(again.stdout)["plans"]] == [True] * 5
    assert {file: data for file, (data, _) in content(out / "variants" / name).items()} == {
        file: data for file, (data, _) in plans.items()
    }
    before = content(out)
    place = next(cache.iterdir()) / PLAN_FILE
    place.write_bytes(place.read_bytes()[:-1] + b"!")
    refused = run(*options, "--force")
    assert code_of(refused) == ExitCode.REFUSED
    assert "is not the plan that was cached" in str(refused.exception)
    assert content(out) == before


def test_a_plan_without_a_gpu_says_what_to_do(with_plans: Path) -> None:
    with load(with_plans, variant=NAME) as hero, pytest.raises(EngineError, match=r"finds no GPU.*nvidia-smi"):
        hero.encode_query("where is the gem")


def edit_manifest(bundle: Path, **changes: object) -> None:
    path = bundle / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    variant = manifest["variants"][NAME]
    for key, value in changes.items():
        if key in variant:
            variant[key] = value
        else:
            variant["graphs"]["query"][key] = value
    path.write_text(json.dumps(manifest))


def test_a_plan_under_another_name_is_refused(planned: Path) -> None:
    plans = planned / "variants" / NAME
    (plans / "query.plan").replace(plans / "temporal.plan")
    shutil.copyfile(plans / "temporal.plan", plans / "query.plan")
    with pytest.raises(BundleError, match=r"temporal\.plan is not the file that was exported"):
        load(planned, variant=NAME)


def test_an_altered_plan_is_refused(planned: Path) -> None:
    plan = planned / "variants" / NAME / "query.plan"
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    plan.write_bytes(data)
    with pytest.raises(BundleError, match=r"query\.plan is not the file that was exported: found sha256"):
        load(planned, variant=NAME)


def test_a_plan_of_an_earlier_graph_is_refused(planned: Path) -> None:
    edit_manifest(planned, source="0" * 64)
    with pytest.raises(FingerprintError, match=r"query\.plan, which was made from a graph with the sha256 0000.*stale"):
        load(planned, variant=NAME)


@pytest.mark.parametrize("missing", ["source", "builder"])
def test_a_plan_that_the_manifest_does_not_describe_is_refused(planned: Path, missing: str) -> None:
    edit_manifest(planned, **{missing: None})
    with pytest.raises(BundleError, match=r"does not say what it was built from, for and with"):
        load(planned, variant=NAME)


def test_a_plan_without_its_entry_in_the_manifest_is_refused(planned: Path) -> None:
    path = planned / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    del manifest["files"][f"variants/{NAME}/query.plan"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"uses variants/.*query\.plan without listing it"):
        load(planned, variant=NAME)


@pytest.fixture(scope="session")
def calibration(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of the encoders, as the SDK packs them."""
    model = HeroModel.from_pretrained(exported.checkpoint)
    maker = CaseMaker(model.config, GEOMETRY, MAX_BATCH)
    graphs = graphs_of(model, GEOMETRY)
    rows = {name: maker.cases_of(graphs[name])[0].inputs for name in ("cross_modal", "temporal", "query")}
    out = tmp_path_factory.mktemp("calibration") / "set"
    manifest = read_bundle(exported.bundle)
    write_calibration(out, rows, manifest, data=exported.bundle / MANIFEST_FILE, videos=1, seed=0, script="")
    return out


def test_the_encoders_are_built_in_eight_bits(exported: Exported, calibration: Path, tmp_path: Path) -> None:
    eight = ("--precision", "int8", "--precision", "fp8", "--calibration", calibration)
    done = run(exported.bundle, *eight, "--target", "sm89", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    manifest = read_bundle(tmp_path / "out")
    for kind in ("int8", "fp8"):
        graphs = manifest.variants[f"tensorrt_rtx-{kind}-sm89"].graphs
        # An attention's two products are of two computed operands, and stay in half precision.
        for name, layers in (("cross_modal", 2), ("temporal", 1)):
            assert graphs[name].precision == kind
            assert graphs[name].products == {kind: 6 * layers + 1, "fp16": 2 * layers}
        assert graphs["query"].precision == kind
        told = json.loads(
            (tmp_path / "out" / "reports" / "variants" / f"tensorrt_rtx-{kind}-sm89" / "build.json").read_text()
        )
        errors = {plan["graph"]: plan["errors"] for plan in told["plans"]}
        assert errors["frames"] == errors["moment"] == {}
        for name, output in (("cross_modal", "hidden"), ("temporal", "clip_embeddings")):
            assert 1e-4 < errors[name][output] < (0.03 if kind == "int8" else 0.1)
        # The set has no rows of these.
        assert graphs["moment"].precision == graphs["frames"].precision == "fp16"
        script = (tmp_path / "out" / "reports" / "variants" / f"tensorrt_rtx-{kind}-sm89" / "reproduce.sh").read_text()
        assert '--calibration "$CALIBRATION"' in script


def test_ranges_that_cut_values_off_are_found_out(
    exported: Exported, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tenth(*arguments: Any) -> dict[str, float]:
        return {name: most / 10 for name, most in largest_values(*arguments).items()}

    monkeypatch.setattr(prepare, "largest_values", tenth)
    eight = ("--precision", "int8", "--calibration", calibration)
    done = run(exported.bundle, *eight, "--target", "sm86", "--out", tmp_path / "out")
    assert isinstance(done.exception, PrecisionError)
    assert "Output 'hidden' of graph 'cross_modal' in int8 differs from fp32 by" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_type_that_a_gpu_does_not_have_is_refused_with_the_reason(
    exported: Exported, calibration: Path, tmp_path: Path
) -> None:
    eight = ("--precision", "fp8", "--calibration", calibration)
    done = run(exported.bundle, *eight, "--target", "sm86", "--out", tmp_path / "out")
    assert code_of(done) == ExitCode.VERIFICATION
    assert "cannot build graph 'cross_modal' for sm86" in str(done.exception)
    assert "fp8" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_stale_calibration_set_is_refused(exported: Exported, calibration: Path, tmp_path: Path) -> None:
    stale = Path(shutil.copytree(calibration, tmp_path / "stale"))
    record = json.loads((stale / CALIBRATION_FILE).read_text())
    record["graphs"]["temporal"]["graph"] = "0" * 64
    (stale / CALIBRATION_FILE).write_text(json.dumps(record))
    eight = ("--precision", "int8", "--calibration", stale)
    with pytest.raises(CalibrationError, match="Stale calibration"):
        raise run(exported.bundle, *eight, "--target", "sm86", "--out", tmp_path / "out").exception or AssertionError
