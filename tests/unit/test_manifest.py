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
        (lambda c: c["geometry"].update(slots=0), "geometry: slots is 0; expected at least 1"),
        (lambda c: c["graphs"]["query"].update(max_batch=0), "max_batch is 0; expected at least 1"),
        (lambda c: c["model"].update(clip_interval=0), "clip_interval is 0.0; expected more than 0"),
        (lambda c: c["model"].update(clip_interval=10**400), "expected a finite float"),
        (lambda c: c["files"]["tokenizer.json"].update(sha256="A" * 64), "expected the form ^[0-9a-f]{64}$"),
        (lambda c: c["files"]["tokenizer.json"].update(sha256="a" * 64 + "\n"), "expected the form ^[0-9a-f]{64}$"),
        (lambda c: c["files"]["tokenizer.json"].update(bytes=-1), "bytes is -1; expected at least 0"),
        (lambda c: c["files"].pop("tokenizer.json"), "uses tokenizer.json without listing it under files"),
        (lambda c: c["files"].pop("graphs/query.onnx"), "uses graphs/query.onnx without listing it under files"),
        (lambda c: c.update(tokenizer="../tokenizer.json"), "uses ../tokenizer.json without listing it"),
        (lambda c: c["geometry"].update(frames=97), "97 frames in a row of 96 slots"),
    ],
)
def test_an_entry_that_does_not_fit_is_named(change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(BundleError, match=re.escape(message)) as caught:
        Manifest.from_json(edited(change), "somewhere")
    assert str(caught.value).startswith("somewhere")


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (FORMAT_VERSION + 1, "A newer hero-export wrote it: pip install --upgrade hero-video-sdk"),
        (10**30, "A newer hero-export wrote it"),
        (0, "Expected the manifest of a bundle"),
        (-1, "Expected the manifest of a bundle"),
        ("1", "Expected the manifest of a bundle"),
        (None, "Expected the manifest of a bundle"),
        (1.5, "Expected the manifest of a bundle"),
        (True, "Expected the manifest of a bundle"),
    ],
)
def test_another_format_version_is_refused(version: object, advice: str) -> None:
    expected = rf"has format version {version!r}; this version of the SDK reads {FORMAT_VERSION}\. {re.escape(advice)}"
    with pytest.raises(BundleError, match=expected):
        Manifest.from_json(edited(lambda content: content.update(format_version=version)))


def test_an_older_format_version_is_to_be_exported_again(monkeypatch: pytest.MonkeyPatch) -> None:
    older = manifest().to_json()
    monkeypatch.setattr("hero_sdk.manifest.FORMAT_VERSION", FORMAT_VERSION + 1)
    with pytest.raises(
        BundleError, match=rf"has format version {FORMAT_VERSION}; .* Export the checkpoint again, or install"
    ):
        Manifest.from_json(older)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[]", "format version None"),
        ("3", "version None"),
        ("[" * 100_000, "is not JSON"),
        ("9" * 5000, "is not JSON"),
        ('{"format_version": 1, "format_version": 1}', r"the names \['format_version'\] twice"),
        ('{"format_version": NaN}', "NaN is no number"),
        (" " * (4 << 20) + "{}", "characters; expected at most 4194304"),
    ],
)
def test_a_text_that_is_no_manifest(text: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(text)


def test_a_number_beyond_all_floats_is_refused() -> None:
    text = manifest().to_json().replace('"clip_interval": 1.25', '"clip_interval": 1e999')
    with pytest.raises(BundleError, match="clip_interval is inf; expected a finite float"):
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
