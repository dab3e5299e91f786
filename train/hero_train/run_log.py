"""The log of a run: one JSON object per line, each with its ``step``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

LOG_FILE = "log.jsonl"


def add_line(folder: Path, line: dict[str, Any]) -> None:
    """Add a line to the log in a run's folder."""
    with (folder / LOG_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def cut_log(folder: Path, step: int) -> None:
    """Drop the lines of later steps, which a run that goes on from a step writes again, and a line that a killed run broke off.

    The log is replaced as a whole or stays as it was.
    """
    path = folder / LOG_FILE
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if (at := _step(line)) is not None and at <= step]
    if kept == lines:
        return
    partial = path.with_name(f"{LOG_FILE}.partial")
    partial.write_text("".join(kept), encoding="utf-8")
    os.replace(partial, path)


def _step(line: str) -> int | None:
    """The step of a line; None where it is not whole."""
    try:
        return int(json.loads(line)["step"]) if line.endswith("\n") else None
    except (ValueError, KeyError, TypeError):
        return None
