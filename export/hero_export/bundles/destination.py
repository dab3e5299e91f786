"""Where a bundle is written: beside its place, and moved there in one step when it is whole."""

from __future__ import annotations

import json
import uuid
from contextlib import AbstractContextManager
from pathlib import Path

from hero_export.errors import ExportError
from hero_sdk.manifest import MANIFEST_FILE
from hero_train import staging


def check_destination(out: Path, *, force: bool) -> None:
    """Refuse a place that holds something that must not be lost.

    Args:
        out: where the bundle is to go.
        force: replace a bundle that is there. Nothing else is ever replaced.

    Raises:
        ExportError: ``out`` exists and may not be replaced.
    """
    if not out.exists() and not out.is_symlink():
        return
    if out.is_dir() and not out.is_symlink() and not any(out.iterdir()):
        return
    if not _is_bundle(out):
        raise ExportError(
            f"{out} exists and is not a bundle; expected a new folder, an empty one or a bundle to replace. "
            "Choose another --out, or remove it yourself."
        )
    if not force:
        raise ExportError(f"{out} is already a bundle. Choose another --out, or replace it with --force.")


def _is_bundle(folder: Path) -> bool:
    """Whether a folder has the manifest of a bundle, of whatever format version, damaged files or not."""
    if folder.is_symlink():
        return False
    try:
        content = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"format_version", "graphs", "fingerprint"} <= content.keys()


def staged(out: Path, *, force: bool) -> AbstractContextManager[Path]:
    """``hero_train.staging.staged`` of a bundle, which several exports may be writing at the same time.

    Raises:
        ExportError: ``out`` may not be replaced, see ``check_destination``, or cannot be written.
    """
    # Checked again at the end: an export takes minutes, and the place may have been taken meanwhile.
    return staging.staged(
        out,
        mark=f".{uuid.uuid4().hex[:8]}",
        check=lambda: check_destination(out.absolute(), force=force),
        error=ExportError,
    )
