"""Errors of the training package; they derive from the SDK's, so that one ``except`` serves a whole pipeline."""

from __future__ import annotations

from hero_sdk.errors import HeroError, InputError


class ConfigError(InputError):
    """A configuration names something that does not exist or does not fit."""


class CheckpointError(HeroError):
    """A checkpoint cannot be read, or does not fit the model."""


class DataError(InputError):
    """A training set is incomplete or an annotation cannot be read."""
