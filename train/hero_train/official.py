"""The authors' checkpoints: their parameter names, and the way from them to ours.

An official checkpoint is a pickled dictionary of tensors plus the entry ``vocab_padded: bool``. It is read with
``weights_only=True``, so that a hostile file cannot run code. Names and shapes were taken from the released models' key lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hero_train.config import CaptioningConfig, HeroConfig
from hero_train.errors import CheckpointError
from hero_train.model.hero import HeroModel

_LAYER = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention.norm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "norm",
    # The caption decoder's layers, as the authors spell them.
    "self_attention.query": "attention.query",
    "self_attention.key": "attention.key",
    "self_attention.value": "attention.value",
    "add_norm_1.dense": "attention.output",
    "add_norm_1.LayerNorm": "attention.norm",
    "dec_enc_attention.query": "clips.query",
    "dec_enc_attention.key": "clips.key",
    "dec_enc_attention.value": "clips.value",
    "add_norm_2.dense": "clips.output",
    "add_norm_2.LayerNorm": "clips.norm",
    "intermidiate.dense": "intermediate",
    "add_norm_3.dense": "output",
    "add_norm_3.LayerNorm": "norm",
}
_MODULES = {
    "v_encoder.f_encoder.embeddings.word_embeddings": "cross_modal.text.word",
    "v_encoder.f_encoder.embeddings.position_embeddings": "cross_modal.text.position",
    "v_encoder.f_encoder.embeddings.token_type_embeddings": "cross_modal.text.token_type",
    "v_encoder.f_encoder.embeddings.LayerNorm": "cross_modal.text.norm",
    "v_encoder.f_encoder.img_embeddings.img_LayerNorm": "cross_modal.frames.feature_norm",
    "v_encoder.f_encoder.img_embeddings.img_linear": "cross_modal.frames.linear",
    "v_encoder.f_encoder.img_embeddings.position_embeddings": "cross_modal.frames.position",
    "v_encoder.f_encoder.img_embeddings.LayerNorm": "cross_modal.frames.norm",
    "v_encoder.frame_transform.LayerNorm": "temporal.frames.norm",
    "v_encoder.frame_transform.net.1": "temporal.frames.linear",
    "v_encoder.c_encoder.embeddings.position_embeddings": "temporal.position",
    "v_encoder.c_encoder.embeddings.LayerNorm": "temporal.norm",
    "q_feat_attn.query_input_proj.LayerNorm": "query.projection.norm",
    "q_feat_attn.query_input_proj.net.1": "query.projection.linear",
    "q_feat_attn.query_pos_embed.position_embeddings": "query.position",
    "q_feat_attn.query_pos_embed.LayerNorm": "query.norm",
    "q_feat_attn.query_self_attention.self.query": "query.attention.query",
    "q_feat_attn.query_self_attention.self.key": "query.attention.key",
    "q_feat_attn.query_self_attention.self.value": "query.attention.value",
    "q_feat_attn.query_self_attention.output.dense": "query.attention.output",
    "q_feat_attn.query_self_attention.output.LayerNorm": "query.attention.norm",
    "q_feat_attn.modular_vector_mapping": "query.pooling",
    "video_query_linear": "moment.query",
    "video_st_predictor": "moment.start",
    "video_ed_predictor": "moment.end",
    "qa_pool": "answer_pool",
    "qa_pred_head.linear_1": "answer.inner",
    "qa_pred_head.LayerNorm": "answer.norm",
    "qa_pred_head.linear_2": "answer.output",
    "st_ed_pool": "span_pool",
    "st_ed_pred_head.linear_1": "span.inner",
    "st_ed_pred_head.LayerNorm": "span.norm",
    "st_ed_pred_head.linear_2": "span.output",
    "violin_pool": "truth_pool",
    "violin_pred_head.linear_1": "truth.inner",
    "violin_pred_head.LayerNorm": "truth.norm",
    "violin_pred_head.linear_2": "truth.output",
    "v_encoder.f_encoder.lm_head": "language",
    "v_encoder.f_encoder.lm_head.dense": "language.dense",
    "v_encoder.f_encoder.lm_head.LayerNorm": "language.norm",
    "v_encoder.feat_regress.net.0": "regression.inner",
    "v_encoder.feat_regress.net.2": "regression.norm",
    "v_encoder.feat_regress.net.3": "regression.output",
    "v_encoder.fom_output.linear_1": "order.inner",
    "v_encoder.fom_output.LayerNorm": "order.norm",
    "v_encoder.fom_output.linear_2": "order.output",
    "v_encoder.mask_embedding": "temporal_mask",
    "v_encoder.f_encoder.img_embeddings.mask_embedding": "cross_modal_mask",
    "position_embeddings": "decoder.position",
    "emb_LayerNorm": "decoder.norm",
}
_STACKS = {
    "v_encoder.f_encoder.encoder.layer": "cross_modal.layers",
    "v_encoder.c_encoder.encoder.layer": "temporal.layers",
    "decoder.layer": "decoder.layers",
}

# Why an official parameter has no place in a retrieval model, by the start of its name.
_UNUSED = {
    "v_encoder.pad": "a constant buffer",
    "v_encoder.f_encoder.pad": "a constant buffer",
    "v_encoder.f_encoder.pooler": "computed by the authors' code but never used",
    "v_encoder.c_encoder.pooler": "never used by the authors' code",
    "v_encoder.f_encoder.lm_head.decoder": "the word embeddings once more",
    "v_encoder.f_encoder.lm_head": "head of masked language modelling",
    "v_encoder.feat_regress": "head of masked frame modelling",
    "v_encoder.fom_output": "head of frame order modelling",
    "v_encoder.mask_embedding": "used in masked frame modelling only",
    "v_encoder.f_encoder.img_embeddings.mask_embedding": "used in masked frame modelling only",
    "decoder.tri_mask": "a constant buffer",
    "loss_func.one_hot": "a constant buffer",
}


@dataclass(frozen=True)
class ImportReport:
    """What an import did with each parameter of an official checkpoint.

    Attributes:
        loaded: official names that found their place.
        left_out: official names without a place in the model, with the reason.
        fresh: our names that the checkpoint does not have; they keep their initial values.
    """

    loaded: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)


def our_name(official: str) -> str | None:
    """Our name of an official parameter, or None when no model of ours has a place for it."""
    official = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", official))
    module, _, leaf = official.rpartition(".")
    if module in _MODULES:
        return f"{_MODULES[module]}.{leaf}"
    for theirs, ours in _STACKS.items():
        if match := re.fullmatch(re.escape(theirs) + r"\.(\d+)\.(.+)", module):
            part = _LAYER.get(match[2])
            return f"{ours}.{match[1]}.{part}.{leaf}" if part else None
    return None


def infer_config(state: Mapping[str, Tensor], *, num_heads: int | None = None) -> HeroConfig:
    """The sizes of an official checkpoint, read off its tensors.

    Args:
        state: official names to tensors.
        num_heads: of the attention, which no tensor tells; None takes the authors' head width of 64.

    Raises:
        CheckpointError: an essential tensor is missing, or the number of heads must be given.
    """
    embeddings = "v_encoder.f_encoder.embeddings"
    try:
        vocab, hidden = state[f"{embeddings}.word_embeddings.weight"].shape
        config = HeroConfig(
            vocab_size=vocab,
            hidden_size=hidden,
            feature_dim=state["v_encoder.f_encoder.img_embeddings.img_linear.weight"].shape[1],
            num_heads=num_heads or _heads_of(hidden),
            intermediate_size=state["v_encoder.f_encoder.encoder.layer.0.intermediate.dense.weight"].shape[0],
            cross_modal_layers=_depth(state, "v_encoder.f_encoder.encoder.layer"),
            temporal_layers=_depth(state, "v_encoder.c_encoder.encoder.layer"),
            text_positions=state[f"{embeddings}.position_embeddings.weight"].shape[0],
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


def _heads_of(hidden: int) -> int:
    if hidden % 64:
        raise CheckpointError(f"Hidden size {hidden} is not a multiple of the authors' head width 64; pass num_heads.")
    return hidden // 64


def _depth(state: Mapping[str, Tensor], stack: str) -> int:
    return len({match[1] for name in state if (match := re.match(re.escape(stack) + r"\.(\d+)\.", name))})


def model_from_official(
    state: Mapping[str, Tensor], config: HeroConfig | None = None, *, num_heads: int | None = None
) -> tuple[HeroModel, ImportReport]:
    """Build a model from an official state dict.

    Args:
        state: official names to tensors, such as ``read_official`` returns.
        config: of the model; None infers it.
        num_heads: for the inference, see ``infer_config``.

    Raises:
        CheckpointError: a tensor of another shape than the model has.
    """
    model = HeroModel(config or infer_config(state, num_heads=num_heads))
    return model, load_official(model, state)


def load_official(model: nn.Module, state: Mapping[str, Tensor]) -> ImportReport:
    """Load an official state dict into a model of any task, which is put into evaluation mode.

    Raises:
        CheckpointError: a tensor of another shape than the model has.
    """
    target = model.state_dict()
    report = ImportReport()
    for official, tensor in state.items():
        ours = our_name(official)
        if ours is None or ours not in target:
            reason = next(
                (why for start, why in _UNUSED.items() if official.startswith(start)), "unknown to this model"
            )
            report.left_out[official] = reason
            continue
        if ours == "cross_modal.text.token_type.weight" and len(tensor) == 1:
            tensor = tensor.repeat(2, 1)  # pre-training's single row serves both types, as in the authors' fine-tuning
        if target[ours].shape != tensor.shape:
            raise CheckpointError(
                f"{official} is {tuple(tensor.shape)} and {ours} of the configured model is {tuple(target[ours].shape)}; "
                "pass the configuration that goes with the checkpoint, or none to infer it."
            )
        target[ours] = tensor.to(target[ours].dtype)
        report.loaded.append(official)
    report.fresh.extend(sorted(set(target) - {our_name(official) for official in report.loaded}))
    model.load_state_dict(target)
    model.eval()
    return report


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
    tensors = {name.removeprefix("module."): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors; found the entries {sorted(map(str, content))[:8]}.")
    return tensors
