"""HERO on the authors' layout: the weights and layers that encode packed rows, and no work but what the layout asks for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hero_bench.padding import PaddedVideos
from hero_sdk.rows import LAST_TEXT_POSITION
from hero_train.model.encoders import MODALITY_TYPE
from hero_train.model.hero import HeroEncoders
from hero_train.model.layers import gather_rows, run_layers


def embed_subtitles(model: HeroEncoders, padded: PaddedVideos) -> Tensor:
    """What stage 1 reads: the embeddings of each subtitle's frames and then of its tokens, (N, S, hidden)."""
    inputs = _inputs(model, padded, "token_ids", "frame_features", "gather_index")
    text, frames = model.cross_modal.text, model.cross_modal.frames
    positions = torch.arange(inputs["token_ids"].shape[1], device=model.device).clamp(max=LAST_TEXT_POSITION)
    words = text(inputs["token_ids"], positions[None])
    projected = frames.linear(frames.feature_norm(inputs["frame_features"]))
    added = frames.position.weight[: projected.shape[1]] + text.token_type.weight[MODALITY_TYPE]
    pictures = frames.dropout(frames.norm(projected + added))
    return gather_rows(torch.cat([pictures, words], dim=1), inputs["gather_index"])


def encode_subtitles(model: HeroEncoders, padded: PaddedVideos) -> Tensor:
    """Stage 1: (N, S, hidden)."""
    mask = _inputs(model, padded, "mask")["mask"]
    return run_layers(model.cross_modal.layers, embed_subtitles(model, padded), mask[:, None, None, :])


def embed_clips(model: HeroEncoders, padded: PaddedVideos, hidden: Tensor) -> Tensor:
    """What stage 2 reads, from the output (N, S, hidden) of stage 1: (V, L, hidden)."""
    features = _inputs(model, padded, "video_features")["video_features"]
    matched = model.scatter(padded.regrouping, hidden, features.shape[:2])
    return model.temporal.embed(features, matched, torch.arange(features.shape[1], device=model.device)[None])


def encode_padded(model: HeroEncoders, padded: PaddedVideos, pooler: nn.Linear | None = None) -> tuple[Tensor, Tensor]:
    """Both stages.

    Args:
        model: with the weights.
        padded: the batch.
        pooler: a layer over the first slot of every subtitle that the authors' stage 1 ends with, and whose result nothing reads;
            None spares it.

    Returns:
        Clip embeddings (V, L, hidden), computed beyond a video's end as well, and their mask (V, L) bool.
    """
    hidden = encode_subtitles(model, padded)
    if pooler is not None:
        torch.tanh(pooler(hidden[:, 0]))
    mask = _inputs(model, padded, "video_mask")["video_mask"]
    return run_layers(model.temporal.layers, embed_clips(model, padded, hidden), mask[:, None, None, :]), mask


def _inputs(model: HeroEncoders, padded: PaddedVideos, *names: str) -> dict[str, Tensor]:
    return model.tensors({name: getattr(padded, name) for name in names})
