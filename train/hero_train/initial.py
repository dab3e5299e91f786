"""What a training run begins with: random weights, a RoBERTa, another HERO of any task, or a checkpoint of the authors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from hero_train.loading import ImportReport
from hero_train.model.hero import HeroEncoders

Model = TypeVar("Model", bound=HeroEncoders)


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

    Args:
        model_class: HeroModel, HeroForPretraining, HeroForQuestionAnswering, HeroForStatements or HeroForCaptioning.
        source: None for random weights; ``roberta:`` with a folder, a hub id or a file of weights; a checkpoint folder or a hub id of a
            model of any task; or an official ``.pt`` of any task.
        entries: of ``model_class.config_class``, as a run's configuration sets them. They replace the source's settings; those that
            its weights decide may be left out.
        feature_dim: width of the frame features that the model will read.
        vocabulary: how many ids the tokenizer has.
        resize_positions: where ``entries`` ask for a longer or shorter table of positions than the source's, take the rows that both
            have; otherwise that is an error.

    Returns:
        The model, in training mode, and the report. ``report.fresh_frames`` says whether what reads frames is random.

    Raises:
        ConfigError: an entry, the feature width or the vocabulary does not go with the source.
        CheckpointError: the source cannot be read, is of no kind that is known, or has weights that are not finite.
    """
    raise NotImplementedError
