"""Every task of HERO on ToonTV: pre-training, then retrieval, questions, statements and captions, each judged on held-out episodes.

python -m demo.tasks                 # what `make train-demo` runs: up to an hour on two cores
python -m demo.tasks --size small    # every step, too little training to learn anything
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from demo.shell import DemoError, Shell
from demo.toontv.corpus import VERSION, CorpusPlan

HERE = Path(__file__).parent
ROOT = HERE.parent
CONFIGS = HERE / "configs"
WORK = HERE / "work-tasks"

STARTS = {
    "pretraining": None,
    "retrieval": "pretraining",
    "questions": "retrieval",
    "statements": "questions",
    "captions": "retrieval",
}
"""The tasks in the order of training, each with the one whose checkpoint it starts from."""

MINUTES_FILE = "minutes.json"
"""How long a task's training took; there when it came to its end."""

ANNOTATIONS = {"retrieval": "", "questions": "qa_", "statements": "statements_", "captions": "captions_"}
"""What the names of the annotation files begin with."""

FILES = {"train": "train", "validation": "val", "test": "test"}
"""What the names of the annotation files end with, by split."""


@dataclass(frozen=True)
class Size:
    """How much is made and trained.

    Attributes:
        episodes: for training, validation and testing.
        overrides: entries of the configurations, for all tasks ("all") or for one.
    """

    episodes: tuple[int, int, int]
    overrides: dict[str, tuple[str, ...]] = field(default_factory=dict)


SIZES = {
    "full": Size((1000, 60, 60)),
    "small": Size(
        (6, 1, 2),
        {
            "all": ("optimisation.steps=2", "optimisation.warmup=1"),
            "pretraining": ("sampling.videos=4",),
            "retrieval": ("sampling.videos=4", "evaluate_every=0"),
            "questions": ("sampling.items=2", "evaluate_every=0"),
            "statements": ("sampling.items=2", "evaluate_every=0"),
            "captions": ("sampling.videos=2", "evaluate_every=0"),
        },
    ),
}


def main(
    size: Annotated[Literal["full", "small"], typer.Option(help="How much to make and to train.")] = "full",
    work: Annotated[Path, typer.Option(help="Folder for what is made.")] = WORK,
    seed: Annotated[int, typer.Option(help="Of the corpus.")] = 7,
    begin: Annotated[
        str, typer.Option("--from", help="Task to begin with; what an earlier run made of those before it is used.")
    ] = "pretraining",
) -> None:
    """Pre-train, fine-tune on every task, and judge each on held-out episodes."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        run(SIZES[size], work.resolve(), seed, Shell(console, ROOT), begin)
    except DemoError as error:
        console.print(f"[red]{type(error).__name__}[/red]: ", end="")
        console.print(str(error), markup=False, highlight=False)
        raise typer.Exit(1) from error


def run(size: Size, work: Path, seed: int, shell: Shell, begin: str = "pretraining") -> Path:
    """All steps, each by the command that a user would type, from the training of a task on.

    Returns:
        The file with all results.
    """
    make_corpus(work, size.episodes, seed, shell)
    if begin not in STARTS:
        raise DemoError(f"There is no task {begin}; expected one of {', '.join(STARTS)}.")
    order = list(STARTS)
    if lacking := [task for task in order[: order.index(begin)] if not (work / task / MINUTES_FILE).is_file()]:
        raise DemoError(
            f"{', '.join(lacking)} has not been trained to its end in {work.name}; begin with {lacking[0]}."
        )
    for task in order[order.index(begin) :]:
        before = STARTS[task]
        shell.title(f"Train: {task}")
        began = time.monotonic()
        shutil.rmtree(work / task, ignore_errors=True)
        overrides = [*size.overrides.get("all", ()), *size.overrides.get(task, ())]
        train(task, work, work / task, overrides, shell, before and work / before / "checkpoint")
        minutes = round((time.monotonic() - began) / 60, 1)
        (work / task / MINUTES_FILE).write_text(json.dumps(minutes), encoding="utf-8")
    results = {
        "episodes": size.episodes,
        "seed": seed,
        "minutes": {task: json.loads((work / task / MINUTES_FILE).read_text(encoding="utf-8")) for task in order},
        "tasks": {
            task: json.loads((work / task / "results.json").read_text(encoding="utf-8"))["test"] for task in ANNOTATIONS
        },
    }
    target = work / "results.json"
    target.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    shell.title(f"All results are in {target.relative_to(ROOT) if target.is_relative_to(ROOT) else target.name}")
    return target


def make_corpus(work: Path, episodes: tuple[int, int, int], seed: int, shell: Shell) -> None:
    """Make the episodes, the frame encoder and the list of training episodes; what an earlier run left is used again."""
    shell.title("Make the corpus: cartoon episodes with subtitles, queries, questions, statements and captions")
    make_episodes(work / "toontv", episodes, seed, shell)
    if not (work / "frame_encoder").exists():
        shell.run("hero-export", "frame-encoder", "--out", work / "frame_encoder")
    (work / "train_ids.json").write_text(json.dumps(CorpusPlan(*episodes, seed).video_ids("train")), encoding="utf-8")


def make_episodes(toontv: Path, episodes: tuple[int, int, int], seed: int, shell: Shell) -> None:
    """Make episodes for training, validation and testing in a folder, unless it holds these very ones."""
    if not _is_made(toontv, episodes, seed):
        shutil.rmtree(toontv, ignore_errors=True)
        toontv.parent.mkdir(parents=True, exist_ok=True)
        train, val, test = map(str, episodes)
        sizes = ("--train", train, "--val", val, "--test", test)
        shell.run("python", "-m", "demo.toontv", toontv, *sizes, "--seed", str(seed))


def _is_made(toontv: Path, episodes: tuple[int, int, int], seed: int) -> bool:
    """Whether the folder holds this very corpus, whole: its summary is written last."""
    try:
        summary = json.loads((toontv / "corpus.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    counts = tuple(summary["counts"][split]["episodes"] for split in ("train", "val", "test"))
    return (counts, summary["seed"], summary["version"]) == (episodes, seed, VERSION)


def train(
    task: str, work: Path, output: Path, overrides: Sequence[str], shell: Shell, initial: Path | None = None
) -> None:
    """Run a task's configuration, moved to where this demo works.

    Args:
        task: which one.
        work: folder with the corpus.
        output: of the run.
        overrides: of the configuration.
        shell: to run in.
        initial: checkpoint to start from; None starts from random weights.
    """
    toontv = work / "toontv"
    moved: dict[str, str | Path] = {"output": output, "frame_encoder": work / "frame_encoder"}
    moved |= media(toontv, work / "features")
    if task == "pretraining":
        moved["data.ids"] = work / "train_ids.json"
        texts = [toontv / "annotations" / f"{prefix}train.jsonl" for prefix in ANNOTATIONS.values()]
        moved["tokenizer.texts"] = json.dumps([str(path) for path in texts])
    else:
        moved |= annotations(task, toontv)
    entries = [*entries_of(moved), f"initial={initial or 'null'}", *overrides]
    shell.run("hero-train", "run", CONFIGS / f"{task}.yaml", *(word for entry in entries for word in ("--set", entry)))


def media(toontv: Path, features: Path) -> dict[str, Path]:
    """Entries of a run's configuration: where its videos, their subtitles and their features are."""
    return {"data.features": features} | {f"data.{kind}": toontv / kind for kind in ("videos", "subtitles")}


def annotations(task: str, toontv: Path, splits: Sequence[str] = ("train", "validation", "test")) -> dict[str, Path]:
    """Entries of a run's configuration: where the annotations of splits of a task are."""
    return {f"data.{split}": toontv / "annotations" / f"{ANNOTATIONS[task]}{FILES[split]}.jsonl" for split in splits}


def entries_of(moved: Mapping[str, str | Path]) -> list[str]:
    """Entries as `--set` takes them."""
    return [f"{name}={value}" for name, value in moved.items()]


if __name__ == "__main__":
    typer.run(main)
