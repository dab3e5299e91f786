"""One video's features in a file: ``.npy``, ``.npz`` or ``.safetensors``. Nothing is ever unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from hero_train.errors import DataError

ARRAY_SUFFIXES = (".safetensors", ".npz", ".npy")

_NAME = "features"


def read_array(path: Path) -> tuple[np.ndarray, float | None]:
    """Features (clips, feature_dim) of any floating type, and the duration where the file has it (``.safetensors`` only).

    Raises:
        DataError: a file that is damaged or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="numpy") as file:
                duration = (file.metadata() or {}).get("duration")
                array, seconds = file.get_tensor(_NAME), None if duration is None else float(duration)
        else:
            array, seconds = _load(path), None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path.name} has no array '{_NAME}' that can be read ({error})") from error
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
        raise DataError(
            f"{path.name} has an array of shape {array.shape}, {array.dtype}; expected (clips, feature_dim), floats"
        )
    return array, seconds


def _load(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    with np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays[_NAME])
