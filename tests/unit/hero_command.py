"""Runs the command ``hero`` in this process, and looks into the corpora that it makes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hero_sdk import cli
from hero_sdk.corpus.table import VideoTable

SETTINGS = ("HERO_BUNDLE", "HERO_URL", "HERO_CORPUS", "HERO_DEBUG")


@dataclass(frozen=True)
class Ran:
    """The exit code, and what went to standard output and to standard error."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> Any:
        """What was printed with ``--json``."""
        return json.loads(self.out)


Run = Callable[..., Ran]


def make_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that takes the arguments; what the environment of the tests sets is not seen."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["hero", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return Ran(stopped.value.code, out, err)

    return run


def stored(corpus: Path, *columns: str) -> list[dict[str, object]]:
    """Some columns of all videos, sorted by id."""
    return VideoTable.open(corpus).column(*columns)


def ids_in(corpus: Path) -> list[object]:
    return [row["video_id"] for row in stored(corpus)]
