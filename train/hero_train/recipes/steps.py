"""What every recipe does while it trains."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from hero_train.checkpoint import FRAME_ENCODER_FOLDER, TOKENIZER_FILE
from hero_train.errors import DataError
from hero_train.model.hero import HeroModel
from hero_train.run_config import BaseRunConfig


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Make dropout a function of seed, step and process, so that a resumed run drops the same."""
    torch.manual_seed((seed * 1_000_003 + step) * 65_537 + rank)


def check_finite(loss: torch.Tensor, step: int) -> None:
    """Refuse to go on from a loss that is no number.

    Raises:
        DataError: it is infinite or not a number.
    """
    if not torch.isfinite(loss):
        raise DataError(
            f"The loss of step {step} is {float(loss.detach())}. Lower optimisation.learning_rate, use precision: fp32, "
            "or look for NaN in the features."
        )


def save_checkpoint(config: BaseRunConfig, model: HeroModel, tokenizer_json: str) -> Path:
    """Write the run's ``checkpoint/``: the model, its tokenizer and its frame encoder."""
    folder = config.output / "checkpoint"
    model.save_pretrained(folder)
    (folder / TOKENIZER_FILE).write_text(tokenizer_json, encoding="utf-8")
    shutil.copytree(config.frame_encoder, folder / FRAME_ENCODER_FOLDER, dirs_exist_ok=True)
    return folder


def log(config: BaseRunConfig, entry: dict[str, Any]) -> None:
    """Add a line to the run's ``log.jsonl``."""
    with (config.output / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
