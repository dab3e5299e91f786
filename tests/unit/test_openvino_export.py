"""``hero-export openvino`` on a bundle of arithmetic: what gets into it, what is refused, and what then stays as it was."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hero_export.errors import CalibrationError, ExportError, VerificationError
from hero_export.openvino import compare, export
from hero_export.openvino.export import Request, add_openvino, plan_openvino
from hero_export.openvino.precisions import BYTES_PER_WEIGHT, CALIBRATED, PRECISIONS, QUANTISED
from hero_export.tolerances import tolerance_of
from hero_sdk import load
from hero_sdk.bundle_files import MANIFEST_FILE
from hero_sdk.engines.local import LocalEngine
from hero_sdk.errors import BundleError, MissingPackageError
from hero_sdk.manifest import Manifest, read_bundle
from tests.tiny_bundle import example_inputs, seal, write_tiny_bundle
from tests.unit.hero_export_command import RunExport, make_export_run
from tests.unit.openvino_graphs import write_rows

PRODUCTS = {"frames": 1, "cross_modal": 1, "temporal": 1, "query": 1, "moment": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openvino")
    write_rows(write_tiny_bundle(folder / "bundle"), folder / "calibration")
    add_openvino(Request(folder / "bundle", ("fp32",)), out=folder / "amended")
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunExport:
    return make_export_run(monkeypatch, capsys)


def test_a_variant_has_every_graph_and_says_what_it_was_made_from(folder: Path) -> None:
    manifest = read_bundle(folder / "amended")
    variant = manifest.variant("openvino-fp32")
    assert (variant.engine, variant.precision, variant.target, variant.builder) == ("openvino", "fp32", None, None)
    assert set(variant.graphs) == set(manifest.graphs)
    for name, graph in variant.graphs.items():
        assert graph.file == f"variants/openvino-fp32/{name}.xml"
        assert graph.source == manifest.files[manifest.graphs[name].file].sha256
        assert (graph.precision, graph.products) == ("fp32", {"fp32": PRODUCTS[name]})
    assert {f"variants/openvino-fp32/{name}.bin" for name in manifest.graphs} <= manifest.files.keys()
    assert {"openvino", "nncf"} <= manifest.tools.keys()


def test_its_report_and_its_script(folder: Path) -> None:
    reports = folder / "amended" / "reports" / "variants" / "openvino-fp32"
    report = json.loads((reports / "openvino.json").read_text(encoding="utf-8"))
    assert {graph["graph"]: sum(graph["executed"].values()) for graph in report["graphs"]} == PRODUCTS
    assert all(case["passed"] and case["max_error"] <= 1e-4 * case["scale"] for case in report["cases"])
    assert {case["graph"] for case in report["cases"]} == set(PRODUCTS)
    script = (reports / "reproduce.sh").read_text(encoding="utf-8")
    assert 'hero-export openvino "$BUNDLE" --precision fp32 --out "$OUT"' in script
    assert "$BUNDLE/graphs/query.onnx" in script
    assert str(folder) not in script


@pytest.mark.parametrize("graph", list(PRODUCTS))
def test_every_graph_gives_what_onnxruntime_gives(folder: Path, graph: str) -> None:
    with (
        LocalEngine(folder / "amended", threads=1) as first,
        LocalEngine(folder / "amended", variant="openvino-fp32", threads=1) as second,
    ):
        inputs = example_inputs(first.manifest, graph, 7)
        expected, found = first.run(graph, inputs), second.run(graph, inputs)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)


def test_the_weights_must_be_listed_too(folder: Path) -> None:
    content = json.loads((folder / "amended" / MANIFEST_FILE).read_text(encoding="utf-8"))
    del content["files"]["variants/openvino-fp32/query.bin"]
    with pytest.raises(BundleError, match=r"uses variants/openvino-fp32/query\.bin without listing it"):
        Manifest.from_json(json.dumps(content))


def test_swapped_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(folder / "amended", tmp_path / "copy"))
    weights = copy / "variants" / "openvino-fp32" / "query.bin"
    data = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(data[::-1])
    with pytest.raises(BundleError, match=r"query\.bin is not the file that was exported"):
        load(copy, variant="openvino-fp32")
    # Sealed again by who knows the format, but cut short: refused when it is opened.
    weights.write_bytes(data[:-64])
    seal(copy, Manifest.from_json((copy / MANIFEST_FILE).read_text(encoding="utf-8")))
    with LocalEngine(copy, variant="openvino-fp32", threads=1) as engine:
        with pytest.raises(BundleError, match=r"query\.xml cannot be read by OpenVINO"):
            engine.run("query", example_inputs(engine.manifest, "query", 1))
        engine.run("temporal", example_inputs(engine.manifest, "temporal", 1))


def test_calibration_of_another_bundle_is_stale(folder: Path, tmp_path: Path) -> None:
    other = write_tiny_bundle(tmp_path / "other", seed=1)
    with pytest.raises(CalibrationError, match="Stale calibration"):
        add_openvino(Request(other, ("int8",), folder / "calibration"))


def test_what_cannot_be_met_is_refused_before_anything_is_made(folder: Path, bundle: Path) -> None:
    calibration = folder / "calibration"
    refused = [
        (Request(bundle, ("int4",)), r"\['int4'\] were asked for; OpenVINO has"),
        (Request(bundle, ()), "were asked for"),
        (Request(bundle, ("int8",)), "there is no calibration set.*choose int8-dynamic"),
        (
            Request(bundle, ("int8", "bf16"), calibration, ("layers.0",)),
            r"in \['bf16'\], whose precision OpenVINO chooses",
        ),
        (Request(bundle, ("int8",), calibration, ("layers.0",)), "has no layer 'layers.0' to keep"),
    ]
    for request, message in refused:
        for act in (add_openvino, plan_openvino):
            with pytest.raises(ExportError, match=message):
                act(request)
    assert read_bundle(bundle).variants == {}


def test_a_whole_graph_is_kept_where_a_precision_is_a_whole_graphs(bundle: Path) -> None:
    request = Request(bundle, ("bf16",), keep=("temporal",))
    assert {file.path for file in plan_openvino(request).files} >= {"variants/openvino-bf16/temporal.xml"}
    add_openvino(request)
    manifest = read_bundle(bundle)
    graphs = manifest.variants["openvino-bf16"].graphs
    assert {name: graph.precision for name, graph in graphs.items() if graph.precision == "fp32"} == {
        "frames": "fp32",
        "temporal": "fp32",
    }
    script = bundle / "reports" / "variants" / "openvino-bf16" / "reproduce.sh"
    assert "--keep temporal" in script.read_text(encoding="utf-8")


def test_operators_of_onnxruntimes_own_are_refused(bundle: Path) -> None:
    content = json.loads((bundle / MANIFEST_FILE).read_text(encoding="utf-8"))
    content["graphs"]["query"]["fused"] = {"com.microsoft::MultiHeadAttention": 3}
    (bundle / MANIFEST_FILE).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ExportError, match=r"\['query'\] with ONNX Runtime's own operators.*--operators standard"):
        add_openvino(Request(bundle, ("fp32",)))


def test_a_graph_too_far_from_its_onnx_is_not_kept(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export.convert_graph

    def altered(source: Path, graph: str) -> object:
        model = onnx.load(source)
        floats = (one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT and one.dims)
        weight = max(floats, key=lambda one: len(one.raw_data), default=None)
        if weight is not None:
            weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
        onnx.save(model, tmp_path / "altered.onnx")
        return real(tmp_path / "altered.onnx", graph)

    monkeypatch.setattr(export, "convert_graph", altered)
    with pytest.raises(VerificationError, match="comparisons of OpenVINO's fp32 with the ONNX graphs failed"):
        add_openvino(Request(bundle, ("fp32",)))
    assert read_bundle(bundle).variants == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["altered.onnx", "bundle"]


def test_one_bad_precision_keeps_the_others_out(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = dataclasses.replace(tolerance_of("fp16"), max_relative_error=0.0, min_cosine=1.0)
    monkeypatch.setattr(
        compare, "tolerance_of", lambda precision: strict if precision == "fp16" else tolerance_of(precision)
    )
    with pytest.raises(VerificationError, match="OpenVINO's fp16"):
        add_openvino(Request(bundle, ("fp32", "fp16")))
    assert read_bundle(bundle).variants == {}


def test_without_the_packages(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingPackageError, match=r'pip install "hero-video-sdk\[quantise\]"'):
        add_openvino(Request(bundle, ("int8-weights",)))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPackageError, match=r'pip install "hero-video-sdk\[openvino\]"'):
        add_openvino(Request(bundle, ("fp32",)))


def test_the_command(run: RunExport, bundle: Path, tmp_path: Path) -> None:
    before = (bundle / MANIFEST_FILE).read_bytes()
    planned = run("openvino", bundle, "--precision", "fp32", "--dry-run", "--json")
    assert planned.code == 0
    files = {file["path"] for file in json.loads(planned.out)["files"]}
    assert (bundle / MANIFEST_FILE).read_bytes() == before
    out = tmp_path / "out"
    done = run("openvino", bundle, "--precision", "fp32", "--precision", "fp32", "--out", out, "--json")
    assert done.code == 0, done.err
    (report,) = json.loads(done.out)
    assert report["variant"] == "openvino-fp32"
    assert "Making query in fp32" in done.err
    assert files <= read_bundle(out).files.keys()
    assert (bundle / MANIFEST_FILE).read_bytes() == before
    assert run("openvino", bundle, "--precision", "fp32", "--out", out).code == 3
    assert run("openvino", bundle, "--precision", "int8").code == 4
    assert run("openvino", tmp_path / "none", "--precision", "fp32").code == 4


def test_every_precision_has_its_entries() -> None:
    assert set(PRECISIONS) == set(BYTES_PER_WEIGHT)
    assert CALIBRATED <= QUANTISED < set(PRECISIONS)
