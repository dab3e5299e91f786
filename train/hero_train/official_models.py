"""Which of our models a checkpoint of the authors becomes: that of its task."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements
from hero_train.model.captioning import HeroForCaptioning
from hero_train.model.hero import HeroEncoders
from hero_train.official import (
    ImportReport,
    infer_captioning_config,
    infer_config,
    load_official,
    model_from_official,
)


def task_model_from_official(
    state: Mapping[str, Tensor], *, num_heads: int | None = None
) -> tuple[HeroEncoders, ImportReport]:
    """Build the model that an official state dict has the head of; without the head of a task it is the retrieval model.

    Args:
        state: official names to tensors, such as ``hero_train.official.read_official`` returns.
        num_heads: for the inference of the sizes, see ``hero_train.official.infer_config``.

    Raises:
        CheckpointError: an essential tensor is missing or has another shape than the others imply.
    """
    model: HeroEncoders
    if "qa_pool.weight" in state:
        model = HeroForQuestionAnswering(infer_config(state, num_heads=num_heads))
    elif "violin_pool.weight" in state:
        model = HeroForStatements(infer_config(state, num_heads=num_heads))
    elif "position_embeddings.weight" in state:
        model = HeroForCaptioning(infer_captioning_config(state, num_heads=num_heads))
    else:
        return model_from_official(state, num_heads=num_heads)
    return model, load_official(model, state)
