"""The captioning model: its loss, its checkpoints, its import, its cache, and that it learns to say what it sees."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hero_sdk.errors import InputError
from hero_sdk.rows import PackedVideos, RowGeometry, Segment, VideoInput, pack_videos
from hero_sdk.sentence_search import BeamConfig
from hero_sdk.tokens import SEPARATOR_ID
from hero_train.config import CaptioningConfig, HeroConfig
from hero_train.data.captions import (
    IGNORED_TOKEN,
    CaptionedMoment,
    CaptionVideo,
    EncodedMoment,
    collate_captions,
)
from hero_train.errors import CheckpointError, ConfigError
from hero_train.model.captioning import HeroForCaptioning
from hero_train.model.hero import HeroModel
from hero_train.official import infer_captioning_config, infer_config, load_official
from hero_train.tasks.captioning import CaptioningTask, caption_loss
from tests.parity.oracle import read_dump
from tests.tiny_training import tiny_config

GEOMETRY = RowGeometry(slots=32, frames=16, temporal_slots=16, query_tokens=8)
CONFIG = dataclasses.replace(CaptioningConfig.of(tiny_config()), decoder_positions=12)


def make_model(config: CaptioningConfig = CONFIG) -> HeroForCaptioning:
    torch.manual_seed(0)
    return HeroForCaptioning(config).eval()


def clip_videos(*lengths: int) -> PackedVideos:
    rng = np.random.default_rng(0)
    return pack_videos(
        [
            VideoInput(
                rng.normal(size=(length, CONFIG.feature_dim)).astype(np.float32),
                (Segment(np.arange(length, dtype=np.int32), np.array([SEPARATOR_ID, 7, 8], np.int32)),),
            )
            for length in lengths
        ],
        GEOMETRY,
    )


def moments(*rows: tuple[int, int, int]) -> np.ndarray:
    return np.array(rows, dtype=np.int32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_the_divergence_from_the_softened_target(smoothing: float) -> None:
    rng = np.random.default_rng(1)
    vocabulary, logits, targets = 7, rng.normal(size=(2, 4, 7)), np.array([[3, 0, 6, -1], [2, -1, -1, 5]])
    expected = []
    for row, target in zip(logits.reshape(-1, vocabulary), targets.flatten(), strict=True):
        if target == IGNORED_TOKEN:
            continue
        predicted = np.exp(row) / np.exp(row).sum()
        soft = np.full(vocabulary, smoothing / (vocabulary - 1))
        soft[target] = 1 - smoothing
        expected.append(sum(p * np.log(p / q) for p, q in zip(soft, predicted, strict=True) if p))
    found = caption_loss(torch.from_numpy(logits), torch.from_numpy(targets), smoothing)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_the_loss_of_a_perfect_prediction_is_zero() -> None:
    soft = torch.full((1, 5), 0.1 / 4, dtype=torch.float64)
    soft[0, 2] = 0.9
    assert caption_loss(soft.log(), torch.tensor([2]), 0.1).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("smoothing", [-0.1, 0.99, 1.0])
def test_a_smoothing_out_of_range(smoothing: float) -> None:
    with pytest.raises(ConfigError, match=rf"smoothing is {smoothing}; expected 0 to 0.975"):
        CaptioningTask(make_model(), smoothing)


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path)
    loaded = HeroForCaptioning.from_pretrained(tmp_path)
    assert loaded.config == CONFIG
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert json.loads((tmp_path / "config.json").read_text())["task"] == "captioning"


def test_models_of_two_tasks_are_not_mixed_up(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path / "captioning")
    HeroModel(tiny_config()).save_pretrained(tmp_path / "retrieval")
    with pytest.raises(ConfigError, match="is of a model for captioning; expected one for retrieval"):
        HeroModel.from_pretrained(tmp_path / "captioning")
    with pytest.raises(ConfigError, match="is of a model for retrieval; expected one for captioning"):
        HeroForCaptioning.from_pretrained(tmp_path / "retrieval")


def test_the_default_sizes_are_the_authors() -> None:
    """Less the heads that the released model carries along and never uses: both poolers, both regressions, mask embeddings."""
    with torch.device("meta"):
        model = HeroForCaptioning(CaptioningConfig())
    regression = 768 * 768 + 768 + 2 * 768 + 768 * 4352 + 4352
    order = 768 * 1536 + 1536 + 2 * 1536 + 1536 * 100 + 100
    unused = 2 * (768 * 768 + 768) + regression + order + 2 * 2 * 4352
    assert sum(weight.numel() for weight in model.parameters()) == 136_785_092 - unused


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    return dict(read_dump("tvc_state_dict")["state_dict"])


def test_every_weight_of_an_official_checkpoint_is_loaded_or_left_out_for_a_reason(official: dict[str, Tensor]) -> None:
    buffers = {"decoder.tri_mask": torch.zeros(8, 8), "loss_func.one_hot": torch.zeros(1, 8)}
    model = HeroForCaptioning(infer_captioning_config(official, num_heads=4))
    report = load_official(model, {**official, **buffers})
    assert report.fresh == []
    assert set(report.loaded) | set(report.left_out) == set(official) | set(buffers)
    assert "unknown to this model" not in report.left_out.values()
    assert {report.left_out[name] for name in buffers} == {"a constant buffer"}
    assert report.left_out["v_encoder.f_encoder.lm_head.decoder.weight"] == "the word embeddings once more"
    assert not [name for name in report.left_out if name.startswith(("decoder.layer", "emb_", "position_"))]
    weights = model.state_dict()
    for theirs, ours in {
        "v_encoder.f_encoder.lm_head.bias": "language.bias",
        "position_embeddings.weight": "decoder.position.weight",
        "decoder.layer.1.intermidiate.dense.bias": "decoder.layers.1.intermediate.bias",
        "decoder.layer.0.dec_enc_attention.key.weight": "decoder.layers.0.clips.key.weight",
        "decoder.layer.0.add_norm_2.LayerNorm.weight": "decoder.layers.0.clips.norm.weight",
    }.items():
        assert torch.equal(weights[ours], official[theirs])


def test_a_checkpoint_of_another_task_has_no_decoder() -> None:
    state = read_dump("vcmr_state_dict")["state_dict"]
    with pytest.raises(
        CheckpointError, match=r"has no 'position_embeddings\.weight'; expected the authors' model for TVC"
    ):
        infer_captioning_config(state, num_heads=4)


def test_a_pretrained_model_gives_its_language_head_and_leaves_the_decoder_to_be_trained() -> None:
    state = read_dump("pretrain_state_dict")["state_dict"]
    model = HeroForCaptioning(CaptioningConfig.of(infer_config(state, num_heads=4)))
    report = load_official(model, state)
    assert report.fresh
    assert all(name.startswith("decoder.") for name in report.fresh)
    assert torch.equal(model.language.bias, state["v_encoder.f_encoder.lm_head.bias"])


@pytest.mark.parametrize("row", [(0, 2, 2), (0, 1, 5), (2, 0, 1), (-1, 0, 1), (0, -1, 1)])
def test_a_moment_that_its_video_does_not_have(row: tuple[int, int, int]) -> None:
    model = make_model()
    with pytest.raises(
        InputError, match=rf"clips {row[1]} to {row[2]} \(exclusive\) of video {row[0]}; .*\[4, 3\] clips"
    ):
        model.caption(clip_videos(4, 3), moments((1, 0, 2), row), limit=5)


def test_captions_longer_than_the_decoder_has_positions() -> None:
    with pytest.raises(InputError, match="may have 13 tokens, and the decoder has 12 positions; lower limit"):
        make_model().caption(clip_videos(4), moments((0, 0, 2)), limit=13)
    assert len(make_model().caption(clip_videos(4), moments((0, 0, 2)), limit=12)) == 1


def test_no_moment_to_caption() -> None:
    with pytest.raises(InputError, match="There is no moment to caption"):
        make_model().caption(clip_videos(4), moments().reshape(0, 3), limit=5)


def test_a_step_reads_nothing_of_the_cache_from_its_place_on() -> None:
    model = make_model()
    with torch.no_grad():
        clips, mask = model.encode_moments(clip_videos(4, 3), moments((0, 0, 2), (1, 0, 3)))
        memory = model.decoder.prefill(clips)
        clean = model.empty_cache(2, 6)
        first = torch.tensor([0, 0])
        _, clean = model.step(first, torch.tensor([0, 0]), clean, memory, mask)
        dirty = clean.clone()
        dirty[..., 1:, :] = 1e3
        place = torch.tensor([1, 1])
        expected, _ = model.step(torch.tensor([9, 5]), place, clean, memory, mask)
        found, grown = model.step(torch.tensor([9, 5]), place, dirty, memory, mask)
    assert torch.equal(found, expected)
    assert torch.equal(grown[..., 0, :], clean[..., 0, :])
    assert (grown[..., 2:, :] == 1e3).all()


def test_captions_may_be_at_different_places() -> None:
    """What joins requests of several clients: each row has its own position."""
    model = make_model()
    words = torch.tensor([[0, 9, 5, 3], [0, 4, 4, 6]])
    with torch.no_grad():
        clips, mask = model.encode_moments(clip_videos(4, 3), moments((0, 0, 2), (1, 0, 3)))
        whole = model.scores(words, clips, mask)
        memory, cache = model.decoder.prefill(clips), model.empty_cache(2, 6)
        _, cache = model.step(words[:, 0], torch.tensor([0, 0]), cache, memory, mask)
        # The first caption goes two words ahead of the second.
        for place in (1, 2):
            _, cache[:1] = model.step(words[:1, place], torch.tensor([place]), cache[:1], memory[:1], mask[:1])
        logits, _ = model.step(torch.tensor([3, 4]), torch.tensor([3, 1]), cache, memory, mask)
    torch.testing.assert_close(logits, torch.stack([whole[0, 3], whole[1, 1]]), rtol=0, atol=1e-5)


def test_it_learns_to_say_which_clip_it_sees() -> None:
    """Four pictures in one video; the caption of each names it, so it can only be read off the moment's clips."""
    rng = np.random.default_rng(3)
    pictures = rng.normal(size=(4, CONFIG.feature_dim)).astype(np.float32)
    names = [np.array([20 + number, 30, 25 - number], dtype=np.int32) for number in range(4)]
    said = [
        EncodedMoment(CaptionedMoment(str(number), "v", 0.0, 1.0, ()), 2 * number, 2 * number + 2, (names[number],))
        for number in range(4)
    ]
    shown = CaptionVideo("v", VideoInput(np.repeat(pictures, 2, axis=0), ()), said)
    batch = collate_captions([shown], GEOMETRY, 10)
    task = CaptioningTask(make_model().train())
    optimiser = torch.optim.AdamW(task.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        loss = task(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    task.eval()
    for beam in (None, BeamConfig(width=3)):
        captions = task.model.caption(batch.packed, batch.moments, limit=10, beam=beam)
        assert [caption.tolist() for caption in captions] == [name.tolist() for name in names]


def test_a_retrieval_configuration_keeps_its_sizes_for_captioning() -> None:
    base = HeroConfig(vocab_size=40, hidden_size=16, num_heads=2)
    assert CaptioningConfig.of(base) == CaptioningConfig(vocab_size=40, hidden_size=16, num_heads=2)
    with pytest.raises(ConfigError, match="decoder_layers is 0; it must be positive"):
        CaptioningConfig(decoder_layers=0)
