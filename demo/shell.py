"""Running the commands that a user would type, and showing them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console


class DemoError(Exception):
    """A step of the demo did not do what it should."""


@dataclass(frozen=True)
class Finished:
    """A command that came to its end.

    Attributes:
        code: that it ended with.
        output: what it printed on standard output.
        seconds: that it took.
        peak_bytes: the largest resident memory of its process.
    """

    code: int
    output: str
    seconds: float
    peak_bytes: int


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
        return self.measure(*command, expect=(expect,)).output

    def measure(self, *command: str | Path, expect: Collection[int] = (0,), quiet: bool = False) -> Finished:
        """``run``, with what the command cost.

        Args:
            command: as for ``run``.
            expect: the exit codes that are right.
            quiet: do not show what it prints on standard output, such as a report in JSON.

        Raises:
            DemoError: another exit code.
        """
        words = [os.path.relpath(word, self._folder) if isinstance(word, Path) else word for word in command]
        self.console.print(f"$ {shlex.join(words)}", style="cyan", highlight=False, markup=False, soft_wrap=True)
        program = [sys.executable] if words[0] == "python" else [str(Path(sys.executable).parent / words[0])]
        began = time.monotonic()
        process = subprocess.Popen([*program, *words[1:]], cwd=self._folder, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout:
            output = process.stdout.read()
        # Not subprocess's own wait, which does not tell what this one process used.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if output and not quiet:
            self.console.print(output.rstrip(), highlight=False, markup=False, soft_wrap=True)
        if process.returncode not in expect:
            wanted = " or ".join(map(str, expect))
            raise DemoError(f"`{shlex.join(words)}` ended with {process.returncode}; expected {wanted}.")
        return Finished(process.returncode, output, time.monotonic() - began, usage.ru_maxrss * 1024)
