"""Training HERO: the model, its objectives, its data and its recipes (PyTorch).

Names are resolved when they are first used, so that the command's help imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hero_train.config import HeroConfig
    from hero_train.initial import start_model
    from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements
    from hero_train.model.captioning import HeroForCaptioning
    from hero_train.model.hero import HeroModel
    from hero_train.model.pretraining import HeroForPretraining
    from hero_train.run_config import load_config

__all__ = [
    "HeroConfig",
    "HeroForCaptioning",
    "HeroForPretraining",
    "HeroForQuestionAnswering",
    "HeroForStatements",
    "HeroModel",
    "load_config",
    "start_model",
]

_HOMES = {
    "HeroConfig": "hero_train.config",
    "HeroForCaptioning": "hero_train.model.captioning",
    "HeroForPretraining": "hero_train.model.pretraining",
    "HeroForQuestionAnswering": "hero_train.model.answers",
    "HeroForStatements": "hero_train.model.answers",
    "HeroModel": "hero_train.model.hero",
    "load_config": "hero_train.run_config",
    "start_model": "hero_train.initial",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hero_train' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
