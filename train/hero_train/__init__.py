"""Training HERO: the model, its objectives, its data and its recipes (PyTorch)."""

from hero_train.config import HeroConfig
from hero_train.model.hero import HeroModel

__all__ = ["HeroConfig", "HeroModel"]
