"""What the command lines of all packages share: how text and errors reach the person at the terminal."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

import typer

from hero_sdk.errors import HeroError

EXIT_ERROR = 2
DEBUG_VARIABLE = "HERO_DEBUG"


def run_app(app: typer.Typer, name: str, exit_code: Callable[[HeroError], int] = lambda error: EXIT_ERROR) -> None:
    """Run a typer application; an error of this project becomes one message on standard error and an exit code.

    With ``--debug`` anywhere on the command line, or HERO_DEBUG=1, the traceback is shown instead.

    Args:
        app: the application; its arguments are those of this process.
        name: of the command, as its usage shows it.
        exit_code: of an error; 2 unless the command tells kinds apart.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal or a pipe without Unicode shows a question mark for a letter that it lacks.
        sys.stdout.reconfigure(errors="replace")
    debug = "--debug" in sys.argv or os.environ.get(DEBUG_VARIABLE) == "1"
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(args=arguments, prog_name=name)
    except HeroError as error:
        if debug:
            raise
        message = without_controls(f"{type(error).__name__}: {error}", keep="\n")
        typer.secho(message, fg=typer.colors.RED, err=True)
        raise SystemExit(int(exit_code(error))) from None


def without_controls(text: str, keep: str = "") -> str:
    """Replace control characters, with which a file name, a subtitle or a server could steer a terminal.

    Args:
        text: from anywhere.
        keep: those that stay.

    Returns:
        A space for each that is white space, the replacement character for each other one.
    """
    return "".join(
        letter if letter.isprintable() or letter in keep else " " if letter.isspace() else "\N{REPLACEMENT CHARACTER}"
        for letter in text
    )
