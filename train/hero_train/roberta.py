"""Starting from RoBERTa: its words and every other one of its layers become the cross-modal encoder (paper, section 3.1).

Frame embeddings, temporal encoder and heads have no counterpart there and keep their initial values. Positions are taken as they
are: RoBERTa counts them from 2 and HERO from 0, so that the first two rows are RoBERTa's unused ones, as in the authors' code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from hero_train.config import HeroConfig
from hero_train.errors import CheckpointError, ConfigError
from hero_train.model.hero import HeroModel
from hero_train.official import our_name
from hero_train.tokenizer import embedding_rows

_PARTS = ("cross_modal.text.", "cross_modal.layers.")
_WORDS, _TYPES = "cross_modal.text.word.weight", "cross_modal.text.token_type.weight"


def model_from_roberta(source: str, entries: Mapping[str, Any]) -> HeroModel:
    """A model whose cross-modal encoder starts from a RoBERTa.

    Args:
        source: a folder or hub id that transformers loads, with its weights in safetensors.
        entries: of ``HeroConfig``, with ``feature_dim``. What RoBERTa decides (widths, heads, vocabulary, text positions) may be
            left out.

    Raises:
        CheckpointError: not a RoBERTa, or one with weights missing.
        ConfigError: an entry that RoBERTa decides has another value.
    """
    state, sizes = _read(source)
    if wrong := {name: entries[name] for name, size in sizes.items() if entries.get(name, size) != size}:
        raise ConfigError(
            f"model sets {wrong}; {source} has { {name: sizes[name] for name in wrong} }. Leave these entries out."
        )
    model = HeroModel(HeroConfig.from_dict({**entries, **sizes}, "model"))
    load_roberta(model, state)
    return model


def load_roberta(model: HeroModel, state: Mapping[str, Tensor]) -> None:
    """Put RoBERTa's weights into a model's cross-modal encoder.

    Of 12 layers a model with 6 takes the second, the fourth and so on. Words that RoBERTa does not have, which fill its
    vocabulary up, are zero; its one type serves both of HERO's.

    Args:
        model: of RoBERTa's widths.
        state: RoBERTa's names to tensors, with ``roberta.`` in front or without.

    Raises:
        CheckpointError: a tensor is missing or has another shape, or RoBERTa has fewer layers than the model.
    """
    target = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(_PARTS)}
    found = _our_names(state, model.config.cross_modal_layers)
    if missing := sorted(target.keys() - found.keys()):
        raise CheckpointError(f"The RoBERTa has no weights for {missing[:5]}; expected all of {len(target)} tensors.")
    found[_WORDS] = F.pad(found[_WORDS], (0, 0, 0, embedding_rows(len(found[_WORDS])) - len(found[_WORDS])))
    found[_TYPES] = found[_TYPES][:1].expand(len(target[_TYPES]), -1)
    for name, tensor in target.items():
        if found[name].shape != tensor.shape:
            raise CheckpointError(
                f"The RoBERTa has {tuple(found[name].shape)} for {name} and the model {tuple(tensor.shape)}; "
                "configure the model with RoBERTa's sizes."
            )
        with torch.no_grad():
            tensor.copy_(found[name])


def _our_names(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """RoBERTa's tensors that the cross-modal encoder takes, by the names that they have there."""
    numbers = [int(match[1]) for name in state if (match := re.match(r"(?:roberta\.)?encoder\.layer\.(\d+)\.", name))]
    depth = max(numbers, default=-1) + 1
    if depth < layers:
        raise CheckpointError(
            f"The RoBERTa has {depth} layers and the model takes {layers}; set model.cross_modal_layers to {depth} or fewer."
        )
    step = depth // layers
    found = {}
    for name, tensor in state.items():
        name = name.removeprefix("roberta.")
        if match := re.match(r"encoder\.layer\.(\d+)\.(.*)", name):
            place, left = divmod(int(match[1]) + 1, step)
            if left or place > layers:
                continue
            name = f"encoder.layer.{place - 1}.{match[2]}"
        if (ours := our_name(f"v_encoder.f_encoder.{name}")) is not None:
            found[ours] = tensor
    return found


def _read(source: str) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The weights of a RoBERTa and the sizes that follow from it."""
    from transformers import AutoConfig, RobertaModel

    try:
        config = AutoConfig.from_pretrained(source)
        if config.model_type != "roberta":
            raise CheckpointError(f"{source} is a {config.model_type}; expected a roberta, such as roberta-base.")
        roberta, report = RobertaModel.from_pretrained(
            source, add_pooling_layer=False, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    # A file that is cut off is an error of safetensors, which derives from Exception alone.
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"transformers cannot load a RoBERTa from {source} ({error}).") from error
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(f"{source} has no weights for {missing[:5]}; expected a whole RoBERTa.")
    sizes = {
        "vocab_size": embedding_rows(config.vocab_size),
        "hidden_size": config.hidden_size,
        "num_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "text_positions": config.max_position_embeddings,
    }
    return roberta.state_dict(), sizes
