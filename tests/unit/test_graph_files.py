"""The graphs of a bundle are those of its manifest: their tensors, their sizes, where their weights lie."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from hero_sdk.errors import BundleError, FingerprintError
from hero_sdk.manifest import Manifest, TensorSpec, read_bundle
from tests.tiny_bundle import FEATURES, HIDDEN, seal, write_tiny_bundle

QUERY = "graphs/query.onnx"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle", external_weights=True)


def with_location(location: str, **entries: int) -> Callable[[Path], None]:
    """Let a weight of the query graph lie somewhere else."""

    def change(bundle: Path) -> None:
        model = onnx.load(str(bundle / QUERY), load_external_data=False)
        weight = next(item for item in model.graph.initializer if item.data_location == TensorProto.EXTERNAL)
        values = {entry.key: entry.value for entry in weight.external_data} | {"location": location}
        del weight.external_data[:]
        for key, value in (values | {name: str(value) for name, value in entries.items()}).items():
            weight.external_data.add(key=key, value=value)
        (bundle / QUERY).write_bytes(model.SerializeToString())

    return change


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../tokenizer.json", "which is no plain name; expected a file beside the graph"),
        ("../../secret", "which is no plain name"),
        ("/etc/passwd", "which is no plain name"),
        ("sub/query.weights", "which is no plain name"),
        ("./query.weights", "which is no plain name"),
        ("..", "which is no plain name"),
        ("", "which is no plain name"),
        ("*/_ORT_MEM_ADDR_/*", "which is no plain name"),
        ("sub\\query.weights", "which is no plain name"),
        ("nowhere.weights", "which the manifest does not list"),
    ],
)
def test_weights_that_do_not_lie_beside_their_graph(bundle: Path, location: str, message: str) -> None:
    with_location(location)(bundle)
    seal(bundle, read_unchecked(bundle))
    with pytest.raises(BundleError, match=rf"query\.onnx keeps the weight '.*' in .*{message}"):
        read_bundle(bundle)


def read_unchecked(bundle: Path) -> Manifest:
    return Manifest.from_json((bundle / "manifest.json").read_text(encoding="utf-8"))


def test_weights_beside_their_graph_that_nobody_lists(bundle: Path) -> None:
    manifest = read_bundle(bundle)
    files = {name: file for name, file in manifest.files.items() if not name.endswith(".weights")}
    (bundle / "manifest.json").write_text(dataclasses.replace(manifest, files=files).to_json())
    with pytest.raises(BundleError, match=r"in 'query\.weights', which the manifest does not list"):
        read_bundle(bundle)


@pytest.mark.parametrize("entries", [{"offset": 1 << 40}, {"length": 1 << 40}, {"offset": 300, "length": 200}])
def test_weights_beyond_the_end_of_their_file(bundle: Path, entries: dict[str, int]) -> None:
    with_location("query.weights", **entries)(bundle)
    seal(bundle, read_unchecked(bundle))
    with pytest.raises(BundleError, match=r"up to byte \d+, and that file has \d+ bytes"):
        read_bundle(bundle)


def test_a_graph_that_no_entry_uses_is_looked_at_as_well(bundle: Path) -> None:
    shutil.copyfile(bundle / QUERY, bundle / "graphs" / "more.onnx")
    with_location("../../secret")(bundle)
    (bundle / QUERY).rename(bundle / "graphs" / "more.onnx")
    write_tiny_bundle(bundle.parent / "again", external_weights=True)
    shutil.copyfile(bundle.parent / "again" / QUERY, bundle / QUERY)
    seal(bundle, read_unchecked(bundle))
    with pytest.raises(BundleError, match=r"more\.onnx keeps the weight .* no plain name"):
        read_bundle(bundle)


def test_a_graph_under_another_name(bundle: Path) -> None:
    shutil.copyfile(bundle / "graphs" / "temporal.onnx", bundle / QUERY)
    seal(bundle, read_unchecked(bundle))
    with pytest.raises(
        BundleError, match=r"query\.onnx has the tensors .* It is another graph, or the manifest was edited"
    ):
        read_bundle(bundle)


def test_a_graph_whose_manifest_names_another_output(bundle: Path) -> None:
    manifest = read_bundle(bundle)
    query = manifest.graphs["query"]
    outputs = (*query.outputs, TensorSpec("more", "float32", (-1, HIDDEN)))
    graphs = {**manifest.graphs, "query": dataclasses.replace(query, outputs=outputs)}
    seal(bundle, dataclasses.replace(manifest, graphs=graphs))
    with pytest.raises(BundleError, match=r"query\.onnx has the tensors"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("geometry", {"slots": 17}, "'frame_index' of graph 'cross_modal' has the shape .* elsewhere slots 17"),
        ("geometry", {"frames": 7}, "'frame_features' of graph 'cross_modal' .* elsewhere frames 7, feature_dim 6"),
        ("geometry", {"temporal_slots": 15}, "of graph 'temporal' .* elsewhere temporal_slots 15"),
        ("geometry", {"query_tokens": 9}, "'token_ids' of graph 'query' .* elsewhere query_tokens 9"),
        ("model", {"hidden_size": 5}, "elsewhere .*hidden_size 5"),
        ("model", {"feature_dim": 5}, "elsewhere .*feature_dim 5"),
        ("frame_encoder", {"image_size": 9}, "'images' of graph 'frames' .* elsewhere image_size 9, image_size 9"),
        ("frame_encoder", {"feature_dim": 5}, f"features of width {FEATURES} and that its frame encoder gives 5"),
    ],
)
def test_sizes_that_contradict_one_another(bundle: Path, part: str, change: dict[str, int], message: str) -> None:
    manifest = read_bundle(bundle)
    edited = dataclasses.replace(getattr(manifest, part), **change)
    seal(bundle, dataclasses.replace(manifest, **{part: edited}))
    with pytest.raises(BundleError, match=message):
        read_bundle(bundle)


def test_another_frame_encoder_than_the_manifest_names(bundle: Path) -> None:
    path = bundle / "graphs" / "frames.onnx"
    model = onnx.load(str(path))
    weight = next(item for item in model.graph.initializer if item.data_type == TensorProto.FLOAT)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(2), weight.name))
    onnx.save(model, str(path))
    seal(bundle, read_unchecked(bundle))
    with pytest.raises(
        FingerprintError, match=r"frames\.onnx has the fingerprint .* names the frame encoder 'mean colour'"
    ):
        read_bundle(bundle)
