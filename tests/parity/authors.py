"""What the authors' implementation does and this project does not: it computes on padding, and lets it show in its results."""

from __future__ import annotations

import torch
from torch import Tensor

from hero_sdk.rows import RowGeometry
from hero_train.losses import RetrievalLossConfig
from hero_train.model.hero import HeroModel
from hero_train.model.layers import run_layers
from hero_train.model.moment import MASKED_LOGIT
from tests.parity.oracle import OracleBatch, read_dump

PACKED = RowGeometry(slots=96, frames=48, temporal_slots=64, query_tokens=32)


def authors_layout(model: HeroModel, batch: OracleBatch) -> Tensor:
    """The temporal encoder on the authors' padded layout, padding included: (V, L, hidden).

    Padded frames there attend to the real ones and get embeddings of their own, which the moment head's convolution then reads.
    """
    packed = batch.pack(PACKED)
    hidden = model.cross_modal(**model.tensors(packed.cross_modal.arrays()))
    matched, mask = model.unpack(packed, model.regroup(packed, hidden))
    return padded_temporal(model, batch, batch.raw["c_v_feats"], matched, mask)


def padded_temporal(model: HeroModel, batch: OracleBatch, features: Tensor, matched: Tensor, mask: Tensor) -> Tensor:
    """The temporal encoder on (V, L) frames, of which (V, L) ``mask`` says which are real: (V, L, hidden)."""
    embedded = model.temporal.embed(features, matched, batch.raw["c_pos_ids"].expand(mask.shape))
    return run_layers(model.temporal.layers, embedded, mask[:, None, None, :])


def authors_span_logits(model: HeroModel, span_vectors: Tensor, clips: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Start and end logits as the authors compute them: the convolution runs over the padding, then the padding is masked."""
    similarity = torch.einsum("qh,vlh->qvl", span_vectors, clips)
    flat = similarity.reshape(-1, 1, similarity.shape[-1])
    start, end = (conv(flat).view_as(similarity) for conv in (model.moment.start, model.moment.end))
    return start.masked_fill(~mask, MASKED_LOGIT), end.masked_fill(~mask, MASKED_LOGIT)


def loss_settings(task: str) -> RetrievalLossConfig:
    """The loss of an oracle's model; what its constructor was not given has the authors' default, as ours has."""
    ours = {
        "lw_st_ed": "span_weight",
        "lw_neg_ctx": "video_weight",
        "lw_neg_q": "query_weight",
        "ranking_loss_type": "ranking",
        "margin": "margin",
        "use_hard_negative": "hard_negatives",
        "hard_pool_size": "hard_pool",
        "hard_neg_weight": "hard_weight",
    }
    settings = read_dump(f"{task}_state_dict")["meta"]["ctor"]
    return RetrievalLossConfig(**{ours[name]: value for name, value in settings.items() if name in ours})
