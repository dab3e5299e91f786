"""The configurations in the documentation train, one from another, in a folder that is laid out as it says.

Only sizes are changed: of batches, as six videos are few, and of the model, as time is short.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hero_train import cli
from hero_train.model.tasks import model_class_of
from tests.tiny_training import ANNOTATIONS, TINY, forget_the_last_run

DOCS = Path(__file__).parents[2] / "docs"

SMALL = {
    "pretraining": ("sampling.videos=6", "checkpoint_every=1"),
    "retrieval": ("sampling.videos=6", "evaluate_every=1", "checkpoint_every=1"),
    "questions": ("sampling.items=3", "evaluate_every=1"),
    "statements": ("sampling.items=3", "evaluate_every=1"),
    "captions": ("sampling.videos=3", "evaluate_every=1"),
}


def configuration(page: str, task: str) -> str:
    """The block of a page that is about a task."""
    found = re.findall(r"```yaml\n(.*?)```", (DOCS / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in found if re.match(rf"task: {task}\b", block)]
    return str(block)


@pytest.fixture(scope="module")
def folder(training_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A newcomer's folder: ``videos``, ``subtitles``, ``encoder``, and annotations by the names of the pages."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name in ("videos", "subtitles", "encoder"):
        shutil.copytree(training_set / name, folder / name)
    for task, file in ANNOTATIONS.items():
        lines = [json.loads(line) for line in (training_set / file).read_text(encoding="utf-8").splitlines()]
        if task == "retrieval":
            # The page's configuration shows the picture or the words alone at times, and both need queries.
            lines = [{**line, "type": kind} for line, kind in zip(lines, ("v", "t", "vt") * 6, strict=True)]
        start = "" if task == "retrieval" else f"{task}_"
        for split in ("train", "validation", "test"):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / f"{start}{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


def hero_train(*arguments: str) -> str:
    forget_the_last_run()
    result = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def train(folder: Path, page: str, task: str, *more: str) -> Path:
    path = folder / f"{task}.yaml"
    path.write_text(configuration(page, task), encoding="utf-8")
    settings = ("optimisation.steps=2", "precision=fp32", "threads=1", *SMALL[task], *more)
    hero_train("run", str(path), *(word for setting in settings for word in ("--set", setting)))
    output = next(
        line.split()[1] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("output:")
    )
    return folder / output


@pytest.fixture(scope="module")
def first(folder: Path) -> Path:
    """The run of docs/training.md."""
    kept = ("min_span_clips", "max_span_clips", "text_positions", "frame_positions", "clip_limit", "query_positions")
    sizes = {name: value for name, value in TINY.items() if name not in kept} | {"temporal_positions": 128}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        return train(folder, "training", "retrieval", *(f"model.{name}={value}" for name, value in sizes.items()))


def test_training_md(first: Path) -> None:
    """What comes out is what the page lists."""
    section = (DOCS / "training.md").read_text(encoding="utf-8").split("## What comes out")[1]
    listed = re.findall(r"^    runs/first/([\w.]+)", section, re.MULTILINE)
    assert len(listed) == 5
    # TensorBoard writes beside them.
    assert {path.name for path in first.iterdir()} == {*listed, "hero"}
    results = json.loads((first / "results.json").read_text(encoding="utf-8"))
    assert set(results) == {"validation", "test"}
    assert "all" in results["test"]["metrics"]
    printed = hero_train("eval", str(first / "config.yaml"), "--split", "validation")
    assert "validation: 18 queries, 6 videos; percent" in printed


@pytest.mark.parametrize("task", ["questions", "statements", "captions"])
def test_tasks_md(folder: Path, first: Path, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    monkeypatch.setenv("PATH", "")
    output = train(folder, "tasks", task)
    assert (output / "checkpoint" / "tokenizer.json").read_bytes() == (
        first / "checkpoint" / "tokenizer.json"
    ).read_bytes()
    model = model_class_of(output / "checkpoint").from_pretrained(output / "checkpoint")
    assert model.config.hidden_size == TINY["hidden_size"]
    assert "validation" in json.loads((output / "results.json").read_text(encoding="utf-8"))


def test_pretraining_md(folder: Path, first: Path) -> None:
    """Its checkpoint is what the page's second command starts from."""
    sizes = {name: value for name, value in TINY.items() if not name.endswith(("_positions", "_clips", "_limit"))}
    output = train(folder, "pretraining", "pretraining", *(f"model.{name}={value}" for name, value in sizes.items()))
    settings = ("output=runs/tuned", f"initial={output / 'checkpoint'}", "model={}", "precision=fp32", "threads=1")
    arguments = ("optimisation.steps=1", "sampling.videos=6", *settings)
    hero_train("run", str(folder / "retrieval.yaml"), *(word for setting in arguments for word in ("--set", setting)))
    assert (folder / "runs" / "tuned" / "checkpoint" / "model.safetensors").is_file()
