"""Variants of a bundle: how they get in, what is checked, and that the SDK runs the one that was asked for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hero_export.bundles.inspection import inspect_bundle
from hero_export.bundles.signing import make_keys, sign_bundle
from hero_export.bundles.variants import amend
from hero_export.errors import ExportError
from hero_export.exit_codes import exit_code_of
from hero_sdk import load
from hero_sdk.bundle_files import SIGNATURE_FILE
from hero_sdk.engines.local import LocalEngine
from hero_sdk.engines.session import open_graph
from hero_sdk.errors import BundleError, EngineError, InputError, SignatureError
from hero_sdk.manifest import MANIFEST_FILE, read_bundle
from hero_sdk.variants import Variant, VariantGraph
from tests.tiny_bundle import example_inputs, write_tiny_bundle
from tests.unit.hero_export_command import make_export_run

NAME = "onnxruntime-int8"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle")


def add_doubled_query(bundle: Path, out: Path | None = None, precision: str = "int8", *, force: bool = False) -> None:
    """Add a variant whose query graph has its weights doubled."""
    with amend(bundle, out, force=force) as amendment:
        model = onnx.load(bundle / "graphs" / "query.onnx")
        for weight in model.graph.initializer:
            if weight.data_type == onnx.TensorProto.FLOAT:
                weight.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(weight), weight.name))
        name = f"onnxruntime-{precision}"
        onnx.save(model, amendment.place(name) / "query.onnx")
        (amendment.reports(name) / "reproduce.sh").write_text("#!/bin/sh\n")
        graph = VariantGraph(f"variants/{name}/query.onnx", precision, {precision: 1})
        amendment.add(Variant("onnxruntime", precision, {"query": graph}))


def run_query(bundle: Path, variant: str | None = None) -> np.ndarray:
    with LocalEngine(bundle, variant=variant, threads=1) as engine:
        return engine.run("query", example_inputs(engine.manifest, "query", 2))["query_vector"]


def test_a_variant_runs_where_it_is_asked_for(bundle: Path) -> None:
    before = run_query(bundle)
    add_doubled_query(bundle)
    np.testing.assert_array_equal(run_query(bundle), before)
    np.testing.assert_allclose(run_query(bundle, NAME), 2 * before, rtol=1e-6)
    with LocalEngine(bundle, variant=NAME, threads=1) as engine:  # a graph that it does not have is the bundle's own
        inputs = example_inputs(engine.manifest, "moment", 2)
        found = engine.run("moment", inputs)["start"]
    with LocalEngine(bundle, threads=1) as engine:
        np.testing.assert_array_equal(found, engine.run("moment", inputs)["start"])
    with load(bundle, variant=NAME) as hero:
        assert hero.manifest.variants[NAME].precision == "int8"


def test_an_unknown_variant_is_refused_with_those_that_there_are(bundle: Path) -> None:
    with pytest.raises(InputError, match="no variant 'openvino-int8'; it has none"):
        load(bundle, variant="openvino-int8")
    add_doubled_query(bundle)
    with pytest.raises(InputError, match=r"no variant 'openvino-int8'; it has \['onnxruntime-int8'\]"):
        load(bundle, variant="openvino-int8")


def test_an_amended_bundle_is_whole_and_loses_its_signature(bundle: Path) -> None:
    (bundle / SIGNATURE_FILE).write_bytes(b"0" * 64)
    before = read_bundle(bundle)
    add_doubled_query(bundle)
    manifest = read_bundle(bundle)
    assert not (bundle / SIGNATURE_FILE).exists()
    assert manifest.graphs == before.graphs
    assert set(manifest.files) == {
        *before.files, f"variants/{NAME}/query.onnx", f"reports/variants/{NAME}/reproduce.sh"
    }  # fmt: skip
    assert not [path for path in bundle.parent.iterdir() if path.name != bundle.name]


def test_the_same_variant_again_replaces_it_and_another_is_kept(bundle: Path) -> None:
    add_doubled_query(bundle)
    add_doubled_query(bundle, precision="fp16")
    place = bundle / "variants" / NAME / "query.onnx"
    linked = place.stat().st_ino
    add_doubled_query(bundle)
    assert list(read_bundle(bundle).variants) == [NAME, "onnxruntime-fp16"], "it stays where it was"
    assert place.stat().st_ino != linked
    np.testing.assert_allclose(run_query(bundle, NAME), 2 * run_query(bundle), rtol=1e-6)


def test_elsewhere_the_bundle_stays_as_it_was(bundle: Path, tmp_path: Path) -> None:
    content = (bundle / MANIFEST_FILE).read_bytes()
    add_doubled_query(bundle, tmp_path / "other")
    assert (bundle / MANIFEST_FILE).read_bytes() == content
    assert set(read_bundle(tmp_path / "other").variants) == {NAME}
    with pytest.raises(ExportError, match="is already a bundle"):
        add_doubled_query(bundle, tmp_path / "other", "fp16")
    add_doubled_query(bundle, tmp_path / "other", "fp16", force=True)
    assert set(read_bundle(tmp_path / "other").variants) == {"onnxruntime-fp16"}


def add_half(bundle: Path, *, enter: bool) -> None:
    with amend(bundle) as amendment:
        (amendment.place(NAME) / "query.onnx").write_bytes(b"half")
        if not enter:
            raise RuntimeError("half way")
        graph = VariantGraph(f"variants/{NAME}/query.onnx", "int8")
        amendment.add(Variant("onnxruntime", "int8", {"query": graph}))


def test_an_error_leaves_the_bundle_as_it_was(bundle: Path) -> None:
    content = (bundle / MANIFEST_FILE).read_bytes()
    with pytest.raises(RuntimeError, match="half way"):
        add_half(bundle, enter=False)
    with pytest.raises(BundleError, match=r"query\.onnx"):
        add_half(bundle, enter=True)
    assert (bundle / MANIFEST_FILE).read_bytes() == content
    assert not [path for path in bundle.parent.iterdir() if path.name != bundle.name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "abacus"}, "of the engine 'abacus'"),
        ({"precision": "int4"}, "which is 'onnxruntime-int4' by what it says of itself"),
        ({"target": "sm86"}, "which is 'onnxruntime-int8-sm86' by what it says of itself"),
        ({"graphs": {"answers": {"file": "graphs/query.onnx", "precision": "int8"}}}, r"the graphs \['answers'\]"),
        ({"graphs": {"query": {"file": "tokenizer.json", "precision": "int8"}}}, r"expected \.onnx for onnxruntime"),
        ({"graphs": {"query": {"file": "graphs/none.onnx", "precision": "int8"}}}, "without listing it under files"),
        ({"graphs": {"query": {"file": "graphs/moment.onnx", "precision": "int8"}}}, "its manifest says"),
    ],
)
def test_a_manifest_whose_variant_was_edited_is_refused(bundle: Path, changes: dict, message: str) -> None:
    add_doubled_query(bundle)
    content = json.loads((bundle / MANIFEST_FILE).read_text())
    content["variants"][NAME].update(changes)
    (bundle / MANIFEST_FILE).write_text(json.dumps(content))
    with pytest.raises(BundleError, match=message):
        read_bundle(bundle)


def test_a_file_of_a_variant_that_was_swapped_is_refused(bundle: Path) -> None:
    add_doubled_query(bundle)
    place = bundle / "variants" / NAME / "query.onnx"
    content = bytearray(place.read_bytes())
    content[-40] ^= 1
    place.write_bytes(content)
    with pytest.raises(BundleError, match="is not the file that was exported"):
        load(bundle, variant=NAME)


def test_inspect_shows_variants_with_the_precision_of_their_files(bundle: Path) -> None:
    add_doubled_query(bundle)
    graph = inspect_bundle(bundle).graphs[-1]
    assert (graph.variant, graph.name, graph.max_batch) == (NAME, "query", 4)
    assert graph.precision == "fp32", "whatever its variant says of it"
    with amend(bundle) as amendment:
        place = amendment.place("openvino-int8")
        (place / "query.xml").write_text("<net/>")
        (place / "query.bin").write_bytes(bytes(1000))
        graph_of = VariantGraph("variants/openvino-int8/query.xml", "int8", {"int8": 1}, {"Gelu": 1})
        amendment.add(Variant("openvino", "int8", {"query": graph_of}))
    graph = inspect_bundle(bundle).graphs[-1]
    assert (graph.variant, graph.bytes, graph.precision, graph.fused) == ("openvino-int8", 1006, "int8", {"Gelu": 1})


def test_precisions_are_added_to_a_bundle_only_when_a_required_key_signed_it(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, keys = make_export_run(monkeypatch, capsys), make_keys(tmp_path / "key")
    command = ("onnx", bundle, "--precision", "fp16", "--require-signature", keys.public)
    for extra in ((), ("--dry-run",)):
        refused = run(*command, *extra)
        assert refused.code == exit_code_of(SignatureError("")), refused.err
    assert read_bundle(bundle).variants == {}
    sign_bundle(bundle, keys.private)
    done = run(*command)
    assert done.code == 0, done.err
    assert "Its signature is gone" in done.out
    assert "onnxruntime-fp16" in read_bundle(bundle).variants


def test_a_checkpoint_has_no_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = make_keys(tmp_path / "key")
    run = make_export_run(monkeypatch, capsys)
    refused = run("onnx", tmp_path / "checkpoint", "--out", tmp_path / "out", "--require-signature", keys.public)
    assert refused.code != 0
    assert "is no bundle, which alone has one" in refused.err


def test_names_say_engine_precision_and_target() -> None:
    variant = Variant("tensorrt_rtx", "fp16", {})
    assert variant.name == "tensorrt_rtx-fp16"
    assert dataclasses.replace(variant, target="sm86").name == "tensorrt_rtx-fp16-sm86"


def test_an_engine_that_is_not_known_cannot_open_a_graph(bundle: Path) -> None:
    with pytest.raises(EngineError, match="'abacus'"):
        open_graph(bundle / "graphs" / "query.onnx", "abacus", "fp32")
