"""Checkpoint folders: ``config.json`` and ``model.safetensors``, as the Hugging Face hub has them.

A checkpoint that can be exported also has its tokenizer and the folder of its frame encoder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hero_train.config import CONFIG_FILE, HeroConfig
from hero_train.errors import CheckpointError

WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
FRAME_ENCODER_FOLDER = "frame_encoder"


def resolve_folder(source: str | Path, revision: str | None = None) -> Path:
    """The folder of a checkpoint; a source that is no folder is taken as a hub id and fetched.

    Raises:
        CheckpointError: neither a folder nor a repository that can be reached.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists() or os.path.isabs(source) or str(source).count("/") != 1 or str(source).startswith("."):
        raise CheckpointError(
            f"{source} is not a folder; expected a checkpoint folder, or a hub id such as 'name/hero-tv'."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                str(source),
                revision=revision,
                allow_patterns=[CONFIG_FILE, "*.safetensors", "*.json", f"{FRAME_ENCODER_FOLDER}/*"],
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{source} is neither a folder nor a hub repository that can be reached ({error})."
        ) from error


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load ``model.safetensors`` into a model; every weight must be there with the right shape.

    Raises:
        CheckpointError: as ``read_weights``.
    """
    model.load_state_dict(read_weights(folder, model.state_dict()))


def read_weights(folder: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read ``model.safetensors``, which must have the names and shapes of ``expected``.

    Raises:
        CheckpointError: no such file, not a safetensors file, or names or shapes that differ.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {WEIGHTS_FILE}; expected a checkpoint that save_pretrained wrote.")
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}). Copy it again.") from error
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    shapes = [
        f"{name} {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected.keys() & state.keys()
        if state[name].shape != expected[name].shape
    ]
    if missing or unknown or shapes:
        raise CheckpointError(
            f"{path} does not fit its {CONFIG_FILE}: missing {missing[:5]}, unknown {unknown[:5]}, of another shape {shapes[:5]}."
        )
    return state


def save_weights(weights: Mapping[str, Tensor], config: HeroConfig, folder: Path) -> None:
    """Write a checkpoint folder; the weights appear under their name only when they are whole."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save(folder)
    partial = folder / (WEIGHTS_FILE + ".partial")
    save_file({name: tensor.contiguous().cpu() for name, tensor in weights.items()}, partial)
    os.replace(partial, folder / WEIGHTS_FILE)
