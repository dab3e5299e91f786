"""Which model serves which task, by the name that ``config.json`` has for it."""

from __future__ import annotations

import json
from pathlib import Path

from hero_train.config import CONFIG_FILE
from hero_train.errors import ConfigError
from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements
from hero_train.model.captioning import HeroForCaptioning
from hero_train.model.hero import HeroEncoders, HeroModel
from hero_train.model.pretraining import HeroForPretraining

RETRIEVAL = "retrieval"
MODEL_CLASSES: dict[str, type[HeroEncoders]] = {
    model_class.config_class.task or RETRIEVAL: model_class
    for model_class in (
        HeroModel,
        HeroForPretraining,
        HeroForQuestionAnswering,
        HeroForStatements,
        HeroForCaptioning,
    )
}
"""Model classes by their task."""


def task_of(model: HeroEncoders | type[HeroEncoders]) -> str:
    """The task of a model or of its class."""
    return model.config_class.task or RETRIEVAL


def model_class_of(folder: Path) -> type[HeroEncoders]:
    """The model class that loads a checkpoint folder.

    Raises:
        ConfigError: no ``config.json``, not JSON, or of a task that no model has.
    """
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        task = values.get("task", RETRIEVAL)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{folder} has no {CONFIG_FILE}; expected a checkpoint that save_pretrained wrote."
        ) from error
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is not the JSON of a configuration ({error}).") from error
    if task not in MODEL_CLASSES:
        raise ConfigError(f"{path} is of a model for {task!r}; expected one of {sorted(MODEL_CLASSES)}.")
    return MODEL_CLASSES[task]
