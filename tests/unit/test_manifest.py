"""The contract survives the way to disk and back, and whatever does not fit it is refused by name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hero_sdk.errors import BundleError
from hero_sdk.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    RETRIEVAL,
    TASK_GRAPHS,
    FileSpec,
    FrameEncoderSpec,
    GraphSpec,
    Manifest,
    ModelSpec,
    MomentSpec,
    TensorSpec,
    check_task,
    read_bundle,
    sha256_of,
)
from hero_sdk.rows import RowGeometry


def manifest(**changes: Any) -> Manifest:
    """Every entry has a value of its own, and none is its default."""
    made = Manifest(
        task="retrieval",
        fingerprint="f" * 64,
        model=ModelSpec(feature_dim=7, hidden_size=11, clip_interval=1.25, clip_limit=60, subtitle_context=2),
        geometry=RowGeometry(slots=96, frames=48, temporal_slots=72, query_tokens=40),
        moment=MomentSpec((0.5, -1.5), (2.5, 1e-7), min_clips=2, max_clips=9, similarity_scale=15.0, nms_iou=0.75),
        tokenizer="tokenizer.json",
        frame_encoder=FrameEncoderSpec("a network", 224, 7, "e" * 64),
        graphs=dict.fromkeys(
            TASK_GRAPHS[RETRIEVAL],
            GraphSpec(
                file="graphs/query.onnx",
                precision="int8",
                max_batch=5,
                inputs=(TensorSpec("token_ids", "int32", (-1, 40)), TensorSpec("segment_ids", "int32", (-1, 40))),
                outputs=(TensorSpec("query_vector", "float32", (-1, 11)),),
                fused={"Attention": 3, "Gelu": 2},
            ),
        ),
        files={"tokenizer.json": FileSpec("a" * 64, 12), "graphs/query.onnx": FileSpec("b" * 64, 34)},
        tools={"torch": "2.9"},
    )
    return dataclasses.replace(made, **changes)


def test_what_was_written_is_read() -> None:
    assert Manifest.from_json(manifest().to_json()) == manifest()


def test_it_is_plain_json() -> None:
    content = json.loads(manifest().to_json())
    assert content["format_version"] == FORMAT_VERSION
    assert content["graphs"]["query"]["inputs"][0] == {"name": "token_ids", "dtype": "int32", "shape": [-1, 40]}
    assert content["moment"]["start_taps"] == [0.5, -1.5]
    assert content["files"]["graphs/query.onnx"] == {"sha256": "b" * 64, "bytes": 34}


def test_entries_with_a_default_may_be_missing() -> None:
    content = json.loads(manifest().to_json())
    del content["tools"], content["graphs"]["query"]["fused"], content["moment"]["nms_iou"]
    read = Manifest.from_json(json.dumps(content))
    assert (read.tools, read.graphs["query"].fused, read.moment.nms_iou) == ({}, {}, 0.5)


def test_a_whole_number_is_a_number_of_seconds() -> None:
    read = Manifest.from_json(edited(lambda content: content["model"].update(clip_interval=2)))
    assert read.model.clip_interval == 2.0
    assert isinstance(read.model.clip_interval, float)


def edited(change: Callable[[dict[str, Any]], object]) -> str:
    content = json.loads(manifest().to_json())
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("task"), "has no entry 'task'. Export the bundle again"),
        (lambda c: c["model"].pop("clip_limit"), "model has no entry 'clip_limit'"),
        (lambda c: c["graphs"]["query"].pop("max_batch"), "graphs.query has no entry 'max_batch'"),
        (lambda c: c.update(author="x"), "has unknown entries ['author']; expected"),
        (lambda c: c["geometry"].update(rows=3), "geometry has unknown entries ['rows']"),
        (lambda c: c.update(task=3), "task is 3; expected str"),
        (lambda c: c["model"].update(feature_dim="7"), "feature_dim is '7'; expected int"),
        (lambda c: c["model"].update(feature_dim=7.5), "feature_dim is 7.5; expected int"),
        (lambda c: c["model"].update(feature_dim=True), "feature_dim is True; expected int"),
        (lambda c: c["model"].update(clip_interval=None), "clip_interval is None; expected float"),
        (lambda c: c["model"].update(clip_interval=True), "clip_interval is True; expected float"),
        (lambda c: c["moment"].update(start_taps=1.0), "start_taps is 1.0; expected a list"),
        (lambda c: c["moment"]["start_taps"].append("x"), "start_taps[2] is 'x'; expected float"),
        (lambda c: c["graphs"]["query"]["inputs"][1].update(shape=[None]), "inputs[1]: shape[0] is None; expected int"),
        (lambda c: c.update(graphs=[]), "graphs is []; expected an object"),
        (lambda c: c.update(model=[1]), "model is list; expected an object with the fields of ModelSpec"),
        (lambda c: c["files"].update({"x": "y"}), "files.x is str; expected an object with the fields of FileSpec"),
        (lambda c: c["tools"].update(torch=2), "tools.torch is 2; expected str"),
        (lambda c: c["geometry"].update(slots=0), "RowGeometry.slots is 0"),
        (lambda c: c["geometry"].update(frames=97), "97 frames in a row of 96 slots"),
    ],
)
def test_an_entry_that_does_not_fit_is_named(change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(BundleError, match=re.escape(message)) as caught:
        Manifest.from_json(edited(change), "somewhere")
    assert str(caught.value).startswith("somewhere")


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5])
def test_another_format_version_is_refused(version: object) -> None:
    with pytest.raises(BundleError, match=rf"has format version {version!r}; this version of the SDK reads 1\. Export"):
        Manifest.from_json(edited(lambda content: content.update(format_version=version)))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("", "is not JSON"), ("[]", "format version None"), ("3", "version None")],
)
def test_a_text_that_is_no_manifest(text: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(text)


def test_sha256_is_that_of_the_whole_file(tmp_path: Path) -> None:
    content = os.urandom(3 * (1 << 20) + 17)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("task", TASK_GRAPHS)
def test_every_task_has_its_graphs_and_retrieval_a_moment_head(task: str) -> None:
    moment = manifest().moment if task == RETRIEVAL else None
    graphs = dict.fromkeys(TASK_GRAPHS[task], manifest().graphs["query"])
    made = manifest(task=task, moment=moment, graphs=graphs)
    assert Manifest.from_json(made.to_json()) == made
    check_task(made, "somewhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "vqa"}, r"somewhere is of a bundle for 'vqa'; this version of the SDK knows \['captioning', "),
        ({"task": "statements"}, r"a bundle for statements has \['cross_modal', 'frames', 'statement', 'temporal'\]"),
        ({"graphs": {}}, r"has the graphs \[\]; a bundle for retrieval has"),
        ({"moment": None}, "has no moment head in a bundle for retrieval"),
    ],
)
def test_a_manifest_that_does_not_fit_its_task_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        check_task(manifest(**changes), "somewhere")


def test_a_moment_head_has_no_place_in_other_tasks() -> None:
    graphs = dict.fromkeys(TASK_GRAPHS["statements"], manifest().graphs["query"])
    with pytest.raises(BundleError, match="has a moment head in a bundle for statements"):
        check_task(manifest(task="statements", graphs=graphs), "somewhere")
    with pytest.raises(BundleError, match=r"bundle is for statements; finding moments needs one for retrieval"):
        manifest(task="statements", moment=None).require_moment()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle whose files hold their own names."""
    folder = tmp_path / "bundle"
    (folder / "graphs").mkdir(parents=True)
    names = ["tokenizer.json", "graphs/query.onnx"]
    for name in names:
        (folder / name).write_text(name, encoding="utf-8")
    files = {name: FileSpec(hashlib.sha256(name.encode()).hexdigest(), len(name)) for name in names}
    write(folder, manifest(files=files))
    return folder


def write(folder: Path, content: Manifest) -> None:
    (folder / MANIFEST_FILE).write_text(content.to_json(), encoding="utf-8")


def test_a_whole_bundle_is_read(bundle: Path) -> None:
    read = read_bundle(bundle)
    assert read == read_bundle(str(bundle))
    assert read.files["tokenizer.json"].bytes == len("tokenizer.json")


def test_a_bundle_without_a_graph_of_its_task_is_not_read(bundle: Path) -> None:
    read = read_bundle(bundle)
    write(bundle, dataclasses.replace(read, graphs={"query": read.graphs["query"]}))
    with pytest.raises(BundleError, match=r"manifest\.json has the graphs \['query'\]; a bundle for retrieval has"):
        read_bundle(bundle)


def test_files_that_the_manifest_does_not_list_are_not_looked_at(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("more", encoding="utf-8")
    assert "notes.txt" not in read_bundle(bundle).files


def test_a_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no manifest\.json; expected a bundle that `hero-export onnx` wrote"):
        read_bundle(tmp_path)


def test_a_manifest_that_is_not_text(bundle: Path) -> None:
    (bundle / MANIFEST_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match=r"manifest\.json is not JSON"):
        read_bundle(bundle)


@pytest.mark.parametrize("content", ["graphs/query.onn", "graphs/query.onnX", "graphs/query.onnx "])
def test_a_file_that_was_altered(bundle: Path, content: str) -> None:
    (bundle / "graphs" / "query.onnx").write_text(content, encoding="utf-8")
    with pytest.raises(BundleError, match=r"query\.onnx is not the file that was exported \(sha256 or size differ"):
        read_bundle(bundle)


def test_a_file_that_is_missing(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"has no tokenizer\.json, which its manifest lists. Copy the whole folder"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["../outside.json", "graphs/../../outside.json", "{}/outside.json"])
def test_a_file_outside_the_bundle(bundle: Path, name: str) -> None:
    outside = bundle.parent / "outside.json"
    outside.write_text("{}", encoding="utf-8")
    listed = {name.format(bundle.parent): FileSpec(sha256_of(outside), 2)}
    write(bundle, manifest(files={**read_bundle(bundle).files, **listed}))
    with pytest.raises(BundleError, match=r"lies outside the bundle\. Do not use this bundle"):
        read_bundle(bundle)


def test_a_link_that_leads_out_of_the_bundle(bundle: Path) -> None:
    outside = bundle.parent / "outside.json"
    outside.write_text("tokenizer.json", encoding="utf-8")
    (bundle / "tokenizer.json").unlink()
    (bundle / "tokenizer.json").symlink_to(outside)
    with pytest.raises(BundleError, match="lies outside the bundle"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["tokenizer.json", "graphs/query.onnx"])
def test_a_file_that_is_used_and_not_listed(bundle: Path, name: str) -> None:
    files = {key: value for key, value in read_bundle(bundle).files.items() if key != name}
    write(bundle, manifest(files=files))
    with pytest.raises(BundleError, match=rf"uses {re.escape(name)} without listing it under files"):
        read_bundle(bundle)
