"""Experiment trackers beside the run's own log, all through Accelerate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from hero_train.errors import ConfigError

PACKAGES = {"comet_ml": "comet-ml"}
"""What pip calls a tracker, where it is not the tracker's name."""

PROJECT = "hero"


def check_trackers(trackers: Sequence[str]) -> None:
    """Refuse trackers that are not installed; Accelerate passes over them without a word.

    Raises:
        ConfigError: with the command that installs them.
    """
    available = {str(tracker) for tracker in get_available_trackers()}
    if missing := [name for name in trackers if name not in available]:
        packages = " ".join(PACKAGES.get(name, name) for name in missing)
        raise ConfigError(
            f"trackers names {', '.join(missing)}, which is not installed. Install it with: pip install {packages}; or take it out "
            "of trackers: log.jsonl has the same numbers."
        )


def start_trackers(accelerator: Accelerator, configuration: Mapping[str, Any], done: int) -> None:
    """Begin to track a run, or go on after some steps: TensorBoard then hides what an interrupted run wrote of later ones."""
    resumed = {"tensorboard": {"purge_step": done + 1}} if done else {}
    accelerator.init_trackers(PROJECT, config=flatten(configuration), init_kwargs=resumed)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, under names that every tracker takes (``R@1`` becomes ``R_1``), joined by ``/``.

    What is no number, truth value or text, such as a list, becomes text.
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        full = prefix + re.sub(r"[^\w/. -]", "_", name)
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{full}/")
        else:
            flat[full] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat
