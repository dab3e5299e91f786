"""Runs the command ``hero-export`` in this process, as its console script does."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from hero_export import cli
from tests.unit.hero_command import Ran

RunExport = Callable[..., Ran]


def make_export_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunExport:
    """A function that takes the arguments; what the environment of the tests sets is not seen."""
    for name in ("HERO_DEBUG", "HERO_KEY_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["hero-export", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return Ran(stopped.value.code, out, " ".join(err.split()))

    return run
