"""A folder that is whole or absent: written beside its place, and moved there in one step."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hero_sdk.errors import HeroError
from hero_train.errors import DataError


@contextmanager
def staged(
    out: Path,
    *,
    mark: str = "",
    check: Callable[[], None] = lambda: None,
    error: type[HeroError] = DataError,
) -> Iterator[Path]:
    """A new folder beside ``out`` that takes its place when the block ends without an error, and vanishes otherwise.

    A reader of ``out`` sees the old folder, the new one or, for the moment between two renamings, none; never half of one. What a
    killed process left under the same mark is removed, but for an old folder that it did not get round to replacing, which is put
    back.

    Args:
        out: where the folder goes.
        mark: tells the folders of processes apart that may write to one place at the same time.
        check: raises where ``out`` may not be replaced; called before the block and after it, when it may have been taken.
        error: what to raise where ``out`` cannot be written.

    Raises:
        error: ``out`` cannot be written.
    """
    out = out.absolute()  # "." has neither a name nor a folder around it
    # Not tempfile.mkdtemp: its folders are closed to everyone but their owner, and would stay so in their final place.
    partial, replaced = (out.parent / f".{out.name}{mark}.{state}" for state in ("partial", "replaced"))
    check()
    try:
        if replaced.exists() and not out.exists():
            replaced.rename(out)
        for left in (partial, replaced):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        check()
        if out.exists():
            out.rename(replaced)
        partial.rename(out)
    except BaseException as cause:
        if replaced.exists() and not out.exists():
            replaced.rename(out)
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(cause, OSError):
            raise error(
                f"{out} cannot be written ({cause}). See that there is room on the disk and that the folder may be written to."
            ) from cause
        raise
    shutil.rmtree(replaced, ignore_errors=True)
