"""A folder that is whole or absent: written beside its place, and moved there in one step."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hero_train.errors import DataError


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A new folder beside ``out`` that takes its place when the block ends without an error, and vanishes otherwise.

    A reader of ``out`` sees the old folder, the new one or, for the moment between two renamings, none; never half of one. What a
    killed process left is removed, but for an old folder that it did not get round to replacing, which is put back.

    Raises:
        DataError: ``out`` cannot be written.
    """
    out = out.absolute()  # "." has neither a name nor a folder around it
    partial, replaced = (out.parent / f".{out.name}.{state}" for state in ("partial", "replaced"))
    try:
        if replaced.exists() and not out.exists():
            replaced.rename(out)
        for left in (partial, replaced):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            out.rename(replaced)
        partial.rename(out)
    except BaseException as error:
        if replaced.exists() and not out.exists():
            replaced.rename(out)
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise DataError(
                f"{out} cannot be written ({error}). See that there is room on the disk and that the folder may be written to."
            ) from error
        raise
    shutil.rmtree(replaced, ignore_errors=True)
