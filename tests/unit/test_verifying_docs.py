"""docs/verifying.md: its commands and options are there, its tolerances those of the code, its files those that are written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from hero_export.cli import app
from hero_export.exit_codes import ExitCode
from hero_export.reproduce import SCRIPT_FILE
from hero_export.tolerances import TOLERANCES
from hero_export.verification.bootstrap import ROUNDS
from hero_export.verification.destination import REPORT_HTML, REPORT_JSON, REPORT_TEXT, default_place
from hero_export.verification.verifying import INPUTS_FOLDER

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "verifying.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("line", re.findall(r"^    (hero-export .*)$", PAGE, re.MULTILINE))
def test_a_command_is_one_that_there_is(line: str) -> None:
    words = shlex.split(line)
    group: Any = typer.main.get_command(app)
    assert group.commands[words[1]].make_context(words[1], words[2:]).params


def test_every_option_is_explained() -> None:
    group: Any = typer.main.get_command(app)
    options = {
        (option.secondary_opts or option.opts)[-1] if option.name == "latency" else option.opts[-1]
        for option in group.commands["verify"].params
        if option.opts[-1].startswith("--")
    }
    table = PAGE.split("## What is checked")[0]
    assert options <= set(re.findall(r"--[a-z-]+", table))


def test_the_tolerances_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [
        (name, f"{one.max_relative_error:g}", f"{one.min_cosine:g}", f"{one.budget:g}", one.reason)
        for name, one in TOLERANCES.items()
    ]
    assert f"{ROUNDS:,} draws" in PAGE


def test_the_files_are_those_that_are_written() -> None:
    shown = re.findall(r"^    bundle-verification/(\S+)  ", PAGE, re.MULTILINE)
    assert shown == [REPORT_HTML, REPORT_JSON, REPORT_TEXT, f"{INPUTS_FOLDER}/", SCRIPT_FILE]
    assert default_place(Path("bundle")).name == "bundle-verification"


def test_the_exit_codes_are_those_of_the_code() -> None:
    section = PAGE.split("## How it ends")[1]
    codes = [int(code) for line in re.findall(r"^\| ([\d, ]+) \|", section, re.MULTILINE) for code in line.split(",")]
    assert codes == [ExitCode.OK, ExitCode.REFUSED, ExitCode.SIGNATURE, ExitCode.VERIFICATION, ExitCode.BUDGET]


def test_links_lead_somewhere() -> None:
    for name, _ in re.findall(r"\]\(([^)#]+)(#[^)]+)?\)", PAGE):
        assert (DOCS / name).is_file(), name
