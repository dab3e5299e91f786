"""Where a bundle is written: beside its place, and moved there in one step when it is whole."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hero_export.errors import ExportError
from hero_sdk.manifest import MANIFEST_FILE


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


@contextmanager
def staged(out: Path, *, force: bool) -> Iterator[Path]:
    """A new folder beside ``out`` that takes its place when the block ends without an error, and vanishes otherwise.

    A reader of ``out`` sees the old bundle, the new one or, for the moment between two renamings, none; never half of one.

    Raises:
        ExportError: ``out`` may not be replaced, see ``check_destination``, or cannot be written.
    """
    out = out.absolute()  # "." has neither a name nor a folder around it
    check_destination(out, force=force)
    mark = uuid.uuid4().hex[:8]
    # Not tempfile.mkdtemp: its folders are closed to everyone but their owner, and would stay so in their final place.
    partial = out.parent / f".{out.name}.{mark}.partial"
    replaced = out.parent / f".{out.name}.{mark}.replaced"
    try:
        partial.mkdir(parents=True)
        yield partial
        # Once more: an export takes minutes, and the place may have been taken meanwhile.
        check_destination(out, force=force)
        if out.exists():
            out.rename(replaced)
        partial.rename(out)
    except BaseException as error:
        if replaced.exists() and not out.exists():
            replaced.rename(out)
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise ExportError(
                f"{out} cannot be written ({error}). See that there is room on the disk and that the folder may be written to."
            ) from error
        raise
    shutil.rmtree(replaced, ignore_errors=True)
