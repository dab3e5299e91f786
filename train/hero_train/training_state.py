"""The state of a training run between two steps: weights, optimiser moments and the step, written so that it is whole or absent.

Nothing else is needed to go on: batches and dropout are functions of the seed and the step. Tensors go to safetensors, numbers to
JSON; there is no pickle in a checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from hero_train.checkpoint import save_weights
from hero_train.errors import CheckpointError
from hero_train.model.hero import HeroEncoders
from hero_train.sharding import gather_whole, share_of

STATE_FILE = "training_state.json"
MOMENTS_FILE = "optimiser.safetensors"
PREFIX = "step-"


def _names(model: HeroEncoders, optimiser: Optimizer) -> dict[str, Tensor]:
    """The optimiser's parameters by their names in the model."""
    trained = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in trained}


def save_state(
    folder: Path,
    model: HeroEncoders,
    optimiser: Optimizer,
    step: int,
    numbers: dict[str, float],
    scaler: GradScaler | None = None,
    *,
    write: bool = True,
) -> Path:
    """Write a checkpoint of a run. Where weights are sharded, all processes must call this.

    Args:
        folder: that holds the run's checkpoints; the new one is ``folder/step-NNNNNN``.
        model, optimiser: as they are after ``step`` steps.
        step: optimiser steps done.
        numbers: anything else that the run wants back.
        scaler: of the gradients, in fp16.
        write: whether this process writes it; the others only give their shares.

    Returns:
        The folder of the checkpoint.
    """
    target = folder / f"{PREFIX}{step:06d}"
    partial = folder / f".partial-{step:06d}"
    weights = gather_whole(model.state_dict(), keep=write)
    moments = gather_whole(
        {
            f"{name}/{key}": value
            for name, parameter in _names(model, optimiser).items()
            for key, value in optimiser.state.get(parameter, {}).items()
        },
        keep=write,
    )
    if not write:
        return target
    shutil.rmtree(partial, ignore_errors=True)
    save_weights(weights, model.config, partial)
    save_file({name: moment.contiguous() for name, moment in moments.items()}, partial / MOMENTS_FILE)
    state = {"step": step, "numbers": numbers, "scaler": scaler.state_dict() if scaler is not None else {}}
    (partial / STATE_FILE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    return target


def latest_state(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run, or None."""
    states = _states(folder)
    return states[-1] if states else None


def _states(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first; a folder of another name, such as a copy that somebody made, is none."""
    steps = {path.name.removeprefix(PREFIX): path for path in folder.glob(f"{PREFIX}*")}
    return [steps[step] for step in sorted(filter(str.isdecimal, steps), key=int)]


def load_state(
    checkpoint: Path, model: HeroEncoders, optimiser: Optimizer, scaler: GradScaler | None = None
) -> tuple[int, dict[str, float]]:
    """Put a checkpoint back into a model, its optimiser and, in fp16, the scaler of its gradients.

    Returns:
        The steps done, and the numbers that were saved with them.

    Raises:
        CheckpointError: the checkpoint is incomplete or belongs to another model.
    """
    try:
        state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
        moments = load_file(checkpoint / MOMENTS_FILE)
        step, numbers, scale = int(state["step"]), dict(state["numbers"]), dict(state["scaler"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{checkpoint} cannot be resumed ({error}). Delete it to resume from an earlier one."
        ) from error
    saved = type(model).from_pretrained(checkpoint)
    if saved.config != model.config:
        raise CheckpointError(
            f"{checkpoint} has another architecture than the configuration: {saved.config} instead of {model.config}. "
            "Resume with the configuration that began the run, or choose another output folder."
        )
    weights = saved.state_dict()
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            weight.copy_(share_of(weights[name], weight))
    for name, parameter in _names(model, optimiser).items():
        prefix = f"{name}/"
        values = {key.removeprefix(prefix): value for key, value in moments.items() if key.startswith(prefix)}
        if values:
            optimiser.state[parameter] = {
                key: value if key == "step" else share_of(value.float(), parameter) for key, value in values.items()
            }
    if scaler is not None and scale:
        scaler.load_state_dict(scale)
    return step, numbers


def prune_states(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints of a run."""
    for old in _states(folder)[:-keep]:
        shutil.rmtree(old)
