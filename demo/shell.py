"""Running the commands that a user would type, and showing them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console


class DemoError(Exception):
    """A step of the demo did not do what it should."""


class Shell:
    """Runs commands of this environment, each shown as it would be typed.

    Args:
        console: where to show them.
        folder: to run in; paths are shown relative to it.
    """

    def __init__(self, console: Console, folder: Path) -> None:
        self.console = console
        self._folder = folder
        self._began = time.monotonic()

    def title(self, text: str) -> None:
        """Begin a part of the demo."""
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        self.console.print(f"\n[bold]{text}[/bold]  [dim]{minutes}:{seconds:02d}[/dim]", highlight=False)

    def run(self, *command: str | Path, expect: int = 0) -> str:
        """Run a command of this environment to its end.

        Args:
            command: name and arguments; paths are shown relative to the folder.
            expect: the exit code that is right.

        Returns:
            What it printed on standard output. Standard error goes to the terminal.

        Raises:
            DemoError: another exit code.
        """
        words = [os.path.relpath(word, self._folder) if isinstance(word, Path) else word for word in command]
        self.console.print(f"$ {shlex.join(words)}", style="cyan", highlight=False, markup=False, soft_wrap=True)
        program = [sys.executable] if words[0] == "python" else [str(Path(sys.executable).parent / words[0])]
        done = subprocess.run([*program, *words[1:]], cwd=self._folder, stdout=subprocess.PIPE, text=True, check=False)
        if done.stdout:
            self.console.print(done.stdout.rstrip(), highlight=False, markup=False, soft_wrap=True)
        if done.returncode != expect:
            raise DemoError(f"`{shlex.join(words)}` ended with {done.returncode}; expected {expect}.")
        return done.stdout
