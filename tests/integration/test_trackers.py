"""Trackers beside the run's log: TensorBoard, read back by its own reader, and one that is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

from hero_train import trackers, training
from hero_train.errors import ConfigError
from hero_train.recipes import statements
from hero_train.trackers import check_trackers, flatten
from tests.tiny_training import forget_the_last_run, load_run, read_log


@pytest.fixture(autouse=True)
def _one_run_per_process() -> None:
    forget_the_last_run()


def config(training_set: Path, output: Path, *overrides: str) -> Any:
    settings = ("optimisation.steps=24", "evaluate_every=4", "sampling.items=3", "trackers=[tensorboard]")
    return load_run(training_set, "statements", f"output={output}", *settings, *overrides)


def scalars(output: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by name, as TensorBoard shows them."""
    reader = EventMultiplexer().AddRunsFromDirectory(str(output))
    reader.Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(run, tag)]
        for run, found in reader.Runs().items()
        for tag in found["scalars"]
    }


def logged(output: Path) -> dict[str, list[tuple[int, float]]]:
    """The same from the run's log."""
    found: dict[str, list[tuple[int, float]]] = {}
    for entry in read_log(output):
        step = entry.pop("step")
        for name, value in flatten(entry).items():
            found.setdefault(name, []).append((step, pytest.approx(value, rel=1e-5)))
    return found


def test_tensorboard_has_what_the_log_has(training_set: Path, tmp_path: Path) -> None:
    run = config(training_set, tmp_path)
    statements.run(run)
    found = scalars(tmp_path)
    assert found == logged(tmp_path)
    assert [step for step, _ in found["loss/total"]] == [20, 24]
    assert [step for step, _ in found["validation/all/accuracy"]] == [4, 8, 12, 16, 20, 24]
    (record,) = tmp_path.rglob("hparams.yml")
    text = record.read_text(encoding="utf-8")
    assert "optimisation/steps: 24" in text
    assert "model/hidden_size: 32" in text


def test_tensorboard_shows_a_resumed_run_as_one(
    training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the interrupted run wrote of steps beyond its last state is not shown beside what the resumed one writes."""
    run = config(training_set, tmp_path, "checkpoint_every=10")
    rate = training.learning_rate

    def interrupt(step: int, *arguments: Any) -> float:
        if step == 18:
            raise KeyboardInterrupt
        return rate(step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "learning_rate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            statements.run(run)
    assert [step for step, _ in scalars(tmp_path)["validation/all/accuracy"]] == [4, 8, 12, 16]
    forget_the_last_run()
    statements.run(run, resume=True)
    assert scalars(tmp_path) == logged(tmp_path)
    assert [step for step, _ in scalars(tmp_path)["validation/all/accuracy"]] == [4, 8, 12, 16, 20, 24]


def test_a_tracker_that_is_not_installed_ends_the_run_before_training(
    training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: ["tensorboard"])
    run = config(training_set, tmp_path / "run", "trackers=[tensorboard, wandb, comet_ml]")
    with pytest.raises(ConfigError, match=r"trackers names wandb, comet_ml, .*pip install wandb comet-ml;"):
        statements.run(run)
    assert not (tmp_path / "run").exists()


def test_accelerate_says_which_trackers_are_there() -> None:
    check_trackers(["tensorboard"])
    check_trackers([])


def test_a_tracker_that_nobody_knows_is_refused(training_set: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trackers\.0: Input should be 'tensorboard', 'wandb', 'mlflow'"):
        config(training_set, tmp_path, "trackers=[tensorbord]")


def test_names_are_such_as_every_tracker_takes() -> None:
    """MLflow refuses ``@`` and ``=``."""
    values = {"validation": {"all": {"VCMR/R@1/IoU=0.5": 0.25, "BLEU-4": 0.5}}, "betas": [0.9, 0.98], "initial": None}
    assert flatten(values) == {
        "validation/all/VCMR/R_1/IoU_0.5": 0.25,
        "validation/all/BLEU-4": 0.5,
        "betas": "[0.9, 0.98]",
        "initial": "None",
    }
