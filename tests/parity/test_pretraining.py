"""Pre-training computes what the authors' implementation computes: every task's scores, losses and gradients.

The tolerances are those of the oracle's README: 1e-4 on logits and losses.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hero_sdk.rows import Segment, VideoInput, pack_videos
from hero_train.data.masking import hide_frames, move_frames
from hero_train.data.pretraining import FrameBatch, OrderBatch, WordBatch
from hero_train.data.sampling import RetrievalBatch
from hero_train.losses import IGNORED_TARGET, RetrievalLossConfig, ranking_losses, retrieval_loss, span_loss
from hero_train.losses_pretraining import classification_loss, contrast_loss, regression_loss
from hero_train.model.pretraining import HeroForPretraining
from hero_train.official_models import PRETRAINING, task_model_from_official
from hero_train.official_names import our_name
from hero_train.tasks.pretraining import PretrainingTask
from hero_train.tasks.retrieval import RetrievalTask
from tests.parity.authors import PACKED, authors_layout, authors_span_logits, loss_settings, padded_temporal
from tests.parity.oracle import OracleBatch, assert_close, oracle_folder, read_dump

LOGIT = 1e-4


@pytest.fixture(scope="module")
def dump() -> dict[str, Any]:
    return dict(read_dump("pretrain_io"))


@pytest.fixture
def model() -> HeroForPretraining:
    """The oracle's model; a new one for each test, as some compute gradients."""
    stored = read_dump("pretrain_state_dict")
    sizes = json.loads((oracle_folder() / "config" / "hero_finetune.json").read_text())["f_config"]
    vocabulary = sizes["vocab_size"] - stored["meta"]["vocab_pad"]
    model, report = task_model_from_official(
        stored["state_dict"], PRETRAINING, num_heads=sizes["num_attention_heads"], vocabulary=vocabulary
    )
    assert isinstance(model, HeroForPretraining)
    assert report.fresh == []
    assert set(report.left_out.values()) <= {
        "a constant buffer",
        "the word embeddings once more",
        "computed by the authors' code but never used",
        "never used by the authors' code",
    }
    return model


def assert_gradients(model: HeroForPretraining, expected: dict[str, Tensor]) -> None:
    """Every gradient of the oracle, and none that it does not have."""
    parameters = dict(model.named_parameters())
    names = {official: our_name(official) for official in expected}
    for official, ours in names.items():
        assert ours in parameters, f"{official} has a gradient in the oracle and no place in the model"
        gradient = parameters[ours].grad
        assert gradient is not None, f"{ours} has no gradient"
        assert_close(gradient, expected[official], LOGIT)
    there = {name for name, parameter in parameters.items() if parameter.grad is not None and parameter.grad.any()}
    assert there <= set(names.values()), "gradients that the oracle does not have"


def word_batch(raw: dict[str, Tensor]) -> WordBatch:
    """The authors' rows taken apart, each as a video of one subtitle, and packed; labels laid out slot by slot."""
    table = raw["v_feat"].shape[1]
    videos, texts = [], []
    labels = iter(raw["txt_labels"].tolist())
    for row in range(len(raw["input_ids"])):
        real = raw["attn_masks"][row].bool()
        source, asked = raw["gather_index"][row][real], raw["txt_mask_tgt"][row][real]
        frames, words = source[source < table], source[source >= table] - table
        assert not asked[: len(frames)].any()
        texts.append([next(labels) if chosen else IGNORED_TARGET for chosen in asked[len(frames) :].tolist()])
        tokens = raw["input_ids"][row][words].numpy().astype(np.int32)
        segment = Segment(np.arange(len(frames), dtype=np.int32), tokens)
        # A video needs a frame, also where its subtitle owns none.
        videos.append(VideoInput(raw["v_feat"][row, : max(1, len(frames))].numpy(), (segment,)))
    assert next(labels, None) is None
    packed = pack_videos(videos, PACKED, keep_frameless=True)
    laid = np.full(packed.cross_modal.token_ids.shape, IGNORED_TARGET, dtype=np.int32)
    for (span,), words in zip(packed.segments, texts, strict=True):
        assert span is not None
        stop = span.start + span.length
        laid[span.row, stop - len(words) : stop] = words
    return WordBatch(packed, laid)


def test_masked_words(dump: dict[str, Any], model: HeroForPretraining) -> None:
    part = dump["mlm"]
    batch = word_batch(part["batch"])
    assert batch.packed.cross_modal.segment_ids.max() > 1, "nothing was packed together"
    # In the order of the oracle, which is that of the subtitles.
    asked = []
    for (span,) in batch.packed.segments:
        assert span is not None
        asked += [(span.row, slot) for slot in range(span.start, span.start + span.length)]
    rows, slots = (torch.tensor(places) for places in zip(*asked, strict=True))
    labels = torch.from_numpy(batch.labels)[rows, slots]
    chosen = labels != IGNORED_TARGET
    assert torch.equal(labels[chosen].long(), part["batch"]["txt_labels"])
    hidden = model.cross_modal(**model.tensors(batch.packed.cross_modal.arrays()))[rows, slots]
    logits = model.word_logits(hidden[chosen])
    assert_close(logits, part["eval_no_loss"], LOGIT)
    each = torch.stack(
        [classification_loss(*pair) for pair in zip(logits[:, None], labels[chosen][:, None], strict=True)]
    )
    assert_close(each, part["eval_loss"], LOGIT)
    assert_close(each, part["train_loss_raw"], LOGIT)
    loss = PretrainingTask(model, RetrievalLossConfig())(batch)
    assert_close(loss, part["train_loss"], LOGIT)
    loss.backward()
    assert_gradients(model, part["grads"])


def frame_batch(oracle: OracleBatch, objective: str) -> FrameBatch:
    """The oracle's masks on its videos: which slots of both stages are masked, and what was there."""
    raw = oracle.raw
    masks = [mask[:length].numpy() for mask, length in zip(raw["c_v_masks"], oracle.lengths, strict=True)]
    features = raw["c_v_feats"].clone()
    features[raw["c_v_masks"]] = raw["feat_targets"]
    whole = [
        VideoInput(values[: len(mask)].numpy(), video.segments)
        for values, mask, video in zip(features, masks, oracle.videos, strict=True)
    ]
    hidden = [hide_frames(video, mask) for video, mask in zip(whole, masks, strict=True)]
    for ours, theirs in zip(hidden, oracle.videos, strict=True):
        np.testing.assert_array_equal(ours.features, theirs.features)
    packed = pack_videos(hidden, PACKED)
    # A frame is masked where packing the whole videos gives something else.
    truth = pack_videos(whole, PACKED)
    changed = {
        name: (getattr(truth, name).frame_features != getattr(packed, name).frame_features).any(axis=-1)
        for name in ("cross_modal", "temporal")
    }
    return FrameBatch(
        packed=packed,
        masks=changed,
        features=truth.temporal.frame_features[changed["temporal"]],
        objective="mffr" if objective == "mffr" else "mfm_nce",
    )


def masked_layout(model: HeroForPretraining, oracle: OracleBatch, batch: FrameBatch) -> Tensor:
    """Clip embeddings of the authors' padded layout, in which padding gets the embedding of unmasked frames: (V, L, hidden)."""
    first = model.tensors(batch.packed.cross_modal.arrays())
    marks = torch.from_numpy(batch.masks["cross_modal"])
    first["frame_features"] = first["frame_features"] + model.cross_modal_mask(marks.long())
    matched, mask = model.unpack(batch.packed, model.regroup(batch.packed, model.cross_modal(**first)))
    features = oracle.raw["c_v_feats"] + model.temporal_mask(oracle.raw["c_v_masks"].long())
    return padded_temporal(model, oracle, features, matched, mask)


@pytest.mark.parametrize("task", ["mfm-nce", "mffr"])
def test_predictions_at_masked_frames(dump: dict[str, Any], model: HeroForPretraining, task: str) -> None:
    part = dump[task]
    oracle = OracleBatch(part["batch"])
    batch = frame_batch(oracle, task)
    clips, mask = model.unpack(batch.packed, model.encode_masked_videos(batch.packed, batch.masks))
    chosen = part["batch"]["c_v_masks"]
    assert not (chosen & ~mask).any()
    masked, others = part["eval_no_loss"] if task == "mfm-nce" else (part["eval_no_loss"], None)
    assert_close(model.regression(clips[chosen]), masked, LOGIT)
    if others is not None:
        # The oracle's others have the padding among them.
        assert_close(model.regression(clips[mask & ~chosen]), others[mask[~chosen]], LOGIT)


def test_regression_of_masked_frames(dump: dict[str, Any], model: HeroForPretraining) -> None:
    part = dump["mffr"]
    squares = part["eval_loss"]
    distance = regression_loss(part["eval_no_loss"], part["batch"]["feat_targets"])
    assert_close(distance, squares.sum(dim=1).sqrt(), LOGIT)
    assert_close(distance, part["train_loss_raw"].sum(dim=1).sqrt(), LOGIT)
    loss = PretrainingTask(model, RetrievalLossConfig())(frame_batch(OracleBatch(part["batch"]), "mffr"))
    assert_close(loss, part["train_loss"], LOGIT)
    loss.backward()
    assert_gradients(model, part["grads"])


def test_contrast_of_masked_frames_with_the_authors_padding(dump: dict[str, Any], model: HeroForPretraining) -> None:
    part = dump["mfm-nce"]
    oracle = OracleBatch(part["batch"])
    chosen = part["batch"]["c_v_masks"]
    clips = masked_layout(model, oracle, frame_batch(oracle, "mfm-nce"))
    masked, others = model.regression(clips[chosen]), model.regression(clips[~chosen])
    assert_close(others, part["eval_no_loss"][1], LOGIT)
    each = contrast_loss(masked, part["batch"]["feat_targets"], others)
    assert_close(each, part["eval_loss"], LOGIT)
    assert_close(each, part["train_loss_raw"], LOGIT)
    assert_close(each.mean(), part["train_loss"], LOGIT)
    each.mean().backward()
    assert_gradients(model, part["grads"])


def test_contrast_of_masked_frames_leaves_padding_out(dump: dict[str, Any], model: HeroForPretraining) -> None:
    """Of the oracle's predictions those at real frames, and the loss written out one masked frame at a time."""
    part = dump["mfm-nce"]
    oracle = OracleBatch(part["batch"])
    masked, others = part["eval_no_loss"]
    real = others[oracle.frame_mask[~part["batch"]["c_v_masks"]]]
    assert len(real) < len(others), "this oracle has no padding, so the test shows nothing"
    losses = []
    for number, prediction in enumerate(masked):
        scores = [float(prediction @ other) for other in [*part["batch"]["feat_targets"], *real]]
        losses.append(float(np.logaddexp.reduce(scores)) - scores[number])
    loss = PretrainingTask(model, RetrievalLossConfig())(frame_batch(oracle, "mfm-nce"))
    assert_close(loss, torch.tensor(np.mean(losses), dtype=torch.float32), LOGIT)


def test_frame_order(dump: dict[str, Any], model: HeroForPretraining) -> None:
    part = dump["fom"]
    raw, oracle = part["batch"], OracleBatch(part["batch"])
    moved = [
        move_frames(video, order[: len(video.features)].numpy().astype(np.int32))
        for video, order in zip(oracle.videos, raw["shuffled_orders"], strict=True)
    ]
    packed = pack_videos(moved, PACKED)
    clips, mask = model.unpack(packed, model.encode_videos(packed))
    assert_close(model.order(clips[mask]), part["eval_no_loss"][mask.flatten()], LOGIT)
    labels = np.full(packed.temporal.segment_ids.shape, IGNORED_TARGET, dtype=np.int32)
    for span, targets in zip(packed.videos, raw["targets"], strict=True):
        labels[span.row, span.start : span.start + span.length] = targets[: span.length]
    loss = PretrainingTask(model, RetrievalLossConfig())(OrderBatch(packed, labels))
    for name in ("eval_loss", "train_loss_raw", "train_loss"):
        assert_close(loss, part[name], LOGIT)
    loss.backward()
    assert_gradients(model, part["grads"])


VARIANTS: dict[str, dict[str, Any]] = {
    "train_loss_raw": {},
    "train_loss_hard_pool2_w10": {"hard_negatives": True, "hard_pool": 2, "hard_weight": 10.0},
    "train_loss_lse": {"ranking": "lse"},
}


def matching_scores(model: HeroForPretraining, oracle: OracleBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines and start and end logits of every query in every video, (Q, V, L) each, on the authors' layout."""
    clips = authors_layout(model, oracle)
    queries = model.encode_queries(*oracle.queries())
    cosine = model.moment.clip_similarity(queries.vector, clips, oracle.frame_mask)
    return cosine, *authors_span_logits(model, queries.span_vector, clips, oracle.frame_mask)


def test_matching_scores_and_evaluation_losses(dump: dict[str, Any], model: HeroForPretraining) -> None:
    part, settings = dump["vsm"], loss_settings("pretrain")
    raw, scores, expected = part["batch"], part["eval_no_loss"], part["eval_loss"]
    cosine, start, end = matching_scores(model, OracleBatch(raw))
    for actual, name in ((cosine.amax(dim=-1), "q2video_scores"), (start, "st_logits"), (end, "ed_logits")):
        assert_close(actual, scores[name], LOGIT)
    own = (torch.arange(len(start)), raw["q_vidx"])
    against_videos, against_queries = ranking_losses(scores["q2video_scores"], raw["q_vidx"], settings)
    spans = span_loss(scores["st_logits"][own], scores["ed_logits"][own], raw["targets"])
    assert_close(settings.span_weight * spans.sum(), expected[0], LOGIT)
    assert_close(settings.video_weight * against_videos, expected[1], LOGIT)
    assert_close(settings.query_weight * against_queries, expected[2], LOGIT)


@pytest.mark.parametrize("variant", VARIANTS)
def test_matching_losses(dump: dict[str, Any], model: HeroForPretraining, variant: str) -> None:
    part = dump["vsm"]
    settings = replace(loss_settings("pretrain"), **VARIANTS[variant])
    cosine, start, end = matching_scores(model, OracleBatch(part["batch"]))
    owner = part["batch"]["q_vidx"]
    own = (torch.arange(len(start)), owner)
    loss = retrieval_loss(cosine, start[own], end[own], part["batch"]["targets"], owner, settings)
    for actual, expected in zip((loss.span, loss.video, loss.query), part[variant], strict=True):
        assert_close(actual, expected.squeeze(), LOGIT)
    if variant == "train_loss_raw":
        assert_close(loss.total, part["train_loss"], LOGIT)
        loss.total.backward()
        assert_gradients(model, part["grads"])


def matching_batch(oracle: OracleBatch, numbers: list[int]) -> RetrievalBatch:
    """Some of the oracle's videos, packed, with their queries."""
    raw = oracle.raw
    chosen = torch.isin(raw["q_vidx"], torch.tensor(numbers))
    token_ids, segment_ids = oracle.queries()
    return RetrievalBatch(
        packed=pack_videos([oracle.videos[number] for number in numbers], PACKED),
        token_ids=token_ids[chosen].numpy(),
        segment_ids=segment_ids[chosen].numpy(),
        targets=raw["targets"][chosen].numpy(),
        marked=np.ones(int(chosen.sum()), dtype=bool),
        query_video=np.array([numbers.index(int(number)) for number in raw["q_vidx"][chosen]]),
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_matching_of_packed_videos(dump: dict[str, Any], model: HeroForPretraining, variant: str) -> None:
    """The ranking is that of the authors' padded batch; the spans are those of each video alone, where there is no padding."""
    part = dump["vsm"]
    oracle = OracleBatch(part["batch"])
    settings = replace(loss_settings("pretrain"), **VARIANTS[variant])
    batch = matching_batch(oracle, list(range(len(oracle.videos))))
    loss = RetrievalTask(model, settings)(batch)
    assert_close(loss.video, part[variant][1], LOGIT)
    assert_close(loss.query, part[variant][2], LOGIT)
    alone = [matching_batch(oracle, [number]) for number in range(len(oracle.videos))]
    spans = [RetrievalTask(model, settings)(one).span * len(one.targets) for one in alone]
    assert_close(loss.span, torch.stack(spans).sum() / len(batch.targets), LOGIT)
    assert_close(PretrainingTask(model, settings)(batch), loss.total, 0.0)
    silent = PretrainingTask(model, settings)(replace(batch, marked=np.zeros_like(batch.marked)))
    assert_close(silent, part[variant][1] + part[variant][2], LOGIT)
