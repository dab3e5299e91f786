"""What a training run begins with: random weights, a RoBERTa, another HERO of any task, or a checkpoint of the authors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from hero_train.checkpoint import read_weights, resolve_folder
from hero_train.config import HeroConfig
from hero_train.errors import ConfigError
from hero_train.loading import ImportReport, SourceWeights, load_what_fits
from hero_train.model.hero import HeroEncoders
from hero_train.model.pretraining import HeroPretrainingConfig
from hero_train.model.tasks import model_class_of, task_of
from hero_train.official import official_weights, read_official
from hero_train.official_models import official_config
from hero_train.roberta import load_roberta, read_roberta
from hero_train.run_config import ROBERTA
from hero_train.tokenizer import embedding_rows

Model = TypeVar("Model", bound=HeroEncoders)

# Sizes that change what the weights compute and not, or not always, their shapes.
_DECIDED = ("num_heads", "cross_modal_layers", "temporal_layers", "decoder_layers")


def start_model(
    model_class: type[Model],
    source: str | None,
    entries: Mapping[str, Any],
    *,
    feature_dim: int,
    vocabulary: int,
    resize_positions: bool = False,
) -> tuple[Model, ImportReport]:
    """Build a model of one task and give it the weights of a source that have a place in it.

    What the source has and the model does not is left out, what the model has and the source does not keeps its random values; the
    report names both. torch's generator decides the random values.

    Tables of positions belong to the source too, and a model is as long as they are. Where ``entries`` ask for another length, that
    is an error, unless ``resize_positions`` says to take the rows that both have: a longer table then ends with random rows.

    Args:
        model_class: HeroModel, HeroForPretraining, HeroForQuestionAnswering, HeroForStatements or HeroForCaptioning.
        source: None for random weights; ``roberta:`` with a folder, a hub id or a file of weights (see
            ``hero_train.roberta.read_roberta``); a checkpoint folder or a hub id of a model of any task; or an official ``.pt`` of
            any task.
        entries: of ``model_class.config_class``, as a run's configuration sets them. They replace the source's settings; those that
            its weights decide may be left out. An official file of another head width than 64 needs ``num_heads``.
        feature_dim: width of the frame features that the model will read.
        vocabulary: how many ids the tokenizer has.
        resize_positions: whether tables of positions may be cut or lengthened; the classes of frame order count as one.

    Returns:
        The model, in training mode, and the report. ``report.fresh_frames`` says whether what reads frames is random.

    Raises:
        ConfigError: an entry, the feature width or the vocabulary does not go with the source.
        CheckpointError: the source cannot be read, is of no kind that is known, or has weights that are not finite.
    """
    advice = (
        f"the entries {dict(entries)} of model do not fit the weights of {source}. Leave out those that are the checkpoint's to "
        "decide, or pass resize_positions where only tables of positions differ"
    )
    if source is None:
        sizes = {"vocab_size": embedding_rows(vocabulary), "feature_dim": feature_dim}
        model = model_class(_config(model_class, {}, {**entries, **sizes}, vocabulary))
        return model, load_what_fits(model, SourceWeights({}))
    if source.startswith(ROBERTA):
        roberta = read_roberta(source.removeprefix(ROBERTA), entries.get("num_heads"))
        decided = roberta.decide(entries, but="text_positions" if resize_positions else None)
        if embedding_rows(vocabulary) != decided["vocab_size"]:
            raise ConfigError(
                f"{source} has {decided['vocab_size']} rows of words (a multiple of 8) and the tokenizer {vocabulary} ids. "
                "Set tokenizer.source to the same RoBERTa."
            )
        model = model_class(_config(model_class, {}, {**decided, "feature_dim": feature_dim}, vocabulary))
        return model, load_roberta(
            model, roberta.state, resize_positions=resize_positions, error=ConfigError, advice=advice
        )
    theirs, weights = _read(source, task_of(model_class), entries)
    if theirs.feature_dim != feature_dim or theirs.vocab_size < vocabulary:
        raise ConfigError(
            f"{source} reads features of width {theirs.feature_dim} and {theirs.vocab_size} token ids; the frame encoder gives "
            f"{feature_dim} and the tokenizer has {vocabulary}. Use those that belong to it."
        )
    there = dataclasses.asdict(theirs)
    if wrong := {
        name: entries[name] for name in _DECIDED if name in there and entries.get(name, there[name]) != there[name]
    }:
        raise ConfigError(
            f"model sets {wrong}; {source} has { {name: there[name] for name in wrong} }. Leave these entries out."
        )
    model = model_class(_config(model_class, there, entries, vocabulary))
    return model, load_what_fits(model, weights, resize_positions=resize_positions, error=ConfigError, advice=advice)


def _config(
    model_class: type[HeroEncoders], theirs: Mapping[str, Any], entries: Mapping[str, Any], vocabulary: int
) -> HeroConfig:
    """The configuration of a model class: entries in place of a source's, of which those of another task are passed over."""
    config_class = model_class.config_class
    known = {field.name for field in dataclasses.fields(config_class)}
    values = {name: value for name, value in theirs.items() if name in known} | dict(entries)
    if issubclass(config_class, HeroPretrainingConfig):
        values["vocabulary"] = vocabulary
    return config_class.from_dict({"task": config_class.task, **values}, "model")


def _read(source: str, task: str, entries: Mapping[str, Any]) -> tuple[HeroConfig, SourceWeights]:
    """The configuration and the weights of a HERO."""
    if source.endswith(".pt") or Path(source).is_file():
        state = read_official(Path(source))
        return official_config(state, task, num_heads=entries.get("num_heads")), official_weights(state)
    folder = resolve_folder(source)
    their_class = model_class_of(folder)
    config = their_class.config_class.load(folder)
    with torch.device("meta"):
        expected = their_class(config).state_dict()
    return config, SourceWeights(read_weights(folder, expected))
