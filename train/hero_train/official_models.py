"""Which of our models a checkpoint of the authors becomes: that of its task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

from torch import Tensor

from hero_train.config import CaptioningConfig, HeroConfig
from hero_train.errors import CheckpointError
from hero_train.loading import ImportReport
from hero_train.model.hero import HeroEncoders
from hero_train.model.pretraining import HeroForPretraining, HeroPretrainingConfig
from hero_train.model.tasks import MODEL_CLASSES, RETRIEVAL, task_of
from hero_train.official import WORDS, infer_captioning_config, infer_config, load_official
from hero_train.tokenizer import embedding_rows

PRETRAINING = task_of(HeroForPretraining)
# What every checkpoint of the authors for a task has, and ``task_of_official`` looks for from the first on. All of theirs have the
# heads of pre-training, and one of pre-training has the head of retrieval: what those two are cannot be told apart.
_MARKS = {
    "question answering": "qa_pool.weight",
    "statements": "violin_pool.weight",
    "captioning": "position_embeddings.weight",
    RETRIEVAL: "video_query_linear.weight",
    PRETRAINING: "v_encoder.fom_output.linear_2.bias",
}


def task_of_official(state: Mapping[str, Tensor]) -> str:
    """The task of an official state dict; of pre-training and retrieval, which have the same names, it is retrieval."""
    return next((task for task, mark in _MARKS.items() if mark in state), RETRIEVAL)


def official_config(
    state: Mapping[str, Tensor], task: str, *, num_heads: int | None = None, vocabulary: int | None = None
) -> HeroConfig:
    """The configuration of our model for a task with the sizes of an official state dict, whatever its own task is.

    Args:
        state: official names to tensors.
        task: of ``MODEL_CLASSES``.
        num_heads: see ``hero_train.official.infer_config``.
        vocabulary: for pre-training, how many ids the tokenizer has, which a checkpoint with padded embeddings does not say. None
            takes RoBERTa's for as many rows as RoBERTa's padded to a multiple of 8, and otherwise all rows.

    Raises:
        CheckpointError: an essential tensor is missing.
    """
    config_class = MODEL_CLASSES[task].config_class
    if issubclass(config_class, CaptioningConfig) and _MARKS["captioning"] in state:
        return infer_captioning_config(state, num_heads=num_heads)
    config = infer_config(state, num_heads=num_heads)
    if not issubclass(config_class, HeroPretrainingConfig):
        return config_class.of(config)
    if vocabulary is None:
        roberta, rows = HeroPretrainingConfig.vocabulary, len(state[WORDS])
        vocabulary = roberta if rows == embedding_rows(roberta) else rows
    if (classes := state.get(_MARKS[PRETRAINING])) is not None:
        config = replace(config, clip_limit=len(classes))
    return config_class(**asdict(config), vocabulary=vocabulary)


def task_model_from_official(
    state: Mapping[str, Tensor],
    task: str | None = None,
    *,
    num_heads: int | None = None,
    vocabulary: int | None = None,
) -> tuple[HeroEncoders, ImportReport]:
    """Build the model of a task from an official state dict of that task.

    Args:
        state: official names to tensors, such as ``hero_train.official.read_official`` returns.
        task: of ``MODEL_CLASSES``; None finds it, see ``task_of_official``.
        num_heads, vocabulary: see ``official_config``.

    Raises:
        CheckpointError: the checkpoint is of another task, or a tensor is missing, has another shape than the others imply or is
            not finite.
    """
    found = task_of_official(state)
    task = task or found
    if task == PRETRAINING and found == RETRIEVAL:
        if (mark := _MARKS[PRETRAINING]) not in state:
            raise CheckpointError(
                f"The checkpoint has no {mark}, the head of frame order modelling; expected one that pre-training wrote. Leave the "
                "task out."
            )
    elif task != found:
        raise CheckpointError(
            f"The checkpoint is for {found}; expected one for {task}. Leave the task out, or name the checkpoint as the initial of "
            "a run to start a model of another task from it."
        )
    model = MODEL_CLASSES[task](official_config(state, task, num_heads=num_heads, vocabulary=vocabulary))
    return model, load_official(model, state)
