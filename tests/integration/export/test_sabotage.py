"""A bundle that somebody tampered with is refused by every reader, with the same error and the exit code of its kind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, numpy_helper
from torch.nn import functional as F

import hero_sdk
from hero_export.bundles.signing import KeyFiles, make_keys, sign_bundle
from hero_export.cli import main
from hero_export.onnx.export import export_graph
from hero_export.onnx.graphs import graphs_of
from hero_sdk import BundleError, FingerprintError, SignatureError
from hero_sdk.manifest import Manifest
from tests.integration.export.exported import Exported
from tests.integration.export.test_refusals import written_out
from tests.tiny_bundle import seal
from tests.tiny_checkpoint import GEOMETRY, make_model

GRAPH = "graphs/query.onnx"
REFUSED, SIGNATURE, VERIFICATION = 4, 5, 6


def edit(bundle: Path, change: Callable[[dict], object]) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def reseal(bundle: Path) -> None:
    """What an attacker does who knows the format: the manifest fits the files again."""
    seal(bundle, Manifest.from_json((bundle / "manifest.json").read_text(encoding="utf-8")))


def rewrite(bundle: Path, change: Callable[[onnx.ModelProto], None], name: str = GRAPH) -> None:
    model = onnx.load(str(bundle / name), load_external_data=False)
    change(model)
    (bundle / name).write_bytes(model.SerializeToString())


def put_weights_outside(model: onnx.ModelProto, location: str) -> None:
    """Let the largest weight lie in another file."""
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)


# Each is called on a bundle of its own.


def swapped_weights(bundle: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))

    rewrite(bundle, change)


def swapped_weight_file(bundle: Path) -> None:
    """Weights in a file of their own, properly sealed, then replaced by others of the same size."""
    model = onnx.load(str(bundle / GRAPH))
    onnx.save(model, str(bundle / GRAPH), save_as_external_data=True, location="query.onnx.data", size_threshold=0)
    reseal(bundle)
    data = (bundle / "graphs" / "query.onnx.data").read_bytes()
    (bundle / "graphs" / "query.onnx.data").write_bytes(data[::-1])


def outside_weights(bundle: Path) -> None:
    rewrite(bundle, lambda model: put_weights_outside(model, "../../secret.bin"))
    reseal(bundle)


def absolute_weights(bundle: Path) -> None:
    rewrite(bundle, lambda model: put_weights_outside(model, "/etc/hostname"))
    reseal(bundle)


def unlisted_weights(bundle: Path) -> None:
    rewrite(bundle, lambda model: put_weights_outside(model, "more.bin"))
    reseal(bundle)
    (bundle / "graphs" / "more.bin").write_bytes(bytes(1 << 16))


def hidden_weights(bundle: Path) -> None:
    """In an attribute of a node, where a look at the initialisers misses them."""

    def change(model: onnx.ModelProto) -> None:
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="../../secret.bin")
        model.graph.node.append(onnx.helper.make_node("Constant", [], ["unread"], value=tensor))

    rewrite(bundle, change)
    reseal(bundle)


def truncated(bundle: Path) -> None:
    data = (bundle / GRAPH).read_bytes()
    (bundle / GRAPH).write_bytes(data[: len(data) // 2])


def truncated_and_sealed(bundle: Path) -> None:
    truncated(bundle)
    reseal(bundle)


def another_name(bundle: Path) -> None:
    shutil.copyfile(bundle / "graphs" / "temporal.onnx", bundle / GRAPH)


def another_name_and_sealed(bundle: Path) -> None:
    another_name(bundle)
    reseal(bundle)


def two_exchanged(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["graphs"]["query"].update(file="graphs/temporal.onnx"))


def another_frame_encoder(bundle: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        weight = next(item for item in model.graph.initializer if item.data_type == TensorProto.FLOAT)
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 2, weight.name))

    rewrite(bundle, change, "frame_encoder/frame_encoder.onnx")
    reseal(bundle)


def edited_geometry(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["geometry"].update(slots=48))


def edited_width(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["model"].update(hidden_size=64))


def edited_sha256(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["files"][GRAPH].update(sha256="0" * 64))


def edited_version(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest.update(format_version=manifest["format_version"] + 1))


def edited_to_escape(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["files"].update({"../evil.onnx": {"sha256": "0" * 64, "bytes": 0}}))


def edited_to_use_what_lies_outside(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["graphs"]["query"].update(file="../query.onnx"))


def not_json(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8")[:-10], encoding="utf-8")


def link(bundle: Path) -> None:
    """The very file, but somebody else's."""
    moved = (bundle / GRAPH).rename(bundle.parent / "elsewhere.onnx")
    (bundle / GRAPH).symlink_to(moved)


def link_to_a_folder(bundle: Path) -> None:
    moved = (bundle / "graphs").rename(bundle.parent / "graphs")
    (bundle / "graphs").symlink_to(moved)


def pipe(bundle: Path) -> None:
    (bundle / GRAPH).unlink()
    os.mkfifo(bundle / GRAPH)


def oversize_manifest(bundle: Path) -> None:
    os.truncate(bundle / "manifest.json", 3 << 30)


def oversize_file(bundle: Path) -> None:
    os.truncate(bundle / GRAPH, 100 << 30)


def oversize_statement(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["files"][GRAPH].update(bytes=100 << 30))


def missing(bundle: Path) -> None:
    (bundle / GRAPH).unlink()


SABOTAGE: list[tuple[Callable[[Path], None], type[BundleError], str]] = [
    (swapped_weights, BundleError, r"query\.onnx is not the file that was exported: found sha256"),
    (swapped_weight_file, BundleError, r"query\.onnx\.data is not the file that was exported: found sha256"),
    (
        outside_weights,
        BundleError,
        r"query\.onnx keeps the weight .* in '\.\./\.\./secret\.bin', which is no plain name",
    ),
    (absolute_weights, BundleError, r"in '/etc/hostname', which is no plain name; expected a file beside the graph"),
    (unlisted_weights, BundleError, r"in 'more\.bin', which the manifest does not list"),
    (hidden_weights, BundleError, r"keeps the weight 'w' in '\.\./\.\./secret\.bin', which is no plain name"),
    (truncated, BundleError, r"query\.onnx is not the file that was exported: found \d+ bytes"),
    (truncated_and_sealed, BundleError, r"query\.onnx is not a whole ONNX file"),
    (another_name, BundleError, r"query\.onnx is not the file that was exported"),
    (another_name_and_sealed, BundleError, r"query\.onnx has the tensors .* It is another graph"),
    (two_exchanged, BundleError, r"temporal\.onnx has the tensors .* It is another graph"),
    (another_frame_encoder, FingerprintError, "Features of another network cannot be searched"),
    (edited_geometry, BundleError, "elsewhere slots 48"),
    (edited_width, BundleError, "elsewhere .*hidden_size 64"),
    (
        edited_sha256,
        BundleError,
        r"query\.onnx is not the file that was exported: found sha256 .* says 0000000000000000",
    ),
    (edited_version, BundleError, "A newer hero-export wrote it: pip install --upgrade hero-video-sdk"),
    (edited_to_escape, BundleError, r"names '\.\./evil\.onnx', which is no plain path inside the bundle"),
    (edited_to_use_what_lies_outside, BundleError, r"uses \.\./query\.onnx without listing it under files"),
    (not_json, BundleError, "is not JSON"),
    (link, BundleError, r"query\.onnx is a symbolic link, which may lead outside the bundle"),
    (link_to_a_folder, BundleError, "graphs is a symbolic link"),
    (pipe, BundleError, r"query\.onnx is a folder, a device or a pipe"),
    (oversize_manifest, BundleError, rf"manifest\.json has {3 << 30} bytes; expected at most"),
    (oversize_file, BundleError, rf"query\.onnx is not the file that was exported: found {100 << 30} bytes"),
    (oversize_statement, BundleError, rf"states {100 << 30} bytes for graphs/query\.onnx; expected at most"),
    (missing, BundleError, r"has no graphs/query\.onnx, which its manifest lists"),
]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> KeyFiles:
    return make_keys(tmp_path_factory.mktemp("key") / "release")


def refuse_everywhere(
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: type[BundleError],
    message: str,
    code: int,
    required: Path | None = None,
) -> None:
    """``hero_sdk.load``, ``hero-export inspect`` and ``hero-export triton``: one error, and nothing written."""
    with pytest.raises(kind, match=message) as caught:
        hero_sdk.load(bundle, require_signature=required)
    assert type(caught.value) is kind
    out = bundle.parent / "repository"
    options = ["--require-signature", str(required)] if required else []
    for arguments in (["inspect", str(bundle)], ["triton", str(bundle), "--out", str(out)]):
        monkeypatch.setattr(sys, "argv", ["hero-export", *arguments, *options])
        with pytest.raises(SystemExit) as stopped:
            main()
        output = capsys.readouterr()
        assert stopped.value.code == code, output.err
        assert output.out == ""
        assert f"{kind.__name__}: {caught.value}" in output.err
    assert not out.exists()


@pytest.mark.parametrize(("sabotage", "kind", "message"), SABOTAGE, ids=[item[0].__name__ for item in SABOTAGE])
def test_sabotage_is_refused(
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sabotage: Callable[[Path], None],
    kind: type[BundleError],
    message: str,
) -> None:
    sabotage(copy)
    refuse_everywhere(copy, monkeypatch, capsys, kind, message, REFUSED)


@pytest.mark.parametrize("change", [lambda manifest: manifest["moment"].update(nms_iou=0.9), lambda manifest: None])
def test_what_no_check_of_the_files_can_see_is_seen_by_a_signature(
    copy: Path,
    key: KeyFiles,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict], object],
) -> None:
    """A threshold that was edited by hand; a manifest that was only written out again."""
    sign_bundle(copy, key.private)
    hero_sdk.load(copy, require_signature=key.public).close()
    edit(copy, change)
    hero_sdk.load(copy).close()
    message = "is no signature of this manifest.json"
    refuse_everywhere(copy, monkeypatch, capsys, SignatureError, message, SIGNATURE, key.public)


def test_a_whole_bundle_under_anothers_signature(
    copy: Path, key: KeyFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse_everywhere(copy, monkeypatch, capsys, SignatureError, "is not signed", SIGNATURE, key.public)
    sign_bundle(copy, make_keys(tmp_path / "mallory").private)
    message = "is no signature of this manifest.json by .*release.pub: another key signed"
    refuse_everywhere(copy, monkeypatch, capsys, SignatureError, message, SIGNATURE, key.public)


def test_a_bundle_that_nobody_touched_is_taken(copy: Path, exported: Exported) -> None:
    hero_sdk.load(copy).close()
    assert (
        hashlib.sha256((copy / GRAPH).read_bytes()).digest()
        == hashlib.sha256((exported.bundle / GRAPH).read_bytes()).digest()
    )


def test_an_attention_that_is_not_fused_any_more(
    exported: Exported, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same numbers from another graph, in a bundle whose manifest fits; then its counts are edited by hand as well."""
    with monkeypatch.context() as patched:
        patched.setattr(F, "scaled_dot_product_attention", written_out)
        export_graph(graphs_of(make_model(), GEOMETRY)["query"], copy / GRAPH)
    reseal(copy)

    def run(*arguments: object) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["hero-export", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, capsys.readouterr().err

    code, said = run("inspect", copy)
    assert code == VERIFICATION
    assert "FusionError: Graphs have other fused operators than their architecture implies: query: " in said
    verify = ("verify", copy, "--checkpoint", exported.checkpoint, "--no-latency")
    code, said = run(*verify)
    assert code == VERIFICATION
    assert "fusion says of graphs/query.onnx: 0 Attention, expected 3; in its place stand Softmax" in said
    edit(copy, lambda manifest: manifest["graphs"]["query"]["fused"].pop("Attention"))
    code, said = run(*verify)
    assert code == VERIFICATION
    assert "and the architecture implies {'Attention': 3, " in said
    assert "comparisons with the model failed" not in said
