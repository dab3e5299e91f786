"""The baselines in PyTorch: padding as the authors pad, and one result whatever the layout."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from hero_bench.eager import PaddedModel, TorchEngine, load_model, torch_threads
from hero_bench.errors import BenchmarkError
from hero_bench.padded_encoding import encode_padded, encode_subtitles
from hero_bench.padding import pad_videos, slot_counts
from hero_export.onnx.graphs import graphs_of
from hero_sdk import Hero, InputError, Subtitle
from hero_sdk.hero import VideoFeatures
from hero_sdk.manifest import GraphSpec, Manifest, ModelSpec
from hero_sdk.rows import Segment, VideoInput, pack_videos
from hero_sdk.tokens import TextTokenizer
from hero_train.model.hero import HeroModel
from hero_train.tokenizer import train_tokenizer_json
from tests.tiny_checkpoint import CONFIG, GEOMETRY, SENTENCES, make_model
from tests.unit.numpy_engine import make_manifest

TOKENIZER = train_tokenizer_json(SENTENCES, CONFIG.vocab_size - 10)


@pytest.fixture(scope="module")
def model() -> HeroModel:
    return make_model()


@pytest.fixture(scope="module")
def manifest(model: HeroModel) -> Manifest:
    graphs = {
        graph.name: GraphSpec(graph.file, "fp32", 4, graph.inputs, graph.outputs)
        for graph in graphs_of(model, GEOMETRY).values()
    }
    spec = ModelSpec(CONFIG.feature_dim, CONFIG.hidden_size, CONFIG.clip_interval, CONFIG.clip_limit)
    return dataclasses.replace(make_manifest(), model=spec, geometry=GEOMETRY, graphs=graphs)


def segment(frames: list[int], tokens: list[int]) -> Segment:
    return Segment(np.array(frames, np.int32), np.array(tokens, np.int32))


def features(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, CONFIG.feature_dim), dtype=np.float32)


@pytest.fixture
def videos() -> list[VideoInput]:
    """With subtitles of all lengths, one without frames, one without text, and frames that nobody owns or two own."""
    first = (segment([0, 1, 2], [2, 7, 9]), segment([], [2, 30, 31, 32, 33, 34]), segment([3, 5], []))
    second = (segment([1], [2, 40]), segment([1, 2], [2, 41, 42, 43]))
    return [VideoInput(features(7), first), VideoInput(features(4, 1), second)]


def test_rows_are_as_long_as_the_longest_subtitle_and_video(videos: list[VideoInput]) -> None:
    padded = pad_videos(videos)
    assert padded.token_ids.tolist()[1] == [2, 30, 31, 32, 33, 34]
    assert padded.token_ids.tolist()[3] == [2, 40, 1, 1, 1, 1]
    assert padded.frame_features.shape == (5, 3, CONFIG.feature_dim)
    np.testing.assert_array_equal(padded.frame_features[2, :2], videos[0].features[[3, 5]])
    assert not padded.frame_features[2, 2:].any()
    assert padded.mask.shape == (5, 7)  # six tokens, and the dummy frame of a subtitle without frames
    assert padded.mask.sum(axis=1).tolist() == [6, 6, 2, 3, 6]
    assert padded.mask.tolist()[1] == [False, *[True] * 6]
    # Three places for frames, then those for tokens.
    assert padded.gather_index.tolist()[3] == [0, 3, 4, 3, 4, 5, 6]
    assert padded.video_features.shape == (2, 7, CONFIG.feature_dim)
    assert padded.video_mask.tolist() == [[True] * 7, [True] * 4 + [False] * 3]


def test_padded_and_packed_rows_give_one_result(videos: list[VideoInput], model: HeroModel) -> None:
    packed = pack_videos(videos, GEOMETRY)
    with torch.inference_mode():
        expected = packed.unpack(model.encode_videos(packed).numpy())
        clips, mask = encode_padded(model, pad_videos(videos))
    assert mask.sum(dim=1).tolist() == [7, 4]
    for row, real, other in zip(clips, mask, expected, strict=True):
        np.testing.assert_allclose(row[real].numpy(), other, atol=2e-5)


def test_each_subtitle_gets_what_it_gets_alone(videos: list[VideoInput], model: HeroModel) -> None:
    with torch.inference_mode():
        together = encode_subtitles(model, pad_videos(videos)).numpy()
        subtitles = [(video, one) for video in videos for one in video.segments]
        for row, (video, one) in zip(together, subtitles, strict=True):
            alone = encode_subtitles(model, pad_videos([VideoInput(video.features, (one,))])).numpy()[0]
            used = max(len(one.frames), 1) + len(one.tokens)
            first = 0 if len(one.frames) else 1  # behind the dummy
            np.testing.assert_allclose(row[first:used], alone[first:used], atol=2e-5)


@pytest.mark.parametrize(("clips", "lines"), [(1, 1), (7, 0), (13, 4), (45, 12)])
def test_the_three_ways_through_torch_agree(model: HeroModel, manifest: Manifest, clips: int, lines: int) -> None:
    """Subtitles and features in, embeddings out; 45 clips are more than the model reads at once."""
    share = clips * 1.5 / max(lines, 1)
    subtitles = tuple(Subtitle(n * share, (n + 0.9) * share, SENTENCES[n % 4]) for n in range(lines))
    video = VideoFeatures(features(clips), subtitles)
    packed = Hero(TorchEngine(model, manifest, TOKENIZER))
    padded = PaddedModel(model, manifest, TOKENIZER)
    (one,), (other,) = packed.encode_many([video]), padded.encode_many([video])
    assert one.clip_embeddings.shape == (clips, CONFIG.hidden_size)
    np.testing.assert_allclose(other.clip_embeddings, one.clip_embeddings, atol=2e-5)
    assert (other.duration, other.clip_interval, other.subtitles) == (one.duration, one.clip_interval, one.subtitles)


def test_queries_agree_and_are_padded_to_the_longest_only(model: HeroModel, manifest: Manifest) -> None:
    texts = ["who", "where is the gem", "the robot takes a red gem and looks at the sky"]
    packed = Hero(TorchEngine(model, manifest, TOKENIZER)).encode_queries(texts)
    padded = PaddedModel(model, manifest, TOKENIZER).encode_queries(texts)
    for one, other in zip(packed, padded, strict=True):
        assert one.text == other.text
        np.testing.assert_allclose(other.vector, one.vector, atol=2e-5)
        np.testing.assert_allclose(other.span_vector, one.span_vector, atol=2e-5)
    seen: list[tuple[int, ...]] = []
    hook = model.cross_modal.text.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    try:
        PaddedModel(model, manifest, TOKENIZER).encode_queries(texts[:2])
    finally:
        hook.remove()
    assert seen == [(2, max(len(TextTokenizer(TOKENIZER).encode_query(text)) for text in texts[:2]))]


def test_slots_are_counted(manifest: Manifest) -> None:
    lines = [(0.0, 5.9, "where is the gem"), (6.0, 8.9, "who are"), (9.0, 11.9, "the robot takes a red")]
    frames = [4, 2, 2]
    # A separator stands in front of the text.
    sizes = [
        count + 1 + len(TextTokenizer(TOKENIZER).encode(text))
        for count, (_, _, text) in zip(frames, lines, strict=True)
    ]
    assert len(set(sizes)) == 3
    video = VideoFeatures(features(8), tuple(Subtitle(*line) for line in lines))
    counts = slot_counts(video, manifest, TOKENIZER)
    assert counts == {"used slots": sum(sizes), "packed slots": GEOMETRY.slots, "padded slots": 3 * max(sizes)}


def test_torch_has_no_frame_encoder(model: HeroModel, manifest: Manifest) -> None:
    with pytest.raises(InputError, match="no graph 'frames'"):
        TorchEngine(model, manifest, TOKENIZER).run("frames", {})


@pytest.mark.parametrize(
    "change", [{"hidden_size": 64}, {"feature_dim": 25}, {"clip_limit": 10}, {"subtitle_context": 1}]
)
def test_a_checkpoint_of_other_sizes_is_refused(
    model: HeroModel, manifest: Manifest, tmp_path: Path, change: dict[str, int]
) -> None:
    model.save_pretrained(tmp_path)
    other = dataclasses.replace(manifest, model=dataclasses.replace(manifest.model, **change))
    assert load_model(str(tmp_path), manifest, TOKENIZER).config == CONFIG
    with pytest.raises(BenchmarkError, match=f"{next(iter(change))}={next(iter(change.values()))}"):
        load_model(str(tmp_path), other, TOKENIZER)


def test_a_checkpoint_with_too_few_words_is_refused(model: HeroModel, manifest: Manifest, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    more = train_tokenizer_json([*SENTENCES, "quick brown foxes jump over lazy dogs, zigzag " * 3], 340)
    with pytest.raises(BenchmarkError, match="300 word embeddings"):
        load_model(str(tmp_path), manifest, more)


def test_the_threads_of_torch_are_put_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
