"""What docs/exporting.md says of TensorRT is so: its commands, options, targets and names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from hero_export.cli import app
from hero_export.tensorrt.module import PORTABLE, find_tensorrt
from hero_export.tensorrt.quantise import NARROW
from hero_sdk.engines.tensorrt import EXTRAS, HOST_CODE_VARIABLE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "exporting.md").read_text(encoding="utf-8")
SECTION = PAGE.split("\n## TensorRT\n")[1].split("\n## ")[0]
COMMANDS = re.findall(r"^    (hero-export .*)$", SECTION, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_there_is(command: str) -> None:
    words = shlex.split(command)
    group = typer.main.get_command(app)
    assert group.commands[words[1]].make_context(words[1], words[2:]).params  # type: ignore[attr-defined]


def test_options_and_names_are_those_of_the_code() -> None:
    assert len(COMMANDS) == 4
    parameters = typer.main.get_command(app).commands["tensorrt"].params  # type: ignore[attr-defined]
    options = {option for parameter in parameters for option in parameter.opts}
    assert set(re.findall(r"--[a-z]+(?:-[a-z]+)*", SECTION)) <= options | {"--max-batch"}
    for name in (PORTABLE, HOST_CODE_VARIABLE, *find_tensorrt("tensorrt_rtx").targets()):
        assert f"`{name}" in SECTION
    assert f"fewer than {NARROW} outputs" in SECTION
    for extra in EXTRAS.values():
        assert f"(extra `{extra}`" in SECTION
        assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert (ROOT / re.findall(r"`pytest (tests/\S+)`", SECTION)[0]).is_file()
    for module in re.findall(r"`(hero_(?:sdk|export)/\S+\.py)`", SECTION):
        assert (ROOT / module).is_file() or (ROOT / "export" / module).is_file()
