"""What the demo of all tasks would run, in which order, and from what; the commands themselves are noted and not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from demo import ablation, tasks
from demo.ablation import MIXES
from demo.shell import DemoError, Shell
from demo.tasks import SIZES, STARTS


class NotingShell(Shell):
    """Notes the overrides of each training run, and leaves results where it would."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True), Path.cwd())
        self.runs: list[tuple[str, dict[str, str]]] = []
        self.others: list[str] = []

    def run(self, *command: str | Path, expect: int = 0) -> str:
        name, *arguments = map(str, command)
        if name != "hero-train":
            self.others.append(" ".join((name, *arguments[:2])))
            if name == "hero-export":
                Path(arguments[-1]).mkdir()
            return ""
        entries = dict(entry.split("=", 1) for entry in arguments[3::2])
        self.runs.append((Path(arguments[1]).stem, entries))
        output = Path(entries["output"])
        output.mkdir(parents=True)
        (output / "results.json").write_text(json.dumps({"test": {"of": entries["output"]}}), encoding="utf-8")
        return ""


def test_each_task_starts_from_the_one_before(tmp_path: Path) -> None:
    shell = NotingShell()
    target = tasks.run(SIZES["full"], tmp_path, 7, shell)
    assert shell.others == ["python -m demo.toontv", "hero-export frame-encoder --out"]
    assert [task for task, _ in shell.runs] == list(STARTS)
    for task, entries in shell.runs:
        start = STARTS[task]
        assert entries["initial"] == (str(tmp_path / start / "checkpoint") if start else "null")
        assert entries["output"] == str(tmp_path / task)
        assert ("data.ids" in entries) == (task == "pretraining")
        assert ("data.test" in entries) == (task != "pretraining")
    results = json.loads(target.read_text(encoding="utf-8"))
    assert results["tasks"] == {task: {"of": str(tmp_path / task)} for task in STARTS if task != "pretraining"}


def test_it_can_begin_with_any_task_that_has_its_start(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="There is no task reading; expected one of pretraining, retrieval"):
        tasks.run(SIZES["small"], tmp_path, 7, NotingShell(), "reading")
    with pytest.raises(
        DemoError, match=r"pretraining, retrieval has not been trained to its end.*begin with pretraining"
    ):
        tasks.run(SIZES["small"], tmp_path, 7, NotingShell(), "questions")
    tasks.run(SIZES["small"], tmp_path, 7, NotingShell())
    again = NotingShell()
    tasks.run(SIZES["small"], tmp_path, 7, again, "statements")
    assert [task for task, _ in again.runs] == ["statements", "captions"]


def test_a_corpus_that_is_there_is_used_again(tmp_path: Path) -> None:
    (tmp_path / "toontv").mkdir()
    (tmp_path / "frame_encoder").mkdir()
    counts = dict(zip(("train", "val", "test"), ({"episodes": number} for number in (6, 1, 2)), strict=True))
    summary = {"counts": counts, "seed": 7, "version": tasks.VERSION}
    (tmp_path / "toontv" / "corpus.json").write_text(json.dumps(summary), encoding="utf-8")
    for episodes, seed, made in (((6, 1, 2), 7, False), ((6, 1, 2), 8, True), ((7, 1, 2), 7, True)):
        shell = NotingShell()
        tasks.make_corpus(tmp_path, episodes, seed, shell)
        assert shell.others == (["python -m demo.toontv"] if made else [])
        (tmp_path / "toontv").mkdir(exist_ok=True)
        (tmp_path / "toontv" / "corpus.json").write_text(json.dumps(summary), encoding="utf-8")


def test_the_ablation_trains_each_kind_with_each_seed_alike(tmp_path: Path) -> None:
    shell = NotingShell()
    target = ablation.run(ablation.SIZES["full"], [1, 2], tmp_path, shell)
    found = json.loads(target.read_text(encoding="utf-8"))["runs"]
    assert sorted((run["seed"], run["pretraining"]) for run in found) == sorted(
        (seed, kind) for seed in (1, 2) for kind in MIXES
    )
    pretrained = {entries["output"]: entries for task, entries in shell.runs if task == "pretraining"}
    tuned = [entries for task, entries in shell.runs if task == "retrieval"]
    assert len(tuned) == 2 * len(MIXES)
    alike = {
        json.dumps(
            {name: entries[name] for name in entries if name not in ("output", "initial", "seed", "tokenizer.source")}
        )
        for entries in tuned
    }
    assert len(alike) == 1, "only the start differs"
    for entries in tuned:
        # A start has its tokenizer; without one, the same is named.
        named = {str(Path(output) / "checkpoint" / "tokenizer.json") for output in pretrained}
        assert (entries.get("tokenizer.source") in named) == (entries["initial"] == "null")
    starts = [entries["initial"] for entries in tuned]
    assert starts.count("null") == 2
    for start in set(starts) - {"null"}:
        assert str(Path(start).parent) in pretrained
    assert {entries["sampling.mix"] for entries in pretrained.values()} == {mix for mix in MIXES.values() if mix}
    seeds = {(entries["initial"], entries["seed"]) for entries in tuned}
    assert all(f"seed-{seed}" in start for start, seed in seeds if start != "null")
