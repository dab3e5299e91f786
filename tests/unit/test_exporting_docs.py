"""docs/exporting.md: its commands are ones that there are, and what it says of precisions is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from hero_export.cli import app
from hero_export.precision import search
from hero_export.precision.making import HEADS, PRECISIONS
from hero_export.precision.quantise import NARROW
from hero_export.precision.readback import LEAST

PAGE = (Path(__file__).parents[2] / "docs" / "exporting.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (hero-export .*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_there_is(command: str) -> None:
    words = shlex.split(command)
    group: Any = typer.main.get_command(app)
    assert group.commands[words[1]].make_context(words[1], words[2:]).params


def test_every_precision_is_explained() -> None:
    table = PAGE[PAGE.index("| precision |") : PAGE.index("Inputs and outputs stay float32")]
    assert set(re.findall(r"`([\w-]+)`", table)) == set(PRECISIONS)


def test_the_limits_are_those_of_the_code() -> None:
    flat = " ".join(PAGE.split())
    assert f"less than {LEAST:.0%}".replace("%", " %") in flat
    assert {8: "fewer than eight outputs"}[NARROW] in flat
    assert f"the heads ({', '.join(f'`{graph}`' for graph in HEADS)})" in flat


def test_the_search_is_called_as_shown() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    made = {
        "bundle": None,
        "manifest": None,
        "calibration": None,
        "metric": lambda kept: 70.0 + len(kept),
    }
    with pytest.MonkeyPatch.context() as patch:
        layers = [search.Sensitivity(f"temporal:layers.{number}", 1.0 - number / 10) for number in range(3)]
        patch.setattr(search, "rank_bundle", lambda *arguments: layers)
        exec(block, made)
    assert made["found"].kept == ("temporal:layers.0",)  # type: ignore[attr-defined]
