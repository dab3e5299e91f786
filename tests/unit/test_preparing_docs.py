"""docs/preparing.md shows commands that there are, and names every schema, option and file of a set."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from hero_export.cli import app as export_app
from hero_train.cli import app as train_app
from hero_train.prepare.records import Record
from hero_train.prepare.schemas import SCHEMAS
from hero_train.run_config import load_config

MANUAL = (Path(__file__).parents[2] / "docs" / "preparing.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    return [line.strip() for line in MANUAL.splitlines() if line.startswith("    hero-")]


def test_the_manual_has_commands() -> None:
    assert len(commands()) >= 10


@pytest.mark.parametrize("command", commands())
def test_a_command_is_one_that_there_is(command: str) -> None:
    words = shlex.split(command, comments=True)
    group: Any = typer.main.get_command(export_app if words[0] == "hero-export" else train_app)
    found = group.commands[words[1]]
    assert found.make_context(words[1], words[2:]).params


def test_every_schema_has_a_command_and_says_what_is_read() -> None:
    shown = " ".join(commands())
    for schema in SCHEMAS.values():
        assert f"--schema {schema.name} " in shown
        (row,) = re.findall(rf"^\| `{schema.name}` \| (.*)$", MANUAL, re.MULTILINE)
        if schema.positional:
            named = [name for name in schema.columns if not name.startswith("wrong_")]
            assert [name for name in re.findall(r"`(\w+)`", row) if name in named] == named
        assert schema.expects


def test_every_option_is_named() -> None:
    group: Any = typer.main.get_command(train_app)
    options = {option for parameter in group.commands["prepare"].params for option in parameter.opts}
    assert not [option for option in options if option not in MANUAL and option != "--help"]


def test_the_annotation_is_one_that_is_read() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", MANUAL, flags=re.DOTALL)
    (record,) = SCHEMAS["tvr"].parse(json.loads(block), 1)
    assert isinstance(record, Record)
    assert record.as_line() == json.loads(block)


def test_the_configuration_describes_a_run_without_videos(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", MANUAL, flags=re.DOTALL)
    (tmp_path / "run.yaml").write_text(block, encoding="utf-8")
    config = load_config(tmp_path / "run.yaml")
    assert config.frame_encoder is config.data.videos is None
    assert config.data.features == tmp_path / "sets" / "mine"


def test_every_file_of_a_set_is_named() -> None:
    for name in ("prepared.json", "annotations/", "subtitles.jsonl", "features/", "dropped.jsonl"):
        assert f"sets/tvr/{name}" in MANUAL
