"""Our checkpoints as the authors have them: a plain dictionary of tensors with their names, for their own code to load."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from hero_train.config import CaptioningConfig
from hero_train.loading import describe_group
from hero_train.model.classifier import Classifier
from hero_train.model.hero import HeroEncoders
from hero_train.model.layers import initialise
from hero_train.model.pretraining import HeroForPretraining
from hero_train.official import WORDS
from hero_train.official_names import authors_order, official_name

# What the authors' code has built in.
ORDER_CLASSES = 100
DECODER_MASK = 1024
PADDING_ROWS = 8
LABEL_SMOOTHING = 0.1

_SIZES = (
    "vocab_size",
    "feature_dim",
    "hidden_size",
    "num_heads",
    "intermediate_size",
    "cross_modal_layers",
    "temporal_layers",
    "text_positions",
    "temporal_positions",
    "query_positions",
    "conv_kernel",
    "decoder_layers",
    "decoder_positions",
)
_BUFFER = "a constant buffer"
_POOLER = "zeros, since the authors' code never uses it"
_TIED = "the word embeddings once more"
_INITIAL = "initial values, since the checkpoint has no heads of pre-training"


@dataclass(frozen=True)
class ExportReport:
    """What an official checkpoint was made of.

    Attributes:
        written: official names whose tensors are the model's.
        added: official names that the model does not have, with what stands there.
        notes: what else whoever loads it must know.
    """

    written: list[str] = field(default_factory=list)
    added: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """The report as lines of text: how many weights were written, and each group that was added, with its values."""
        return "\n".join(
            [
                f"{len(self.written)} weights written.",
                *describe_group("Added", self.added),
                *map("Note: {}".format, self.notes),
            ]
        )


def official_state(model: HeroEncoders) -> tuple[dict[str, Tensor | bool], ExportReport]:
    """The state dict that the authors' saver would write for a model of ours.

    Every model of theirs has the heads of pre-training, poolers and buffers. Heads that ours lacks get initial values, the same on
    every call, so that pre-training in their code can go on from them.

    Returns:
        The official names in the authors' order to tensors on the CPU, and ``vocab_padded``; and what they were made of.
    """
    ours = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    report = ExportReport()
    tensors: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        tensors[official_name(name)] = tensor
        report.written.append(official_name(name))
    for name, tensor in _fresh_heads(model).items():
        if (official := official_name(name)) not in tensors:
            tensors[official], report.added[official] = tensor, _INITIAL
    for official, (tensor, what) in _without_counterpart(model, tensors[WORDS]).items():
        tensors[official], report.added[official] = tensor, what
    report.notes.extend(_notes(model))
    # True in every checkpoint of theirs: their saver asserts that the rows are a multiple of 8.
    padded = len(tensors[WORDS]) % 8 == 0
    return {name: tensors[name] for name in sorted(tensors, key=authors_order)} | {"vocab_padded": padded}, report


def _fresh_heads(model: HeroEncoders) -> dict[str, Tensor]:
    """Initial heads of pre-training for a model's sizes, by our names."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = HeroForPretraining(model.config)
        whole.order = Classifier(model.config.hidden_size, ORDER_CLASSES)
        initialise(whole.order, model.config.initializer_range)
    parts = ("language", "regression", "order", "cross_modal_mask", "temporal_mask")
    return {name: tensor for name, tensor in whole.state_dict().items() if name.split(".")[0] in parts}


def _without_counterpart(model: HeroEncoders, words: Tensor) -> dict[str, tuple[Tensor, str]]:
    """What the authors' models have and none of ours has, with what it is."""
    hidden = model.config.hidden_size
    found = {
        "v_encoder.pad": (torch.zeros(PADDING_ROWS, hidden), _BUFFER),
        "v_encoder.f_encoder.pad": (torch.zeros(PADDING_ROWS, hidden), _BUFFER),
        "v_encoder.f_encoder.lm_head.decoder.weight": (words, _TIED),
    }
    for encoder in ("f_encoder", "c_encoder"):
        found[f"v_encoder.{encoder}.pooler.dense.weight"] = (torch.zeros(hidden, hidden), _POOLER)
        found[f"v_encoder.{encoder}.pooler.dense.bias"] = (torch.zeros(hidden), _POOLER)
    if isinstance(model.config, CaptioningConfig):
        found["decoder.tri_mask"] = (torch.full((DECODER_MASK, DECODER_MASK), -10000.0).triu(1), _BUFFER)
        smoothed = torch.full((1, len(words)), LABEL_SMOOTHING / (len(words) - 1))
        found["loss_func.one_hot"] = (smoothed, _BUFFER)
    return found


def _notes(model: HeroEncoders) -> list[str]:
    """Where the authors' code needs other settings than its own to load the checkpoint."""
    theirs = asdict(type(model.config)())
    sizes = {name: size for name, size in asdict(model.config).items() if name in _SIZES and size != theirs[name]}
    notes = []
    if sizes:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        notes.append(f"the authors' configuration must have this model's sizes: {listed}.")
    if isinstance(model, HeroForPretraining) and model.config.clip_limit != ORDER_CLASSES:
        notes.append(f"fom_output has {model.config.clip_limit} classes, and the authors' code builds {ORDER_CLASSES}.")
    return notes
