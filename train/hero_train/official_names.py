"""The authors' parameter names and ours, both ways.

The tables follow the order of the authors' checkpoints. Names and order were taken from the released models' key lists.
"""

from __future__ import annotations

import re

_ATTENTION = {"query": "query", "key": "key", "value": "value"}
_LAYER = {
    **{f"attention.self.{theirs}": f"attention.{ours}" for theirs, ours in _ATTENTION.items()},
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention.norm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "norm",
}
_DECODER_LAYER = {
    **{f"self_attention.{theirs}": f"attention.{ours}" for theirs, ours in _ATTENTION.items()},
    "add_norm_1.dense": "attention.output",
    "add_norm_1.LayerNorm": "attention.norm",
    **{f"dec_enc_attention.{theirs}": f"clips.{ours}" for theirs, ours in _ATTENTION.items()},
    "add_norm_2.dense": "clips.output",
    "add_norm_2.LayerNorm": "clips.norm",
    "intermidiate.dense": "intermediate",  # as the authors spell it
    "add_norm_3.dense": "output",
    "add_norm_3.LayerNorm": "norm",
}


def _stack(theirs: str, ours: str, layer: dict[str, str]) -> dict[str, str | None]:
    """The modules of a stack of layers, with a number sign for the number of the layer."""
    return {f"{theirs}.#.{part}": f"{ours}.#.{name}" for part, name in layer.items()}


_MODULES: dict[str, str | None] = {
    "v_encoder": None,
    "v_encoder.f_encoder": None,
    **_stack("v_encoder.f_encoder.encoder.layer", "cross_modal.layers", _LAYER),
    "v_encoder.f_encoder.embeddings.word_embeddings": "cross_modal.text.word",
    "v_encoder.f_encoder.embeddings.position_embeddings": "cross_modal.text.position",
    "v_encoder.f_encoder.embeddings.token_type_embeddings": "cross_modal.text.token_type",
    "v_encoder.f_encoder.embeddings.LayerNorm": "cross_modal.text.norm",
    "v_encoder.f_encoder.img_embeddings.img_linear": "cross_modal.frames.linear",
    "v_encoder.f_encoder.img_embeddings.img_LayerNorm": "cross_modal.frames.feature_norm",
    "v_encoder.f_encoder.img_embeddings.position_embeddings": "cross_modal.frames.position",
    "v_encoder.f_encoder.img_embeddings.mask_embedding": "cross_modal_mask",
    "v_encoder.f_encoder.img_embeddings.LayerNorm": "cross_modal.frames.norm",
    "v_encoder.f_encoder.pooler.dense": None,
    "v_encoder.f_encoder.lm_head": "language",
    "v_encoder.f_encoder.lm_head.dense": "language.dense",
    "v_encoder.f_encoder.lm_head.LayerNorm": "language.norm",
    "v_encoder.f_encoder.lm_head.decoder": None,
    "v_encoder.frame_transform.LayerNorm": "temporal.frames.norm",
    "v_encoder.frame_transform.net.1": "temporal.frames.linear",
    "v_encoder.c_encoder.embeddings.position_embeddings": "temporal.position",
    "v_encoder.c_encoder.embeddings.LayerNorm": "temporal.norm",
    **_stack("v_encoder.c_encoder.encoder.layer", "temporal.layers", _LAYER),
    "v_encoder.c_encoder.pooler.dense": None,
    "v_encoder.feat_regress.net.0": "regression.inner",
    "v_encoder.feat_regress.net.2": "regression.norm",
    "v_encoder.feat_regress.net.3": "regression.output",
    "v_encoder.mask_embedding": "temporal_mask",
    "v_encoder.fom_output.linear_1": "order.inner",
    "v_encoder.fom_output.LayerNorm": "order.norm",
    "v_encoder.fom_output.linear_2": "order.output",
    "video_query_linear": "moment.query",
    "video_st_predictor": "moment.start",
    "video_ed_predictor": "moment.end",
    "q_feat_attn.query_input_proj.LayerNorm": "query.projection.norm",
    "q_feat_attn.query_input_proj.net.1": "query.projection.linear",
    "q_feat_attn.query_pos_embed.position_embeddings": "query.position",
    "q_feat_attn.query_pos_embed.LayerNorm": "query.norm",
    **{f"q_feat_attn.query_self_attention.self.{part}": f"query.attention.{part}" for part in _ATTENTION},
    "q_feat_attn.query_self_attention.output.dense": "query.attention.output",
    "q_feat_attn.query_self_attention.output.LayerNorm": "query.attention.norm",
    "q_feat_attn.modular_vector_mapping": "query.pooling",
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
    "position_embeddings": "decoder.position",
    "emb_LayerNorm": "decoder.norm",
    "decoder": None,
    **_stack("decoder.layer", "decoder.layers", _DECODER_LAYER),
    "loss_func": None,
}
_THEIRS = {ours: theirs for theirs, ours in _MODULES.items() if ours is not None}
_ORDER = {module: place for place, module in enumerate(_MODULES)}

_WITHOUT_PLACE = {
    "v_encoder.pad": "a constant buffer",
    "v_encoder.f_encoder.pad": "a constant buffer",
    "v_encoder.f_encoder.pooler": "computed by the authors' code but never used",
    "v_encoder.c_encoder.pooler": "never used by the authors' code",
    "v_encoder.f_encoder.lm_head.decoder": "the word embeddings once more",
    "decoder.tri_mask": "a constant buffer",
    "loss_func.one_hot": "a constant buffer",
}
"""Why no model of ours has a place for a parameter of the authors, by the start of its name."""


def our_name(official: str) -> str | None:
    """Our name of an official parameter, or None when no model of ours has a place for it."""
    official = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", official))
    module, _, leaf = official.rpartition(".")
    template, number = _numbered(module)
    ours = _MODULES.get(template)
    return ours and f"{ours.replace('#', number)}.{leaf}"


def official_name(ours: str) -> str:
    """The authors' name of a parameter of ours; every parameter of our models has one."""
    module, _, leaf = ours.rpartition(".")
    template, number = _numbered(module)
    return f"{_THEIRS[template].replace('#', number)}.{leaf}"


def authors_order(official: str) -> tuple[int, int, int]:
    """Where an official parameter stands among others in the authors' checkpoints, as a key to sort by."""
    module = official.rpartition(".")[0]
    template, number = _numbered(module)
    place = _ORDER[template]
    # Layer by layer, and within a layer in the order of the table.
    first = min(_ORDER[other] for other in _ORDER if other.startswith(template.split("#")[0])) if number else place
    return first, int(number or 0), place


def why_without_place(official: str) -> str:
    """Why no model of ours has a place for an official parameter."""
    return next((why for start, why in _WITHOUT_PLACE.items() if official.startswith(start)), "unknown to this model")


def _numbered(module: str) -> tuple[str, str]:
    """A module's name with a number sign for the number of its layer, and that number; "" for none."""
    match = re.fullmatch(r"(.*\.layers?\.)(\d+)(\..+)", module)
    return (f"{match[1]}#{match[3]}", match[2]) if match else (module, "")
