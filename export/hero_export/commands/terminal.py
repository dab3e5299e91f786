"""What the commands of ``hero-export`` show: tables on standard output, stages on standard error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from hero_sdk.hub import Stage

TABLE_WIDTH = 160
"""Columns of a table where standard output is no terminal, such as a log file."""


def console() -> Console:
    """Standard output."""
    from rich.console import Console

    output = Console()
    return output if output.is_terminal else Console(width=TABLE_WIDTH)


@contextmanager
def stages() -> Iterator[Stage]:
    """Show on standard error which stage runs, and how long each took."""
    from rich.console import Console
    from rich.markup import escape

    errors = Console(stderr=True)
    running: list[tuple[str, float]] = []

    with errors.status("Starting") as status:

        def finish() -> None:
            if running:
                stage, began = running.pop()
                errors.print(f"{escape(stage)} [dim]{time.perf_counter() - began:.1f} s[/dim]", highlight=False)

        def begin(stage: str) -> None:
            finish()
            running.append((stage, time.perf_counter()))
            status.update(escape(stage))

        yield begin
        finish()
