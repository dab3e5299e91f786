"""What ``docs/benchmarking.md`` says of the commands and of their results is so."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from hero_bench.cli import app
from hero_bench.lengths import SubtitleLength, VideoLengths, read_lengths
from hero_bench.machine import describe_machine
from hero_bench.results import Run
from hero_bench.training_results import LayoutCounts, TrainingReport

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "benchmarking.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    return [line.strip() for line in PAGE.splitlines() if line.startswith("    hero-bench ")]


def test_the_page_has_commands() -> None:
    assert {command.split()[1] for command in commands()} == {"latency", "throughput", "training"}


@pytest.mark.parametrize("command", commands())
def test_a_command_is_one_that_there_is(command: str) -> None:
    _, name, *options = shlex.split(command, comments=True)
    group: Any = typer.main.get_command(app)
    assert group.commands[name].make_context(name, options).params


def test_every_option_that_is_explained_exists() -> None:
    group: Any = typer.main.get_command(app)
    known = {option for command in group.commands.values() for param in command.params for option in param.opts}
    explained = set(re.findall(r"`(--[\w-]+)", PAGE))
    assert len(explained) > 8
    assert explained <= known


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if not (DOCS / link).is_file()] == []


def test_the_line_of_lengths_is_one(tmp_path: Path) -> None:
    (line,) = [line.strip() for line in PAGE.splitlines() if line.startswith('    {"clips"')]
    (tmp_path / "lengths.jsonl").write_text(line)
    subtitles = (SubtitleLength(0.4, 2.1, 9), SubtitleLength(2.3, 5.0, 14))
    assert read_lengths(tmp_path / "lengths.jsonl") == [VideoLengths(51, subtitles)]


def test_the_results_of_training_are_as_described() -> None:
    run = Run("training", describe_machine(), None, {"batches": 1})
    report = json.loads(TrainingReport(run, (LayoutCounts("padded", 1, 2, 3, 4, 5, 6, 7),), ()).to_json())
    described = {
        line.split()[0].removesuffix("[]") for line in PAGE.splitlines() if re.match(r"    \w+(\[\])?  +\w", line)
    }
    assert set(report) - {"schema_version", "kind", "created"} <= described
    (layout,) = report["layouts"]
    (line,) = [line for line in PAGE.splitlines() if line.startswith("    layouts[]")]
    assert all(re.search(rf"\b{name}\b", line) for name in layout)
