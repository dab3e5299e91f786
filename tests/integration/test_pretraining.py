"""``hero-train run`` of pre-training, from video files to a checkpoint that fine-tuning starts from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from hero_train import cli, training
from hero_train.errors import DataError
from hero_train.model.pretraining import HeroForPretraining
from hero_train.recipes import pretraining
from hero_train.run_config import BaseRunConfig, load_config
from tests.tiny_training import STEPS, VIDEOS, forget_the_last_run, run_settings, write_training_set

TASKS = {"mlm", "mfm_nce", "fom", "vsm"}
"""Of the paper's mix; MFFR stands in for MFM-NCE where it is asked for."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training set with the configuration of a run."""
    folder = write_training_set(tmp_path_factory.mktemp("set"))
    (folder / "pretrain.yaml").write_text(yaml.safe_dump(run_settings("pretraining")), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _one_run_per_process() -> None:
    forget_the_last_run()


def config(made: Path, output: Path, *overrides: str) -> BaseRunConfig:
    return load_config(made / "pretrain.yaml", [f"output={output}", *overrides])


@pytest.fixture(scope="module")
def trained(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output folder of one run of the command, and what it printed."""
    forget_the_last_run()
    output = tmp_path_factory.mktemp("trained") / "run"
    result = CliRunner().invoke(
        cli.app, ["run", str(made / "pretrain.yaml"), "--set", f"output={output}"], catch_exceptions=False
    )
    assert result.exit_code == 0
    return output, result.stdout


def test_every_task_gets_better(trained: tuple[Path, str]) -> None:
    entries = [json.loads(line) for line in (trained[0] / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [entry["step"] for entry in entries] == list(range(20, STEPS["pretraining"] + 1, 20))
    courses = {task: [entry["loss"][task] for entry in entries if task in entry["loss"]] for task in TASKS}
    assert set().union(*(entry["loss"] for entry in entries)) == TASKS
    for task, course in courses.items():
        assert course[-1] < 0.7 * course[0], (task, course)


def test_the_command_says_where_the_checkpoint_is(trained: tuple[Path, str]) -> None:
    assert f"The checkpoint is {trained[0] / 'checkpoint'}." in trained[1]


def test_the_record_of_the_run_describes_it(made: Path, trained: tuple[Path, str]) -> None:
    assert load_config(trained[0] / "config.yaml") == config(made, trained[0])


RESUMED = (
    "optimisation.steps=8",
    "optimisation.accumulation=2",
    "optimisation.warmup=2",
    "optimisation.hard_negatives_after=3",
    "checkpoint_every=2",
    "sampling.mix={mlm: 1, mfm_nce: 1, mffr: 1, fom: 1, vsm: 1}",
    "sampling.videos=3",
    "model.hidden_dropout=0.1",
)


def test_a_resumed_run_ends_bit_for_bit_where_an_uninterrupted_one_does(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = (config(made, tmp_path / name, *RESUMED) for name in ("whole", "broken"))
    pretraining.run(whole)
    rate = training.learning_rate

    def break_off(step: int, *arguments: Any) -> float:
        if step == 5:
            raise KeyboardInterrupt
        return rate(step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "learning_rate", break_off)
        with pytest.raises(KeyboardInterrupt):
            pretraining.run(broken)
    assert not (broken.output / "checkpoint").exists()
    torch.manual_seed(99)
    pretraining.run(broken, resume=True)
    for name in ("checkpoint/model.safetensors", "steps/step-000008/model.safetensors"):
        one, other = load_file(whole.output / name), load_file(broken.output / name)
        assert one.keys() == other.keys()
        assert all(tensor.numpy().tobytes() == other[key].numpy().tobytes() for key, tensor in one.items()), name
    moments = "steps/step-000008/optimiser.safetensors"
    assert (whole.output / moments).read_bytes() == (broken.output / moments).read_bytes()
    assert sorted(path.name for path in (whole.output / "steps").iterdir()) == ["step-000006", "step-000008"]


def test_without_subtitles_words_cannot_be_learnt(made: Path, tmp_path: Path) -> None:
    source = tmp_path / "tokenizer"
    pretraining.run(config(made, tmp_path / "first", "optimisation.steps=1"))
    source.mkdir()
    (source / "tokenizer.json").write_bytes((tmp_path / "first" / "checkpoint" / "tokenizer.json").read_bytes())
    silent = config(made, tmp_path / "silent", "data.subtitles=null", f"tokenizer.source={source}")
    with pytest.raises(
        DataError, match=r"has 0 videos with subtitles and a batch of mlm takes 6; .*sampling\.mix\.mlm"
    ):
        pretraining.run(silent)
    mute = "sampling.mix={mlm: 0, mfm_nce: 1, fom: 1, vsm: 0}"
    overrides = ["data.subtitles=null", f"tokenizer.source={source}", mute, "optimisation.steps=2"]
    assert len(VIDEOS) == 6
    assert HeroForPretraining.from_pretrained(pretraining.run(config(made, tmp_path / "mute", *overrides)).checkpoint)
