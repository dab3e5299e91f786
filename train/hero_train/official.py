"""The authors' checkpoints: read, measured and loaded.

An official checkpoint is a pickled dictionary of tensors plus the entry ``vocab_padded: bool``. It is read with
``weights_only=True``, so that a hostile file cannot run code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hero_train.config import CaptioningConfig, HeroConfig
from hero_train.errors import CheckpointError
from hero_train.loading import ImportReport, SourceWeights, load_what_fits
from hero_train.model.hero import HeroModel
from hero_train.official_names import our_name, why_without_place
from hero_train.tokenizer import embedding_rows

WORDS = "v_encoder.f_encoder.embeddings.word_embeddings.weight"
"""The official name of the word embeddings."""


def infer_config(state: Mapping[str, Tensor], *, num_heads: int | None = None) -> HeroConfig:
    """The sizes of an official checkpoint, read off its tensors; the vocabulary is filled up to a multiple of 8.

    Args:
        state: official names to tensors.
        num_heads: of the attention, which no tensor tells; None takes the authors' head width of 64.

    Raises:
        CheckpointError: an essential tensor is missing, or the number of heads must be given.
    """
    try:
        vocab, hidden = state[WORDS].shape
        config = HeroConfig(
            vocab_size=embedding_rows(vocab),
            hidden_size=hidden,
            feature_dim=state["v_encoder.f_encoder.img_embeddings.img_linear.weight"].shape[1],
            num_heads=num_heads or heads_of(hidden),
            intermediate_size=state["v_encoder.f_encoder.encoder.layer.0.intermediate.dense.weight"].shape[0],
            cross_modal_layers=_depth(state, "v_encoder.f_encoder.encoder.layer"),
            temporal_layers=_depth(state, "v_encoder.c_encoder.encoder.layer"),
            text_positions=state["v_encoder.f_encoder.embeddings.position_embeddings.weight"].shape[0],
            temporal_positions=state["v_encoder.c_encoder.embeddings.position_embeddings.weight"].shape[0],
            frame_positions=state["v_encoder.f_encoder.img_embeddings.position_embeddings.weight"].shape[0],
        )
    except KeyError as error:
        raise CheckpointError(
            f"The checkpoint has no {error}; expected the parameters of one of the authors' models."
        ) from error
    changes: dict[str, int] = {"clip_limit": min(config.clip_limit, config.frame_positions)}
    if (table := state.get("q_feat_attn.query_pos_embed.position_embeddings.weight")) is not None:
        changes["query_positions"] = table.shape[0]
    if (taps := state.get("video_st_predictor.weight")) is not None:
        changes["conv_kernel"] = taps.shape[-1]
    return replace(config, **changes)


def infer_captioning_config(state: Mapping[str, Tensor], *, num_heads: int | None = None) -> CaptioningConfig:
    """``infer_config`` with the sizes of the caption decoder.

    Raises:
        CheckpointError: as ``infer_config``, or no decoder.
    """
    if (table := state.get("position_embeddings.weight")) is None:
        raise CheckpointError(
            "The checkpoint has no 'position_embeddings.weight'; expected the authors' model for TVC."
        )
    config = CaptioningConfig.of(infer_config(state, num_heads=num_heads))
    return replace(config, decoder_layers=_depth(state, "decoder.layer"), decoder_positions=len(table))


def heads_of(hidden: int) -> int:
    """How many attention heads of RoBERTa's and the authors' width a hidden size makes.

    Raises:
        CheckpointError: it is no multiple of that width.
    """
    if hidden % 64:
        raise CheckpointError(
            f"Hidden size {hidden} is not a multiple of the authors' head width 64; pass num_heads (hero-train convert: --heads; "
            "in the configuration of a run: model.num_heads)."
        )
    return hidden // 64


def _depth(state: Mapping[str, Tensor], stack: str) -> int:
    return len({match[1] for name in state if (match := re.match(re.escape(stack) + r"\.(\d+)\.", name))})


def model_from_official(
    state: Mapping[str, Tensor], config: HeroConfig | None = None, *, num_heads: int | None = None
) -> tuple[HeroModel, ImportReport]:
    """Build a retrieval model from an official state dict.

    Args:
        state: official names to tensors, such as ``read_official`` returns.
        config: of the model; None infers it.
        num_heads: for the inference, see ``infer_config``.

    Raises:
        CheckpointError: a tensor of another shape than the model has, or one that is not finite.
    """
    model = HeroModel(config or infer_config(state, num_heads=num_heads))
    return model, load_official(model, state)


def load_official(model: nn.Module, state: Mapping[str, Tensor]) -> ImportReport:
    """Load an official state dict into a model of any task, which is put into evaluation mode.

    Raises:
        CheckpointError: a tensor of another shape than the model has, or one that is not finite.
    """
    report = load_what_fits(model, official_weights(state))
    model.eval()
    return report


def official_weights(state: Mapping[str, Tensor]) -> SourceWeights:
    """An official state dict by our names."""
    names = {official: our_name(official) for official in state}
    return SourceWeights(
        {ours: state[official] for official, ours in names.items() if ours},
        {ours: official for official, ours in names.items() if ours},
        {official: why_without_place(official) for official, ours in names.items() if not ours},
    )


def read_official(path: Path) -> dict[str, Tensor]:
    """Read the tensors of an official ``.pt`` checkpoint, without running code that it may carry.

    Raises:
        CheckpointError: no such file, or not a dictionary of tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no file {path}.") from error
    except Exception as error:  # torch raises pickle, zip and runtime errors alike for a file that it refuses
        raise CheckpointError(f"{path} cannot be read as a checkpoint of plain tensors ({error}).") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a dictionary of tensors.")
    tensors = {str(name).removeprefix("module."): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors; found the entries {sorted(map(str, content))[:8]}.")
    return tensors
