"""docs/evaluating.md: its names, forms, protocols, commands and examples are those of the code."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml

from hero_train.caption_metrics import CAPTION_METRICS
from hero_train.cli import app
from hero_train.config import HeroConfig
from hero_train.evaluation import ALL, HEADLINES, Evaluation
from hero_train.metrics import METRICS
from hero_train.metrics_answers import ANSWER_METRICS
from hero_train.model.hero import HeroModel
from hero_train.model.layers import initialise
from tests.tiny_training import tiny_config
from tests.unit.test_evaluate_retrieval import GEOMETRY, make_corpus

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "evaluating.md").read_text(encoding="utf-8")
CONFIGS = {"TVR": "tvr", "How2R": "how2r", "DiDeMo, picture only": "didemo", "MSR-VTT": "msrvtt"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_metrics_are_those_there_are() -> None:
    named = set(re.findall(r"`((?:VR|SVMR|VCMR)/[^`]+)`", PAGE))
    assert named
    assert named <= set(METRICS)
    assert set(HEADLINES) <= {*METRICS, *ANSWER_METRICS, *CAPTION_METRICS}
    for name in ("accuracy", "BLEU-1", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"):
        assert f"`{name}`" in PAGE


def test_an_evaluation_has_the_form_that_is_shown() -> None:
    (block,) = blocks("json")
    shown = json.loads(block)
    assert Evaluation(**shown).as_dict() == shown
    assert ALL in shown["metrics"]


def protocols() -> dict[str, dict[str, float]]:
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")
    ]
    header = next(number for number, row in enumerate(rows) if row[0] == "data set")
    names = rows[header][1:]
    table = {}
    for row in rows[header + 1 :]:
        if len(row) != len(names) + 1:
            break
        table[row[0]] = {name: float(cell) for name, cell in zip(names, row[1:], strict=True) if cell}
    return table


def test_the_protocols_are_those_of_the_configurations_that_ship() -> None:
    assert set(CONFIGS) <= set(protocols())
    for name, entries in protocols().items():
        HeroConfig.from_dict({entry: type(getattr(HeroConfig(), entry))(value) for entry, value in entries.items()})
        if name in CONFIGS:
            model = yaml.safe_load((ROOT / "train" / "configs" / f"{CONFIGS[name]}.yaml").read_text()).get("model", {})
            config = HeroConfig.from_dict(model)
            assert {entry: getattr(config, entry) for entry in entries} == entries, name


def commands() -> list[str]:
    return [line.strip() for line in PAGE.splitlines() if line.startswith("    hero-")]


@pytest.mark.parametrize("command", commands())
def test_a_command_is_one_that_there_is(command: str) -> None:
    group: Any = typer.main.get_command(app)
    words = shlex.split(command)
    assert group.commands[words[1]].make_context(words[1], words[2:]).params


def test_links_lead_somewhere() -> None:
    assert [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if not (ROOT / "docs" / link).is_file()] == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("caption_tokens", "caption_tokens"),
        ("evaluation", "Evaluation"),
        ("data.annotations", "read_hidden_queries"),
        ("data.corpus", "build_videos"),
        ("evaluate", "search_hidden"),
        ("evaluate_answers", "answer_questions"),
        ("evaluate_answers", "judge_statements"),
        ("evaluate_captions", "write_captions"),
        *(
            ("submissions", name)
            for name in ("write_retrieval", "write_answers", "write_captions", "read_video_numbers")
        ),
    ],
)
def test_what_is_named_exists(module: str, name: str) -> None:
    assert name in PAGE
    assert hasattr(__import__(f"hero_train.{module}", fromlist=[name]), name)


def test_the_example_writes_a_file_that_measures_as_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison, example = blocks("python")
    compile(comparison, "comparison", "exec")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = HeroModel(tiny_config(min_span_clips=1, max_span_clips=4))
    initialise(model, 0.3)
    names: dict[str, Any] = {"model": model, "corpus": make_corpus(((0.0, 3.0),)), "rows": GEOMETRY}
    exec(example, names)
    printed = capsys.readouterr().out
    plain = {name: value for name, value in names["evaluation"].metrics["all"].items() if not name.endswith("/NMS")}
    assert printed.strip() == str(plain)
