"""``hero-train run`` and ``hero-train eval`` on questions, statements and captions that a tiny model can know by heart.

``test_training.py`` has the same for retrieval, and what all tasks share.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from hero_sdk.errors import HeroError, MissingPackageError
from hero_sdk.frame_encoder import load_frame_encoder
from hero_sdk.tokens import TextTokenizer
from hero_train import cli, submissions, training
from hero_train.caption_metrics import caption_scores
from hero_train.data.answer_annotations import read_questions, read_statements
from hero_train.data.captions import read_captioned_moments
from hero_train.errors import ConfigError
from hero_train.metrics_answers import measure_questions, measure_statements
from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements
from hero_train.model.captioning import HeroForCaptioning
from hero_train.model.hero import HeroEncoders, HeroModel
from hero_train.recipes import captions
from hero_train.run_config import load_config
from tests.tiny_training import STEPS, forget_the_last_run, load_run, read_log


@dataclass(frozen=True)
class Task:
    """What is expected of a task's run.

    Attributes:
        model: the class that loads its checkpoint.
        metric: by which the best checkpoint is chosen.
        known: a value of it that only a model reaches which knows the training set.
        guessed: a value that no baseline reaches.
        counts: of the training set.
    """

    model: type[HeroEncoders]
    metric: str
    known: float
    guessed: float
    counts: dict[str, int]


TASKS = {
    "questions": Task(HeroForQuestionAnswering, "accuracy", 0.8, 0.34, {"questions": 18}),
    "statements": Task(HeroForStatements, "accuracy", 0.9, 0.51, {"statements": 36}),
    "captions": Task(HeroForCaptioning, "CIDEr", 7.0, 1.5, {"moments": 18, "captions": 18, "videos": 6}),
}

EVERY = 30

WRITTEN = (
    "checkpoint/model.safetensors",
    "steps/step-000006/model.safetensors",
    "steps/step-000006/optimiser.safetensors",
)


@pytest.fixture(scope="module", autouse=True)
def _without_java() -> Iterator[None]:
    """METEOR, which takes half a minute to start, is not what is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        yield


@pytest.fixture(autouse=True)
def _one_run_per_process() -> None:
    forget_the_last_run()


@dataclass(frozen=True)
class Trained:
    """A run of the command: its task, its output folder and what it printed."""

    name: str
    task: Task
    output: Path
    printed: str

    @property
    def results(self) -> Any:
        return json.loads((self.output / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=TASKS)
def trained(request: pytest.FixtureRequest, training_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    forget_the_last_run()
    output = tmp_path_factory.mktemp("trained") / "run"
    load_run(training_set, request.param)
    overrides = [f"output={output}", f"evaluate_every={EVERY}"]
    arguments = ["run", str(training_set / f"{request.param}.yaml"), *(f"--set={override}" for override in overrides)]
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return Trained(request.param, TASKS[request.param], output, result.stdout)


def test_it_learns_the_training_set_by_heart(trained: Trained) -> None:
    task, results = trained.task, trained.results["validation"]
    assert results["counts"] == task.counts
    assert results["metrics"]["all"][task.metric] > task.known
    assert results["baselines"]
    for name, values in results["baselines"].items():
        assert values[task.metric] < task.guessed, name


def test_the_results_tell_kinds_apart_and_say_what_is_absent(trained: Trained) -> None:
    groups = {"questions": {"first", "second", "last"}, "statements": set(), "captions": {"beam"}}[trained.name]
    results = trained.results["validation"]
    assert set(results["metrics"]) == {"all", *groups}
    assert set(results["absent"]) == ({"METEOR"} if trained.name == "captions" else set())


def test_the_log_has_losses_and_evaluations_of_which_the_best_is_reported(trained: Trained) -> None:
    entries = read_log(trained.output)
    steps = STEPS[trained.name]
    losses = {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}
    assert sorted(losses) == sorted({*range(20, steps + 1, 20), steps})
    assert losses[steps]["total"] < losses[20]["total"] / 2
    scores = {
        entry["step"]: entry["validation"]["all"][trained.task.metric] for entry in entries if "validation" in entry
    }
    assert list(scores) == list(range(EVERY, steps + 1, EVERY))
    assert trained.results["validation"]["metrics"]["all"][trained.task.metric] == max(scores.values())


def test_the_checkpoint_is_whole_and_only_its_own_class_loads_it(trained: Trained) -> None:
    checkpoint = trained.output / "checkpoint"
    model = trained.task.model.from_pretrained(checkpoint)
    tokenizer = TextTokenizer((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer.vocabulary_size <= model.config.vocab_size
    assert load_frame_encoder(checkpoint / "frame_encoder").spec.feature_dim == model.config.feature_dim
    with pytest.raises(ConfigError, match=r"is of a model for .*; expected one for retrieval"):
        HeroModel.from_pretrained(checkpoint)


def test_the_record_of_the_run_describes_it(training_set: Path, trained: Trained) -> None:
    expected = load_run(training_set, trained.name, f"output={trained.output}", f"evaluate_every={EVERY}")
    assert load_config(trained.output / "config.yaml") == expected


def test_what_predict_writes_measures_as_the_run_did(trained: Trained, tmp_path: Path) -> None:
    """Read back by what reads the leaderboards' files."""
    out = tmp_path / "predictions.json"
    arguments = ["predict", str(trained.output / "config.yaml"), "--split", "validation", "--out", str(out)]
    assert CliRunner().invoke(cli.app, arguments, catch_exceptions=False).exit_code == 0
    annotations = load_config(trained.output / "config.yaml").data.validation
    metrics = trained.results["validation"]["metrics"]
    if trained.name == "captions":
        moments = read_captioned_moments(annotations)
        references = {moment.moment_id: moment.captions for moment in moments}
        scores = caption_scores(submissions.read_captions(out, moments), references, meteor=False)
        assert scores.metrics == pytest.approx(metrics["beam"])
        return
    read, measure = {
        "questions": (read_questions, measure_questions),
        "statements": (read_statements, measure_statements),
    }[trained.name]
    items = read(annotations)
    assert measure(submissions.read_answers(out, items), items).metrics == metrics


def test_eval_prints_and_writes_what_the_run_did(trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "metrics.json"
    arguments = ["eval", str(trained.output / "config.yaml"), "--split", "validation", "--out", str(out)]
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads(out.read_text(encoding="utf-8")) == trained.results
    assert trained.printed == f"{result.stdout}The checkpoint is {trained.output / 'checkpoint'}.\n"
    assert all(name in result.stdout for name in (*trained.results["validation"]["metrics"], "validation: "))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "test"], r"has no data\.test; there is train, validation"),
        (["--split", "validation", "--checkpoint", "nowhere"], r"nowhere has no config\.json|nowhere is not a folder"),
        (["--split", "validation", "--set", "data.validation=missing.jsonl"], "There is no annotation file"),
    ],
)
def test_eval_says_what_is_not_there(trained: Trained, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(cli.app, ["eval", str(trained.output / "config.yaml"), *arguments])
    assert isinstance(result.exception, HeroError)
    assert re.search(message, str(result.exception))


def test_eval_finds_out_at_once_that_it_cannot_write(trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "nowhere" / "metrics.json"
    result = CliRunner().invoke(cli.app, ["eval", str(trained.output / "config.yaml"), "--out", str(out)])
    assert result.exit_code == 2
    assert "There is no folder" in " ".join(result.output.replace("│", " ").split())


def test_pretraining_cannot_be_judged(training_set: Path) -> None:
    load_run(training_set, "pretraining")
    result = CliRunner().invoke(cli.app, ["eval", str(training_set / "pretraining.yaml")])
    assert "is a run of pretraining, which has no annotations to evaluate on" in str(result.exception)


def test_a_run_of_captions_without_scorers_ends_before_it_begins(
    training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    monkeypatch.setitem(sys.modules, "pycocoevalcap.cider", None)
    monkeypatch.setitem(sys.modules, "pycocoevalcap.cider.cider", None)
    overrides = (f"output={tmp_path / 'run'}", "optimisation.steps=1", "sampling.videos=2")
    with pytest.raises(MissingPackageError, match=r'pip install "hero-video-sdk\[captions\]"'):
        captions.run(load_run(training_set, "captions", *overrides))
    assert not (tmp_path / "run").exists()
    # Nothing is scored here.
    captions.run(load_run(training_set, "captions", *overrides, "data.validation=null"))


@pytest.mark.parametrize("name", TASKS)
def test_a_resumed_run_ends_bit_for_bit_where_an_uninterrupted_one_does(
    training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    recipe: Any = importlib.import_module(f"hero_train.recipes.{name}")
    amount = "videos" if name == "captions" else "items"
    overrides = [
        *("optimisation.steps=6", "optimisation.accumulation=2", "evaluate_every=2", "checkpoint_every=3"),
        *(f"sampling.{amount}=2", "model.hidden_dropout=0.1"),
        *([] if name == "captions" else ["sampling.augmentation={feature_noise: 0.1, token_dropout: 0.2}"]),
        *(["sampling.answers=3"] if name == "questions" else []),
    ]
    whole, broken = (
        load_run(training_set, name, f"output={tmp_path / run}", *overrides) for run in ("whole", "broken")
    )
    uninterrupted = recipe.run(whole)
    rate = training.learning_rate

    def break_off(step: int, *arguments: Any) -> float:
        if step == 4:
            raise KeyboardInterrupt
        return rate(step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "learning_rate", break_off)
        with pytest.raises(KeyboardInterrupt):
            recipe.run(broken)
    assert not (broken.output / "results.json").exists()
    torch.manual_seed(99)
    assert recipe.run(broken, resume=True).evaluations == uninterrupted.evaluations
    for file in WRITTEN:
        assert (whole.output / file).read_bytes() == (broken.output / file).read_bytes(), file
