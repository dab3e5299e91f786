"""The pages about training show configurations, annotations and commands that there are, and leave no entry unsaid."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

from hero_export.cli import app as export_app
from hero_sdk.rows import RowGeometry
from hero_train.cli import app as train_app
from hero_train.config import CaptioningConfig, HeroConfig
from hero_train.data.annotations import MomentQuery, read_moment_queries
from hero_train.data.answer_annotations import Question, Statement, read_questions, read_statements
from hero_train.data.answer_sampling import AnswerSampling, QuestionSampling
from hero_train.data.augmentation import AugmentationConfig
from hero_train.data.captions import CaptionedMoment, CaptionSamplingConfig, read_captioned_moments
from hero_train.data.pretraining import PretrainingSampling, TaskMix
from hero_train.data.sampling import SamplingConfig
from hero_train.geometry import check_geometry, check_text_geometry
from hero_train.losses import RetrievalLossConfig
from hero_train.run_config import (
    CONFIGS,
    CaptionRunConfig,
    DataSection,
    FineTuningConfig,
    OptimisationSection,
    PretrainingData,
    PretrainingRunConfig,
    QuestionRunConfig,
    RetrievalRunConfig,
    StatementRunConfig,
    TokenizerSection,
    Tracker,
    load_config,
)

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {
    name: (DOCS / f"{name}.md").read_text(encoding="utf-8")
    for name in ("training", "tasks", "checkpoints", "pretraining")
}


def blocks(language: str, pages: Iterable[str] = PAGES) -> list[str]:
    return [block for page in pages for block in re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)]


def load(folder: Path, block: str) -> Any:
    (folder / "run.yaml").write_text(block, encoding="utf-8")
    return load_config(folder / "run.yaml")


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.split()[1])
def test_a_configuration_describes_a_run(tmp_path: Path, block: str) -> None:
    config = load(tmp_path, block)
    sizes = (CaptioningConfig if config.task == "captions" else HeroConfig)(**config.model)
    check = check_text_geometry if config.task in ("questions", "statements") else check_geometry
    check(config.rows, sizes)


def test_there_is_a_configuration_for_every_task(tmp_path: Path) -> None:
    assert [load(tmp_path, block).task for block in blocks("yaml")] == [
        *("retrieval", "questions", "statements", "captions", "pretraining")
    ]
    for task in CONFIGS:
        assert f"| `{task}` |" in PAGES["training"]


@pytest.mark.parametrize(
    "path",
    [*sorted((ROOT / "train" / "configs").glob("*.yaml")), *sorted((ROOT / "demo" / "configs").glob("*.yaml"))],
    ids=lambda path: path.name,
)
def test_a_configuration_that_ships_describes_a_run(path: Path) -> None:
    config = load_config(path)
    kind = CaptioningConfig if config.task == "captions" else HeroConfig
    assert kind(**config.model)
    page = {"retrieval": "training", "pretraining": "pretraining"}.get(config.task, "tasks")
    own = "" if page == "training" else f"docs/{page}.md and "
    assert f"{own}docs/training.md explain" in path.read_text(encoding="utf-8")


ANNOTATED: list[tuple[Callable[[Path], Sequence[object]], object]] = [
    (read_moment_queries, MomentQuery("17", "The robot takes the red gem.", "episode_1", ((12.4, 16.0),), "v")),
    (
        read_questions,
        Question(
            *("5", "What does the robot take?", ("A coin.", "The red gem.", "Nothing."), "episode_1", 1),
            *((12.4, 16.0), "picture"),
        ),
    ),
    (
        read_statements,
        Statement("7", "The robot takes the gem before it climbs.", "episode_1", True, "3", "order", (12.4, 21.0)),
    ),
    (
        read_captioned_moments,
        CaptionedMoment("11", "episode_1", 12.4, 16.0, ("The robot takes the red gem.", "A gem is taken.")),
    ),
]


def test_the_annotations_can_be_read(tmp_path: Path) -> None:
    for block, (read, expected) in zip(blocks("json"), ANNOTATED, strict=True):
        (tmp_path / "train.jsonl").write_text(block, encoding="utf-8")
        assert read(tmp_path / "train.jsonl") == [expected]


def commands() -> list[str]:
    text = "\n".join(PAGES.values())
    lines = [line.strip() for line in text.splitlines() if line.startswith("    hero-")]
    return sorted({*lines, *re.findall(r"(?:    |`)((?:torchrun|accelerate) [^`\n]*)", text)})


def test_the_pages_have_commands() -> None:
    assert len(commands()) >= 12


@pytest.mark.parametrize("command", commands())
def test_a_command_is_one_that_there_is(command: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] in ("torchrun", "accelerate"):
        assert "hero_train.cli" in words
        words = words[words.index("hero_train.cli") :]
    group: Any = typer.main.get_command(export_app if words[0] == "hero-export" else train_app)
    found = group.commands[words[1]]
    assert found.make_context(words[1], words[2:]).params


OVERRIDDEN = [command for command in commands() if " run " in command and "--set" in command]


@pytest.mark.parametrize("command", OVERRIDDEN)
def test_overrides_in_commands_are_entries(tmp_path: Path, command: str) -> None:
    """Those of ``run.yaml`` are of the page's first configuration."""
    words = shlex.split(command)
    overrides = [word for place, word in enumerate(words) if words[place - 1] == "--set"]
    if words[2] == "run.yaml":
        (tmp_path / "run.yaml").write_text(blocks("yaml", ["training"])[0], encoding="utf-8")
        assert load_config(tmp_path / "run.yaml", overrides)
    else:
        assert load_config(ROOT / words[2], overrides)


def names_of(*sections: Any) -> set[str]:
    return {
        name
        for section in sections
        for name in (
            section.model_fields
            if issubclass(section, BaseModel)
            else [field.name for field in dataclasses.fields(section)]
        )
    }


GENERAL = (FineTuningConfig, DataSection, TokenizerSection, OptimisationSection, RowGeometry)
RETRIEVAL = (RetrievalRunConfig, SamplingConfig, AugmentationConfig, RetrievalLossConfig)
DERIVED = {"vocab_size", "feature_dim"}

# What is explained where; an entry that is explained in training.md need not be explained again.
EXPLAINED = [
    ("training", GENERAL),
    ("training", RETRIEVAL),
    ("training", (HeroConfig,)),
    ("tasks", (QuestionRunConfig, QuestionSampling, AnswerSampling, StatementRunConfig)),
    ("tasks", (CaptionRunConfig, CaptionSamplingConfig, CaptioningConfig)),
    ("pretraining", (PretrainingRunConfig, PretrainingData, PretrainingSampling, TaskMix)),
]


def test_every_class_of_configuration_is_held_to_the_pages() -> None:
    covered = {section for _, sections in EXPLAINED for section in sections}
    assert set(CONFIGS.values()) <= covered
    for kind in CONFIGS.values():
        for name, field in kind.model_fields.items():
            section = field.annotation
            if (
                name != "rows"
                and isinstance(section, type)
                and (issubclass(section, BaseModel) or dataclasses.is_dataclass(section))
            ):
                assert section in covered or issubclass(DataSection, section), name


@pytest.mark.parametrize(
    ("page", "sections"), EXPLAINED, ids=lambda value: value if isinstance(value, str) else value[0].__name__
)
def test_every_entry_is_explained(page: str, sections: tuple[Any, ...]) -> None:
    """By a comment behind it in a configuration, or by name in the text."""
    general = set() if page == "training" else names_of(*GENERAL, *RETRIEVAL, HeroConfig)
    own = names_of(*sections) - general
    if page == "tasks":
        # Its counts mean something else than those of retrieval.
        own |= names_of(AnswerSampling, QuestionSampling, CaptionSamplingConfig) - {"augmentation"}
    unsaid = [name for name in sorted(own) if not _is_explained(name, PAGES[page])]
    assert not unsaid


def _is_explained(name: str, page: str) -> bool:
    behind = rf"^ *(?:# )?{name}:.*# \S"
    inside = rf"`(?:[\w.]+\.)?{name}(?:: [^`]*)?`"
    return re.search(behind, page, re.MULTILINE) is not None or re.search(inside, page) is not None


def test_the_documented_defaults_of_the_architecture_are_so() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([\d., ]+) \|", PAGES["training"], re.MULTILINE)
    found = {
        name.strip("`"): float(value)
        for names, values in rows
        for name, value in zip(names.split(", "), values.split(", "), strict=True)
    }
    assert found == {field.name: field.default for field in dataclasses.fields(HeroConfig) if field.name not in DERIVED}


def test_every_tracker_is_named() -> None:
    (table,) = re.findall(r"^\| `tensorboard` (?:.+\n)+", PAGES["training"], re.MULTILINE)
    assert set(get_args(Tracker)) <= set(re.findall(r"`(\w+)`", table))


def test_what_they_install_exists() -> None:
    extras = re.findall(r'pip install "hero-video-sdk\[(\w+)\]"', "\n".join(PAGES.values()))
    assert set(extras) == {"export", "captions"}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)
    assert importlib.metadata.version("tensorboard")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([\w-]+))?\)", PAGES[page]):
        path = DOCS / target if target else DOCS / f"{page}.md"
        assert path.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, anchor
