"""HERO's captioning model computes what the authors' implementation computes: clips, scores, losses, gradients and captions.

The tolerances are those of the oracle's README: 1e-5 on activations, 1e-4 on logits and losses.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hero_sdk.captioning import moment_span
from hero_sdk.rows import PackedVideos, RowGeometry
from hero_sdk.sentence_search import BeamConfig, beam_search
from hero_train.config import CaptioningConfig
from hero_train.model.captioning import CachedStep, HeroForCaptioning
from hero_train.official import infer_captioning_config, load_official
from hero_train.official_names import our_name
from hero_train.tasks.captioning import caption_loss
from tests.parity.oracle import OracleBatch, assert_close, oracle_folder, read_dump

ACTIVATION, LOGIT = 1e-5, 1e-4
PACKED = RowGeometry(slots=96, frames=48, temporal_slots=64, query_tokens=32)


def read_captioner() -> HeroForCaptioning:
    state = read_dump("tvc_state_dict")["state_dict"]
    sizes = json.loads((oracle_folder() / "config" / "hero_tvc.json").read_text())["d_config"]
    model = HeroForCaptioning(infer_captioning_config(state, num_heads=sizes["num_attention_heads"]))
    load_official(model, state)
    return model


def moments_of(batch: dict[str, Any]) -> np.ndarray:
    """The moments of a batch of the authors' loader, (N, 3)."""
    ranges = [(video, *span) for video, spans in enumerate(batch["clip_ranges"]) for span in spans]
    return np.array(ranges, dtype=np.int32)


@pytest.fixture(scope="module")
def dump() -> dict[str, Any]:
    return dict(read_dump("tvc_io"))


@pytest.fixture(scope="module")
def model() -> HeroForCaptioning:
    return read_captioner()


@pytest.fixture(scope="module")
def packed(dump: dict[str, Any]) -> PackedVideos:
    return OracleBatch(dump["batch"]).pack(PACKED)


@pytest.fixture(scope="module")
def encoded(dump: dict[str, Any], model: HeroForCaptioning, packed: PackedVideos) -> tuple[Tensor, Tensor]:
    """Clips and mask of the captions' moments."""
    with torch.no_grad():
        return model.encode_moments(packed, moments_of(dump["batch"]))


def test_sizes_are_those_of_the_authors_configuration(model: HeroForCaptioning) -> None:
    sizes = json.loads((oracle_folder() / "config" / "hero_tvc.json").read_text())
    decoder, encoder = sizes["d_config"], sizes["f_config"]
    assert isinstance(model.config, CaptioningConfig)
    assert model.config.decoder_layers == decoder["num_hidden_layers"]
    assert model.config.decoder_positions == decoder["max_position_embeddings"]
    assert model.config.intermediate_size == decoder["intermediate_size"] == encoder["intermediate_size"]
    assert model.config.cross_modal_layers == encoder["num_hidden_layers"]


def test_the_moments_clips(dump: dict[str, Any], encoded: tuple[Tensor, Tensor]) -> None:
    clips, mask = encoded
    assert torch.equal(mask, dump["batch"]["cap_attn_mask"].bool())
    assert not mask.all(), "all moments are of one length, so nothing was padded"
    assert_close(clips, dump["encoder_outputs"], ACTIVATION)


def test_scores_of_every_word(dump: dict[str, Any], model: HeroForCaptioning, encoded: tuple[Tensor, Tensor]) -> None:
    batch = dump["batch"]
    scores = model.scores(batch["cap_input_ids"], *encoded)
    # What stands after the end is padding, which both read as words.
    assert_close(scores, dump["scores"], LOGIT)
    assert_close(scores.logsumexp(dim=-1), dump["scores_logsumexp"], LOGIT)
    assert torch.equal(scores.argmax(dim=-1), dump["scores_argmax"])


def test_loss_of_every_token_and_every_gradient(dump: dict[str, Any], packed: PackedVideos) -> None:
    model, batch = read_captioner(), dump["batch"]
    scores = model.scores(batch["cap_input_ids"], *model.encode_moments(packed, moments_of(batch)))
    loss = caption_loss(scores, batch["cap_tgt_ids"], read_dump("tvc_state_dict")["meta"]["lsr"])
    assert_close(loss, dump["loss"], LOGIT)
    loss.mean().backward()
    parameters = dict(model.named_parameters())
    compared = set()
    for official, expected in dump["grads"].items():
        ours = our_name(official)
        assert ours is not None, f"{official} has a gradient in the oracle and no place in the model"
        assert_close(parameters[ours].grad, expected, LOGIT)
        compared.add(ours)
    missing = {name for name, parameter in parameters.items() if parameter.grad is not None} - compared
    assert not missing, f"gradients that the oracle does not have: {sorted(missing)}"
    assert compared == set(parameters), f"weights without a gradient: {sorted(set(parameters) - compared)}"


@pytest.fixture(scope="module")
def greedy(dump: dict[str, Any]) -> dict[str, Any]:
    return dict(dump["greedy"])


@pytest.fixture(scope="module")
def greedy_packed(greedy: dict[str, Any]) -> PackedVideos:
    return OracleBatch(greedy["batch"]).pack(PACKED)


def test_greedy_captions_token_for_token(
    greedy: dict[str, Any], model: HeroForCaptioning, greedy_packed: PackedVideos
) -> None:
    captions = model.caption(greedy_packed, moments_of(greedy["batch"]), limit=greedy["max_step"])
    assert [caption.tolist() for caption in captions] == greedy["outputs"]
    assert len({len(caption) for caption in captions}) > 1, "no caption ended early, so the end was never met"


def test_a_beam_of_one_is_greedy(greedy: dict[str, Any], model: HeroForCaptioning, greedy_packed: PackedVideos) -> None:
    moments = moments_of(greedy["batch"])
    captions = model.caption(greedy_packed, moments, limit=greedy["max_step"], beam=BeamConfig(width=1))
    assert [caption.tolist() for caption in captions] == greedy["outputs"]


def test_the_clips_of_a_moment_are_the_authors(greedy: dict[str, Any]) -> None:
    batch = greedy["batch"]
    clips = batch["c_attn_masks"].sum(dim=1).tolist()
    interval = CaptioningConfig().clip_interval
    spans = [(clips[video], *span) for video, spans in enumerate(batch["clip_ranges"]) for span in spans]
    assert len(spans) == len(batch["all_ts"])
    for (length, first, stop), (start, end) in zip(spans, batch["all_ts"], strict=True):
        assert moment_span(start, end, interval, length) == (first, stop)


def test_cached_steps_equal_whole_sentences(
    dump: dict[str, Any], model: HeroForCaptioning, encoded: tuple[Tensor, Tensor]
) -> None:
    token_ids = dump["batch"]["cap_input_ids"].int()
    count, length = token_ids.shape
    step = CachedStep(model, *encoded, length)
    rows = np.arange(count, dtype=np.int32)
    stepped = [torch.from_numpy(step(token_ids[:, place].numpy(), place, rows)) for place in range(length)]
    assert_close(torch.stack(stepped, dim=1), dump["scores"], LOGIT)


def test_cached_steps_follow_the_rows_that_they_continue(
    dump: dict[str, Any], model: HeroForCaptioning, encoded: tuple[Tensor, Tensor]
) -> None:
    """Rows are dropped, doubled and swapped, as beams do; each must go on with its own words and its own clips."""
    rng = np.random.default_rng(0)
    clips, mask = encoded
    step = CachedStep(model, clips, mask, 6)
    words = np.zeros((len(clips), 0), dtype=np.int32)
    owner = np.arange(len(clips))
    for position in range(6):
        source = rng.integers(len(words), size=rng.integers(1, 9)).astype(np.int32)
        owner = owner[source]
        last = rng.integers(3, model.config.vocab_size, size=len(source)).astype(np.int32)
        words = np.concatenate([words[source], last[:, None]], axis=1)
        logits = step(last, position, source)
        whole = model.scores(torch.from_numpy(words), clips[owner], mask[owner])[:, -1]
        assert_close(torch.from_numpy(logits), whole.detach(), LOGIT)


def test_a_beam_finds_what_a_beam_on_whole_sentences_finds(
    model: HeroForCaptioning, encoded: tuple[Tensor, Tensor]
) -> None:
    clips, mask = encoded
    state: dict[str, np.ndarray] = {"words": np.zeros((len(clips), 0), np.int32), "owner": np.arange(len(clips))}

    def uncached(tokens: np.ndarray, position: int, source: np.ndarray) -> np.ndarray:
        state["words"] = np.concatenate([state["words"][source], tokens[:, None]], axis=1)
        state["owner"] = state["owner"][source]
        owner = torch.from_numpy(state["owner"])
        with torch.no_grad():
            return model.scores(torch.from_numpy(state["words"]), clips[owner], mask[owner])[:, -1].numpy()

    config = BeamConfig(width=3)
    found = beam_search(CachedStep(model, clips, mask, 8), len(clips), 8, config)
    expected = beam_search(uncached, len(clips), 8, config)
    for ours, theirs in zip(found, expected, strict=True):
        assert [one.tokens.tolist() for one in ours] == [one.tokens.tolist() for one in theirs]
        assert [one.log_probability for one in ours] == pytest.approx(
            [one.log_probability for one in theirs], abs=LOGIT
        )


def test_a_moment_alone_gets_the_caption_that_it_gets_in_a_batch(
    greedy: dict[str, Any], model: HeroForCaptioning, greedy_packed: PackedVideos
) -> None:
    moments = moments_of(greedy["batch"])
    for number, moment in enumerate(moments):
        (caption,) = model.caption(greedy_packed, moment[None], limit=greedy["max_step"])
        assert caption.tolist() == greedy["outputs"][number]
