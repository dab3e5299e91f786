"""docs/training.md and the configurations that ship are valid, and nothing that can be configured is left unsaid."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from hero_export.cli import app as export_app
from hero_sdk.rows import RowGeometry
from hero_train.cli import app as train_app
from hero_train.config import CaptioningConfig, HeroConfig
from hero_train.data.annotations import MomentQuery, read_moment_queries
from hero_train.data.augmentation import AugmentationConfig
from hero_train.data.sampling import SamplingConfig
from hero_train.losses import RetrievalLossConfig
from hero_train.run_config import (
    DataSection,
    OptimisationSection,
    RetrievalRunConfig,
    TokenizerSection,
    load_config,
)

ROOT = Path(__file__).parents[2]
MANUAL = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", MANUAL, flags=re.DOTALL)


def test_the_configuration_describes_a_run(tmp_path: Path) -> None:
    (block,) = blocks("yaml")
    (tmp_path / "run.yaml").write_text(block, encoding="utf-8")
    config = load_config(tmp_path / "run.yaml")
    assert config.data.rounding == "middle"
    assert HeroConfig.from_dict(config.model).hidden_size == 256


@pytest.mark.parametrize(
    "path",
    [*sorted((ROOT / "train" / "configs").glob("*.yaml")), *sorted((ROOT / "demo" / "configs").glob("*.yaml"))],
    ids=lambda path: path.name,
)
def test_a_configuration_that_ships_describes_a_run(path: Path) -> None:
    config = load_config(path)
    kind = CaptioningConfig if config.task == "captions" else HeroConfig
    assert kind(**config.model)


def test_the_annotation_can_be_read(tmp_path: Path) -> None:
    (block,) = blocks("json")
    (tmp_path / "train.jsonl").write_text(block, encoding="utf-8")
    expected = MomentQuery("17", "The robot takes the red gem.", "episode_1", ((12.4, 16.0),), "v")
    assert read_moment_queries(tmp_path / "train.jsonl") == [expected]


def commands() -> list[str]:
    lines = [line.strip() for line in MANUAL.splitlines() if line.startswith("    hero-")]
    return lines + re.findall(r"(?:    |`)((?:torchrun|accelerate) [^`\n]*)", MANUAL)


def test_the_manual_has_commands() -> None:
    assert len(commands()) >= 8


@pytest.mark.parametrize("command", commands())
def test_a_command_is_one_that_there_is(command: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] in ("torchrun", "accelerate"):
        assert "hero_train.cli" in words
        words = words[words.index("hero_train.cli") :]
    group: Any = typer.main.get_command(export_app if words[0] == "hero-export" else train_app)
    found = group.commands[words[1]]
    assert found.make_context(words[1], words[2:]).params


def test_every_entry_is_explained() -> None:
    entries = [
        name
        for section in (RetrievalRunConfig, DataSection, TokenizerSection, OptimisationSection)
        for name in section.model_fields
    ]
    for section in (SamplingConfig, AugmentationConfig, RetrievalLossConfig, RowGeometry):
        entries += [field.name for field in dataclasses.fields(section)]
    missing = [name for name in entries if not re.search(rf"\b{name}\b", MANUAL)]
    assert not missing
