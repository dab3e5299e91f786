"""Runs that end early: killed, out of patience, or because a number is none. Nothing is lost, and what goes on ends the same."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from hero_train import cli, training
from hero_train.data.answers import StatementBatch
from hero_train.errors import ConfigError, DataError
from hero_train.model.answers import HeroForStatements
from hero_train.recipes import statements
from hero_train.run_config import StatementRunConfig
from hero_train.tasks.answers import StatementTask
from hero_train.training_state import latest_state, load_state
from tests.tiny_training import forget_the_last_run, load_run, read_log


@pytest.fixture(autouse=True)
def _one_run_per_process() -> None:
    forget_the_last_run()


def config(training_set: Path, output: Path, *overrides: str) -> Any:
    return load_run(training_set, "statements", f"output={output}", *overrides)


def break_off(run: StatementRunConfig, at: int, monkeypatch: pytest.MonkeyPatch, *, resume: bool = False) -> None:
    """Run as far as the beginning of a step, counted from 0."""
    rate = training.learning_rate

    def interrupt(step: int, *arguments: Any) -> float:
        if step == at:
            raise KeyboardInterrupt
        return rate(step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "learning_rate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            statements.run(run, resume=resume)


def steps_of(output: Path, kind: str) -> list[int]:
    return [entry["step"] for entry in read_log(output) if kind in entry]


@pytest.mark.slow  # A process imports torch and is killed.
def test_a_run_that_was_killed_ends_where_an_uninterrupted_one_does(training_set: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config(training_set, whole)
    arguments = ["run", str(training_set / "statements.yaml")]
    for name in ("optimisation.steps=100", "sampling.items=4", "evaluate_every=7", "checkpoint_every=10"):
        arguments += ["--set", name]
    process = subprocess.Popen(
        [sys.executable, "-m", "hero_train.cli", *arguments, "--set", f"output={killed}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        until = time.monotonic() + 120
        while not (killed / "steps" / "step-000020").exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()
    assert latest_state(killed / "steps") is not None
    assert not (killed / "results.json").exists()

    for output, resume in ((whole, []), (killed, ["--resume"])):
        forget_the_last_run()
        ended = CliRunner().invoke(cli.app, [*arguments, "--set", f"output={output}", *resume], catch_exceptions=False)
        assert ended.exit_code == 0
    written = [path.relative_to(whole) for path in whole.rglob("*.safetensors")]
    assert len(written) == 5, "two states of two files, and the checkpoint"
    for file in (*written, "results.json"):
        assert (whole / file).read_bytes() == (killed / file).read_bytes(), file
    for kind in ("loss", "validation"):
        assert steps_of(killed, kind) == steps_of(whole, kind), "each step stands in the log once"
    assert {path.name for path in (killed / "steps").iterdir()} == {"step-000090", "step-000100"}


EVERY = ("evaluate_every=3", "checkpoint_every=4", "optimisation.steps=12", "sampling.items=4")


def test_a_resumed_run_cuts_the_log_to_its_state(
    training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = (config(training_set, tmp_path / name, *EVERY) for name in ("whole", "broken"))
    statements.run(whole)
    break_off(broken, 7, monkeypatch)
    assert steps_of(broken.output, "validation") == [3, 6]
    with (broken.output / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "los')
    statements.run(broken, resume=True)
    logs = [[entry for entry in read_log(run.output) if "validation" in entry] for run in (whole, broken)]
    assert logs[0] == logs[1]
    assert [entry["step"] for entry in logs[1]] == [3, 6, 9, 12]


def test_a_run_that_begins_anew_has_no_lines_of_an_earlier_one(
    training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = config(training_set, tmp_path, "evaluate_every=0", "checkpoint_every=0", "optimisation.steps=22")
    break_off(run, 20, monkeypatch)
    assert steps_of(tmp_path, "loss") == [20]
    statements.run(run)
    assert steps_of(tmp_path, "loss") == [20, 22]


# At no speed to speak of no evaluation is better than the first.
STALE = ("optimisation.learning_rate=1.0e-12", "optimisation.steps=9", "evaluate_every=1", "patience=3")


def test_a_run_ends_when_its_patience_does(training_set: Path, tmp_path: Path) -> None:
    said = io.StringIO()
    result = statements.run(config(training_set, tmp_path, *STALE), console=Console(file=said, width=200))
    assert steps_of(tmp_path, "validation") == [1, 2, 3, 4]
    assert "Ended after step 4: the last 3 evaluations were no better." in said.getvalue()
    assert result.evaluations["validation"].counts == {"statements": 36}


def test_a_better_evaluation_renews_patience(
    training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.5, 0.6, 0.4, 0.6, 0.5, 0.7])
    evaluate = statements.evaluate_statements

    def scored(*arguments: Any) -> Any:
        evaluation = evaluate(*arguments)
        evaluation.metrics["all"]["accuracy"] = next(scores)
        return evaluation

    monkeypatch.setattr(statements, "evaluate_statements", scored)
    statements.run(config(training_set, tmp_path, *STALE))
    assert steps_of(tmp_path, "validation") == [1, 2, 3, 4, 5, 6]
    assert next(scores, None) is None, "the last one was for the best checkpoint"


def test_a_resumed_run_remembers_how_long_it_waited(
    training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = config(training_set, tmp_path, *STALE, "checkpoint_every=1")
    break_off(run, 3, monkeypatch)
    assert steps_of(tmp_path, "validation") == [1, 2, 3]
    statements.run(run, resume=True)
    assert steps_of(tmp_path, "validation") == [1, 2, 3, 4]
    statements.run(run, resume=True)
    assert steps_of(tmp_path, "validation") == [1, 2, 3, 4], "nor does it train after its end"


def assert_whole(run: StatementRunConfig, step: int) -> None:
    """The newest state is of this step, and a run could go on from it."""
    state = latest_state(run.output / "steps")
    assert state is not None
    assert state.name == f"step-{step:06d}"
    assert not list(state.parent.glob(".partial*"))
    model = HeroForStatements.from_pretrained(state)
    optimiser = training.build_optimiser(model, run.optimisation)
    assert load_state(state, model, optimiser)[0] == step
    tensors = [*load_file(state / "model.safetensors").values(), *load_file(state / "optimiser.safetensors").values()]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_number_that_is_none_ends_the_run_and_leaves_the_last_state_whole(
    training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    forward, seen = StatementTask.forward, []

    def third_is_none(task: StatementTask, batch: StatementBatch) -> Tensor:
        seen.append(batch)
        loss = forward(task, batch)
        if len(seen) != 3:
            return loss
        # The root of nothing is nothing, and as steep as can be.
        return loss * float("nan") if broken == "loss" else loss + (0 * loss).sqrt()

    monkeypatch.setattr(StatementTask, "forward", third_is_none)
    run = config(training_set, tmp_path / "run", "checkpoint_every=1", "optimisation.steps=5")
    with pytest.raises(DataError, match=rf"The {broken} of step 3 is nan\. Lower optimisation\.learning_rate"):
        statements.run(run)
    assert_whole(run, 2)
    statements.run(run, resume=True)
    assert_whole(run, 5)


@pytest.mark.parametrize("state", [True, False])
def test_what_an_earlier_run_left_is_not_overwritten(training_set: Path, tmp_path: Path, state: bool) -> None:
    run = config(training_set, tmp_path, "optimisation.steps=1", f"checkpoint_every={int(state)}")
    statements.run(run)
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    advice = "Pass --resume" if state else "no state to go on from. Choose another output folder"
    with pytest.raises(ConfigError, match=rf"of an earlier run.*{advice}"):
        statements.run(run)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == written


def test_a_folder_that_cannot_be_written_ends_the_run_before_training(training_set: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot write to its folder .*file.run .*Choose another output folder"):
        statements.run(config(training_set, tmp_path / "file" / "run"))
    assert (tmp_path / "file").read_text(encoding="utf-8") == "not a folder"
