"""Starting from RoBERTa: its words and every other one of its layers become the cross-modal encoder (paper, section 3.1).

Its head of masked language modelling goes where the model has one. Frame embeddings, temporal encoder and the other heads have no
counterpart there and keep their initial values. Positions are taken as they are: RoBERTa counts them from 2 and HERO from 0, so
that the first two rows are RoBERTa's unused ones, as in the authors' code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from hero_sdk.errors import HeroError
from hero_train.errors import CheckpointError, ConfigError
from hero_train.loading import ImportReport, SourceWeights, load_what_fits
from hero_train.model.hero import HeroEncoders
from hero_train.official import heads_of, read_official
from hero_train.official_names import our_name, why_without_place
from hero_train.tokenizer import embedding_rows

_TYPES = "cross_modal.text.token_type.weight"
_LAYER = re.compile(r"(?:roberta\.)?encoder\.layer\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Roberta:
    """A RoBERTa that was read.

    Attributes:
        source: where it came from.
        state: its names to tensors, with ``roberta.`` in front or without.
        sizes: the entries of ``HeroConfig`` that follow from it.
    """

    source: str
    state: dict[str, Tensor]
    sizes: dict[str, int]

    def decide(self, entries: Mapping[str, Any], *, but: str | None = None) -> dict[str, Any]:
        """A model's entries with what RoBERTa decides.

        Args:
            entries: of ``HeroConfig``.
            but: an entry that may differ all the same.

        Raises:
            ConfigError: an entry that RoBERTa decides has another value.
        """
        sizes = {name: size for name, size in self.sizes.items() if name != but or name not in entries}
        if wrong := {name: entries[name] for name, size in sizes.items() if entries.get(name, size) != size}:
            raise ConfigError(
                f"model sets {wrong}; {self.source} has { {name: sizes[name] for name in wrong} }. Leave these entries out."
            )
        return {**entries, **sizes}


def load_roberta(
    model: HeroEncoders,
    state: Mapping[str, Tensor],
    *,
    resize_positions: bool = False,
    error: type[HeroError] = CheckpointError,
    advice: str = "configure the model with RoBERTa's sizes",
) -> ImportReport:
    """Put RoBERTa's weights into a model of any task.

    Of 12 layers a model with 6 takes the second, the fourth and so on. Words that RoBERTa does not have, which fill its
    vocabulary up, are zero; its first type serves both of HERO's.

    Args:
        model: of RoBERTa's widths.
        state: RoBERTa's names to tensors, with ``roberta.`` in front or without.
        resize_positions, error, advice: see ``load_what_fits``.

    Raises:
        CheckpointError: a tensor is missing or not finite, or RoBERTa has fewer layers than the model.
        error: a tensor has another shape.
    """
    weights = _weights(state, model.config.cross_modal_layers)
    return load_what_fits(model, weights, resize_positions=resize_positions, error=error, advice=advice)


def _weights(state: Mapping[str, Tensor], layers: int) -> SourceWeights:
    """RoBERTa's tensors by the names that they have in a model with so many layers."""
    depth = max((int(match[1]) for name in state if (match := _LAYER.fullmatch(name))), default=-1) + 1
    if depth < layers:
        raise CheckpointError(
            f"The RoBERTa has {depth} layers and the model takes {layers}; set model.cross_modal_layers to {depth} or fewer."
        )
    step = depth // layers
    found = SourceWeights({})
    for official, tensor in state.items():
        name = official.removeprefix("roberta.").replace("lm_head.layer_norm.", "lm_head.LayerNorm.")
        if match := _LAYER.fullmatch(name):
            place, left = divmod(int(match[1]) + 1, step)
            if left or place > layers:
                found.left_out[official] = "a layer between those that are taken"
                continue
            name = f"encoder.layer.{place - 1}.{match[2]}"
        name = f"v_encoder.f_encoder.{name}"
        if (ours := our_name(name)) is None:
            found.left_out[official] = why_without_place(name)
            continue
        found.tensors[ours] = tensor[:1] if ours == _TYPES else tensor
        found.names[ours] = official
    return found


def read_roberta(source: str, num_heads: int | None = None) -> Roberta:
    """Read the weights of a RoBERTa.

    Args:
        source: a folder or hub id that transformers loads, with its weights in safetensors; or a file of weights that
            ``torch.save`` wrote, with transformers' names, such as the authors' ``pretrain-tv-init.bin``. Of such a file only
            tensors are read and no code is run.
        num_heads: of a file, which has no configuration; None takes RoBERTa's head width of 64.

    Raises:
        CheckpointError: nothing of the kind, or weights are missing.
    """
    if Path(source).is_file():
        state = read_official(Path(source))
        return Roberta(source, state, _measure(source, state, num_heads))
    from transformers import AutoConfig, RobertaForMaskedLM, RobertaModel

    try:
        config = AutoConfig.from_pretrained(source)
        if config.model_type != "roberta":
            raise CheckpointError(f"{source} is a {config.model_type}; expected a roberta, such as roberta-base.")
        options: dict[str, Any] = {"use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
        roberta: nn.Module
        if RobertaForMaskedLM.__name__ in (config.architectures or []):
            roberta, report = RobertaForMaskedLM.from_pretrained(source, **options)
        else:
            roberta, report = RobertaModel.from_pretrained(source, add_pooling_layer=False, **options)
    # A file that is cut off is an error of safetensors, which derives from Exception alone.
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"transformers cannot load a RoBERTa from {source} ({error}).") from error
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(f"{source} has no weights for {missing[:5]}; expected a whole RoBERTa.")
    return Roberta(source, roberta.state_dict(), _measure(source, roberta.state_dict(), config.num_attention_heads))


def _measure(source: str, state: Mapping[str, Tensor], num_heads: int | None) -> dict[str, int]:
    """The entries of ``HeroConfig`` that a RoBERTa's tensors decide."""
    shapes = {name.removeprefix("roberta."): tensor.shape for name, tensor in state.items()}
    try:
        words, hidden = shapes["embeddings.word_embeddings.weight"]
        return {
            "vocab_size": embedding_rows(words),
            "hidden_size": hidden,
            "num_heads": num_heads or heads_of(hidden),
            "intermediate_size": shapes["encoder.layer.0.intermediate.dense.weight"][0],
            "text_positions": shapes["embeddings.position_embeddings.weight"][0],
        }
    except KeyError as error:
        raise CheckpointError(
            f"{source} has no {error}; expected the weights of a RoBERTa, with transformers' names."
        ) from error
