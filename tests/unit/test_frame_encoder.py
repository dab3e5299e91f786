"""Frame encoders: any ONNX graph with the right input and output, and none with another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save_model

from hero_sdk.errors import BundleError, FingerprintError, InputError
from hero_sdk.frame_encoder import GRAPH_FILE, SPEC_FILE, describe_frame_encoder, load_frame_encoder
from hero_sdk.manifest import sha256_of
from tests.made_videos import brightness, write_video


def write_encoder(folder: Path, **change: object) -> Path:
    """An encoder whose features are the mean colour of a picture; ``change`` breaks its interface."""
    made = {"input": "images", "output": "features", "dtype": TensorProto.UINT8, "shape": ["batch", 8, 8, 3], **change}
    folder.mkdir(parents=True, exist_ok=True)
    nodes = [
        helper.make_node("Cast", [str(made["input"])], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], [str(made["output"])], keepdims=0),
    ]
    shape = made["shape"]
    assert isinstance(shape, list)
    graph = helper.make_graph(
        nodes,
        "mean colour",
        [helper.make_tensor_value_info(str(made["input"]), int(str(made["dtype"])), shape)],
        [helper.make_tensor_value_info(str(made["output"]), TensorProto.FLOAT, [shape[0], shape[-1]])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    save_model(model, folder / GRAPH_FILE)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    describe_frame_encoder(write_encoder(tmp_path / "encoder"), "mean colour")
    return tmp_path / "encoder"


def test_description(folder: Path) -> None:
    spec = load_frame_encoder(folder, threads=1).spec
    assert (spec.name, spec.image_size, spec.feature_dim) == ("mean colour", 8, 3)
    assert spec.fingerprint == sha256_of(folder / GRAPH_FILE)
    assert json.loads((folder / SPEC_FILE).read_text(encoding="utf-8"))["feature_dim"] == 3


def test_encode_any_number_of_images(folder: Path) -> None:
    encoder = load_frame_encoder(folder, threads=1)
    images = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 3), dtype=np.uint8)
    for count in (1, 32, 33, 70):
        features = encoder.encode(images[:count])
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, images[:count].mean(axis=(1, 2)), atol=1e-3)
    with pytest.raises(InputError, match=r"'images' of graph 'mean colour' is float32"):
        encoder.encode(images.astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"expected uint8 of shape \(batch, 8, 8, 3\)"):
        encoder.encode(images[:, :4])


def test_encode_video(folder: Path, tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", [number / 2 for number in range(14)])
    features, duration = load_frame_encoder(folder, threads=1).encode_video(path, 1.5)
    assert features.shape == (4, 3)
    assert duration == pytest.approx(6.5, abs=0.1)
    assert features.mean(axis=1) == pytest.approx([brightness(seconds) for seconds in (0.5, 2.0, 3.5, 5.0)], abs=4)


def test_another_graph_under_the_same_description(folder: Path) -> None:
    with (folder / GRAPH_FILE).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(FingerprintError, match="was written for"):
        load_frame_encoder(folder)


@pytest.mark.parametrize("name", [GRAPH_FILE, SPEC_FILE])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"has no {name}"):
        load_frame_encoder(folder)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"name": "x"}', '{"name": "x", "image_size": true, "feature_dim": 3, "fingerprint": "0"}']
)
def test_a_description_that_cannot_be_read(folder: Path, content: str) -> None:
    (folder / SPEC_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(BundleError, match="Describe the frame encoder again"):
        load_frame_encoder(folder)


def test_a_description_of_other_sizes(folder: Path) -> None:
    content = json.loads((folder / SPEC_FILE).read_text(encoding="utf-8"))
    (folder / SPEC_FILE).write_text(json.dumps({**content, "image_size": 16}), encoding="utf-8")
    with pytest.raises(BundleError, match="takes images of 8 pixels"):
        load_frame_encoder(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"input": "pixel_values"},
        {"output": "embeddings"},
        {"dtype": TensorProto.FLOAT},
        {"shape": [1, 8, 8, 3]},
        {"shape": ["batch", "height", "width", 3]},
        {"shape": ["batch", 3, 8, 8]},
        {"shape": ["batch", 8, 6, 3]},
    ],
)
def test_graphs_with_another_interface(tmp_path: Path, change: dict) -> None:
    with pytest.raises(BundleError, match="a frame encoder has one input 'images'"):
        describe_frame_encoder(write_encoder(tmp_path, **change), "other")
    assert not (tmp_path / SPEC_FILE).exists()
