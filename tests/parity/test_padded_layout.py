"""The padded layout that training on packed rows is measured against is the authors', to the last number, padding included."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hero_bench.padded_encoding import embed_clips, embed_subtitles, encode_padded, encode_subtitles
from hero_bench.padding import PaddedVideos, pad_videos
from hero_train.losses import retrieval_loss
from hero_train.model.hero import HeroModel
from hero_train.official import our_name
from tests.parity.authors import authors_span_logits, loss_settings
from tests.parity.oracle import OracleBatch, assert_close, read_dump, read_model

ACTIVATION, LOGIT = 1e-5, 1e-4

AUTHORS_NAMES = {
    "token_ids": "f_sub_input_ids",
    "frame_features": "f_v_feats",
    "gather_index": "f_gather_index",
    "mask": "f_attn_masks",
    "video_features": "c_v_feats",
    "video_mask": "c_attn_masks",
}


BATCHES = ["vcmr", "vcmr/ctx1", "vcmr/ctx2", "vr/sub", "vr/video_only", "videoQA", "violin", "tvc"]
"""With more than one subtitle as context and with questions, too."""


def read_part(name: str) -> dict[str, Any]:
    """A part of a dump, named ``task/part``, or the whole."""
    task, _, part = name.partition("/")
    dump = read_dump(f"{task}_io")
    return dump[part] if part else dump  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_is_laid_out_as_the_authors_loader_does(name: str) -> None:
    raw = read_part(name)["batch"]
    padded = pad_videos(OracleBatch(raw).videos)
    for ours, theirs in AUTHORS_NAMES.items():
        found, expected = torch.from_numpy(getattr(padded, ours)), raw[theirs]
        assert found.shape == expected.shape, ours
        assert_close(found.to(expected.dtype), expected, 0.0)


@pytest.fixture(params=["vcmr", "vr/sub", "vr/video_only"])
def case(request: pytest.FixtureRequest) -> tuple[HeroModel, dict[str, Any], PaddedVideos]:
    dump = read_part(request.param)
    return read_model(request.param.split("/")[0])[0], dump["encoder"], pad_videos(OracleBatch(dump["batch"]).videos)


def test_every_stage_and_its_padding(case: tuple[HeroModel, dict[str, Any], PaddedVideos]) -> None:
    model, stages, padded = case
    hidden = encode_subtitles(model, padded)
    clips, mask = encode_padded(model, padded)
    assert_close(embed_subtitles(model, padded), stages["f_embedding_output"], ACTIVATION)
    assert_close(hidden, stages["f_sequence_output"], ACTIVATION)
    assert_close(embed_clips(model, padded, hidden), stages["c_embedding_output"], ACTIVATION)
    assert_close(clips, stages["frame_embeddings"], ACTIVATION)
    assert mask.shape == clips.shape[:2]


def test_losses_and_every_gradient() -> None:
    dump, (model, _) = read_dump("vcmr_io"), read_model("vcmr")
    batch = OracleBatch(dump["batch"])
    clips, mask = encode_padded(model, pad_videos(batch.videos))
    queries = model.encode_queries(*batch.queries())
    cosine = model.moment.clip_similarity(queries.vector, clips, mask)
    start, end = authors_span_logits(model, queries.span_vector, clips, mask)
    owner = batch.raw["q_vidx"]
    own = (torch.arange(len(owner)), owner)
    loss = retrieval_loss(cosine, start[own], end[own], batch.raw["targets"], owner, loss_settings("vcmr"))
    assert_close(loss.total, dump["train_loss"].squeeze(), LOGIT)
    loss.total.backward()
    parameters = dict(model.named_parameters())
    compared = {our_name(official): gradient for official, gradient in dump["grads"].items()}
    assert {name for name, parameter in parameters.items() if parameter.grad is not None} == set(compared)
    for name, expected in compared.items():
        assert name is not None
        assert_close(parameters[name].grad, expected, LOGIT)
