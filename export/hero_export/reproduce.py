"""``reproduce.sh``: how a result was made, as a script that makes it again from the same inputs, which it checks first.

It names no path of the machine that it was written on: what differs from machine to machine is a variable.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SCRIPT_FILE = "reproduce.sh"


@dataclass(frozen=True)
class Variable:
    """A word of a command that whoever runs the script sets; ``below`` is a path inside of it."""

    name: str
    below: str = ""

    @property
    def path(self) -> str:
        """As a shell expands it."""
        return f"${self.name}/{self.below}" if self.below else f"${self.name}"

    def __str__(self) -> str:
        return f'"{self.path}"'


Word = str | int | float | Variable


def reproduce_script(
    command: Sequence[Word],
    *,
    variables: Mapping[str, str],
    inputs: Mapping[Variable, str],
    tools: Mapping[str, str],
) -> str:
    """The text of a script.

    Args:
        command: its words.
        variables: what each variable of the command stands for.
        inputs: sha256 of each file that the command reads.
        tools: versions of what made the result.
    """
    setting = " ".join(f"{name}=..." for name in variables)
    needed = [f': "${{{name}:?expected {meaning}}}"' for name, meaning in variables.items()]
    sums = [f"{sha256}  {place.path}" for place, sha256 in inputs.items()]
    versions = ", ".join(f"{name} {version}" for name, version in tools.items())
    return "\n".join(
        [
            "#!/bin/sh",
            f"# Makes this again: {setting} sh {SCRIPT_FILE}",
            f"# It was made with {versions}; other versions may give other bytes.",
            "set -eu",
            *needed,
            "",
            "# The inputs are those that it was made from.",
            "sha256sum --check --quiet - <<END",
            *sums,
            "END",
            "",
            " ".join(str(word) if isinstance(word, Variable) else shlex.quote(str(word)) for word in command),
            "",
        ]
    )
