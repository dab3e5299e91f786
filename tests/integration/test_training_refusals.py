"""What ends a run before it trains, or while it does: bad data, settings that cannot work, a loss that is no number."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import yaml

from hero_train import cli
from hero_train.errors import CheckpointError, ConfigError, DataError
from hero_train.recipes import retrieval
from hero_train.run_config import BaseRunConfig
from tests.tiny_training import (
    forget_the_last_run,
    load_run,
    run_settings,
    write_annotations,
    write_training_set,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training set with its features extracted, made once."""
    return write_training_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(autouse=True)
def _one_run_per_process() -> None:
    forget_the_last_run()


def config(made: Path, output: Path, *overrides: str) -> BaseRunConfig:
    return load_run(made, "retrieval", f"output={output}", *overrides)


def assert_nothing_was_trained(output: Path) -> None:
    assert not (output / "log.jsonl").exists()
    assert not (output / "checkpoint").exists()


def test_a_missing_video_ends_the_run_before_training(made: Path, tmp_path: Path) -> None:
    query = {"desc_id": 1, "desc": "Nobody is there.", "vid_name": "seventh", "ts": [0, 3]}
    extra = write_annotations(tmp_path / "validation.jsonl", [query, {**query, "vid_name": "eighth"}, query])
    with pytest.raises(
        DataError, match=r"2 videos that the annotations name are not in .*videos, such as seventh, eighth\."
    ):
        retrieval.run(config(made, tmp_path / "run", f"data.validation={extra}"))
    assert_nothing_was_trained(tmp_path / "run")


def test_a_video_that_cannot_be_read_ends_the_run_before_training(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "videos", tmp_path / "videos")
    (tmp_path / "videos" / "third.mp4").write_bytes(b"not a video")
    changes = [f"data.videos={tmp_path / 'videos'}", f"data.features={tmp_path / 'features'}"]
    with pytest.raises(
        DataError, match=r"1 videos cannot be read, such as third: .*third\.mp4 cannot be read as a video"
    ):
        retrieval.run(config(made, tmp_path / "run", *changes))
    assert_nothing_was_trained(tmp_path / "run")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("best_metric=VCMR/R@1", "best_metric"),
        ("model.hidden_sizes=8", r"model has unknown entries \['hidden_sizes'\]"),
        ("model.num_heads=3", "hidden_size 32 is not a multiple of num_heads 3"),
        ("sampling.videos=7", "has 6 videos with queries and a batch takes 7"),
        ("sampling.picture=1", "no query of the training set has a type of"),
        ("initial=./nowhere", "nowhere is not a folder"),
        ("initial=nowhere.pt", r"There is no file .*nowhere\.pt"),
        ("rows.slots=65", "slots"),
        ("rows.query_tokens=33", "query_tokens"),
        ("rows.temporal_slots=5", "temporal_slots"),
    ],
)
def test_a_setting_that_cannot_work_ends_the_run_before_training(
    made: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises((ConfigError, DataError, CheckpointError), match=message):
        retrieval.run(config(made, tmp_path, override, "optimisation.steps=2"))
    assert_nothing_was_trained(tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"The loss of step \d+ is (nan|inf)\. Lower optimisation\.learning_rate"):
        retrieval.run(config(made, tmp_path, "optimisation.learning_rate=1.0e+30"))


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    """The exit code of the console script."""
    monkeypatch.setattr(sys, "argv", ["hero-train", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_a_mistake_in_the_configuration_is_one_message_and_exit_code_2(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = made / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(run_settings("retrieval", optimizer={"steps": 3})), encoding="utf-8")
    assert run_command(monkeypatch, "run", str(wrong)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"ConfigError: {wrong} does not describe a run: optimizer: Extra inputs are not permitted.\n"
    assert run_command(monkeypatch, "run", str(tmp_path / "nowhere.yaml")) == 2
    assert capsys.readouterr().err.startswith("ConfigError: There is no configuration file")
