"""What the command lines of all packages share: how an error reaches the person at the terminal."""

from __future__ import annotations

import os
import sys

import typer

from hero_sdk.errors import HeroError

EXIT_ERROR = 2
DEBUG_VARIABLE = "HERO_DEBUG"


def run_app(app: typer.Typer) -> None:
    """Run a typer application; an error of this project becomes one message on standard error and exit code 2.

    With ``--debug`` anywhere on the command line, or HERO_DEBUG=1, the traceback is shown instead.
    """
    debug = "--debug" in sys.argv or os.environ.get(DEBUG_VARIABLE) == "1"
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(args=arguments)
    except HeroError as error:
        if debug:
            raise
        typer.secho(f"{type(error).__name__}: {error}", fg=typer.colors.RED, err=True)
        raise SystemExit(EXIT_ERROR) from None
