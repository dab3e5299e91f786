"""What the command ``hero`` prints: tables, JSON, progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from hero_sdk.command import without_controls

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

TABLE_WIDTH = 160
"""Columns of a table where standard output is no terminal, such as a log file."""


def format_time(seconds: float) -> str:
    """``m:ss.s``, or ``h:mm:ss.s`` from an hour on; rounded to tenths first, so that 59.96 s is 1:00.0 and not 0:60.0."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest // 10:02d}.{rest % 10}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def printable(text: str) -> Text:
    """A line of text without markup and without control characters."""
    from rich.text import Text

    return Text(without_controls(text))


def make_table(*columns: str) -> Table:
    """An empty table; without column names it has no header."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_header=bool(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_tables(*tables: Table) -> None:
    """Print on standard output, as wide as the terminal."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    for table in tables:
        console.print(table)


def print_json(value: Any) -> None:
    """Print on standard output, indented; in ASCII, which every pipe and terminal takes."""
    typer.echo(json.dumps(value, indent=2))


@contextmanager
def progress(total: int) -> Iterator[tuple[Console, Callable[[], None]]]:
    """A progress bar on standard error, where that is a terminal.

    Yields:
        The console to print messages on meanwhile, and what to call when one of ``total`` is done.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, soft_wrap=True, width=None if sys.stderr.isatty() else TABLE_WIDTH)
    columns = (TextColumn("Indexing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("index", total=total)
        yield console, lambda: bar.advance(task)
