"""``hero-train run`` from video files to a checkpoint, on a training set that a tiny model can know by heart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from hero_sdk.frame_encoder import load_frame_encoder
from hero_sdk.rows import RowGeometry
from hero_sdk.tokens import TextTokenizer
from hero_train import cli, training
from hero_train.config import HeroConfig
from hero_train.data.annotations import read_moment_queries
from hero_train.data.corpus import build_corpus
from hero_train.data.features import VideoFeatures
from hero_train.data.sampling import RetrievalBatch, RetrievalSampler
from hero_train.errors import CheckpointError, ConfigError
from hero_train.evaluate import evaluate_retrieval
from hero_train.model.hero import HeroModel
from hero_train.recipes import retrieval
from hero_train.run_config import BaseRunConfig, load_config
from hero_train.submissions import read_retrieval
from hero_train.tokenizer import train_tokenizer_json
from tests.tiny_training import (
    TINY,
    VIDEOS,
    forget_the_last_run,
    read_log,
    run_settings,
    write_annotations,
    write_training_set,
)

QUERIES = sum(len(lines) for _, lines in VIDEOS.values())


def settings(**changes: Any) -> dict[str, Any]:
    """A run that learns the training set by heart, and is judged on the same queries."""
    return run_settings("retrieval", model={**run_settings("retrieval")["model"], "hidden_dropout": 0.1}, **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training set with its features extracted, made once."""
    folder = write_training_set(tmp_path_factory.mktemp("set"))
    (folder / "run.yaml").write_text(yaml.safe_dump(settings()), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _one_run_per_process() -> None:
    forget_the_last_run()


def config(made: Path, output: Path, *overrides: str) -> BaseRunConfig:
    return load_config(made / "run.yaml", [f"output={output}", *overrides])


@pytest.fixture(scope="module")
def trained(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output folder of one run of the command, and what it printed."""
    forget_the_last_run()
    output = tmp_path_factory.mktemp("trained") / "run"
    arguments = ["run", str(made / "run.yaml"), "--set", f"output={output}", "--set", "evaluate_every=20"]
    result = CliRunner().invoke(cli.app, [*arguments, "--set", "checkpoint_every=20"], catch_exceptions=False)
    assert result.exit_code == 0
    return output, result.stdout


def test_it_learns_the_training_set_by_heart(trained: tuple[Path, str]) -> None:
    results = json.loads((trained[0] / "results.json").read_text(encoding="utf-8"))["validation"]
    assert results["counts"] == {"queries": QUERIES, "videos": len(VIDEOS)}
    for name in ("VR/R@1", "SVMR/R@1/IoU=0.7", "VCMR/R@1/IoU=0.7"):
        assert results["baselines"]["chance"][name] < 0.2
        assert results["metrics"]["all"][name] > 0.8, (name, results["metrics"]["all"])
    assert set(results["metrics"]) == {"all", "t"}


HEADLINE = (
    *("VR/R@1", "VR/R@5", "SVMR/R@1/IoU=0.5", "SVMR/R@1/IoU=0.7"),
    *("VCMR/R@1/IoU=0.5", "VCMR/R@1/IoU=0.7", "VCMR/R@10/IoU=0.7"),
)


def test_the_command_prints_the_headline_metrics_beside_chance(trained: tuple[Path, str]) -> None:
    output, printed = trained
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))["validation"]
    rows = {cells[0]: cells[1:] for line in printed.splitlines() if (cells := line.split())}
    for kind, values in {**results["metrics"], **results["baselines"]}.items():
        assert rows[kind] == [f"{100 * values[name]:.1f}" for name in HEADLINE]
    assert f"{QUERIES} queries, {len(VIDEOS)} videos" in printed
    assert f"The checkpoint is {output / 'checkpoint'}." in printed


def test_the_log_has_the_loss_and_the_evaluation_of_each_step(trained: tuple[Path, str]) -> None:
    entries = read_log(trained[0])
    for kind in ("loss", "validation"):
        assert [entry["step"] for entry in entries if kind in entry] == [20, 40, 60, 80, 100, 120]
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    for loss in losses:
        assert loss["total"] == pytest.approx(sum(value for name, value in loss.items() if name != "total"), rel=1e-5)
    # The clips of one moment share the probability, so that the clip loss has a floor above zero.
    assert losses[-1]["total"] < losses[0]["total"] / 2


def test_the_best_model_is_kept_and_reported(trained: tuple[Path, str]) -> None:
    output = trained[0]
    scores = [entry["validation"]["all"]["VCMR/R@1/IoU=0.7"] for entry in read_log(output) if "validation" in entry]
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    assert results["validation"]["metrics"]["all"]["VCMR/R@1/IoU=0.7"] == max(scores)


def test_the_checkpoint_is_whole(made: Path, trained: tuple[Path, str]) -> None:
    """It has all that export takes, and its numbers are those of the report when it is loaded afresh."""
    checkpoint = trained[0] / "checkpoint"
    model = HeroModel.from_pretrained(checkpoint)
    encoder = load_frame_encoder(checkpoint / "frame_encoder")
    tokenizer = TextTokenizer((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    assert model.config.feature_dim == encoder.spec.feature_dim
    assert tokenizer.vocabulary_size <= model.config.vocab_size
    features = {name: VideoFeatures(*encoder.encode_video(made / "videos" / f"{name}.mp4", 1.5)) for name in VIDEOS}
    queries = read_moment_queries(made / "queries.jsonl")
    corpus = build_corpus(queries, features, made / "subtitles", tokenizer, model.config)
    found = evaluate_retrieval(model, corpus, RowGeometry(**settings()["rows"]))
    results = json.loads((trained[0] / "results.json").read_text(encoding="utf-8"))["validation"]
    assert found.metrics == results["metrics"]
    assert found.baselines == results["baselines"]


def test_the_record_of_the_run_describes_it(made: Path, trained: tuple[Path, str]) -> None:
    overrides = ["evaluate_every=20", "checkpoint_every=20"]
    assert load_config(trained[0] / "config.yaml") == config(made, trained[0], *overrides)


def test_only_the_newest_states_are_kept(trained: tuple[Path, str]) -> None:
    assert sorted(path.name for path in (trained[0] / "steps").iterdir()) == ["step-000100", "step-000120"]


RESUMED = (
    "optimisation.steps=9",
    "optimisation.accumulation=2",
    "optimisation.warmup=3",
    "evaluate_every=3",
    "checkpoint_every=3",
    "sampling.videos=3",
    "sampling.queries_per_video=1",
    "sampling.spoken_per_video=1",
    "sampling.text=0.5",
    "sampling.augmentation.feature_noise=0.1",
)


@pytest.mark.parametrize("broken_at", [1, 4, 6])
def test_a_resumed_run_ends_bit_for_bit_where_an_uninterrupted_one_does(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_at: int
) -> None:
    """Broken off before the first checkpoint, between two, and right after one."""
    whole = retrieval.run(config(made, tmp_path / "whole", *RESUMED))
    rate = training.learning_rate

    def break_off(step: int, *arguments: Any) -> float:
        if step == broken_at:
            raise KeyboardInterrupt
        return rate(step, *arguments)

    broken = config(made, tmp_path / "broken", *RESUMED)
    with monkeypatch.context() as patch:
        patch.setattr(training, "learning_rate", break_off)
        with pytest.raises(KeyboardInterrupt):
            retrieval.run(broken)
    assert not (broken.output / "results.json").exists()
    torch.manual_seed(99)
    resumed = retrieval.run(broken, resume=True)
    assert resumed.evaluations == whole.evaluations
    for name in ("checkpoint/model.safetensors", "steps/step-000009/model.safetensors"):
        one, other = load_file(tmp_path / "whole" / name), load_file(tmp_path / "broken" / name)
        assert one.keys() == other.keys()
        assert all(tensor.numpy().tobytes() == other[key].numpy().tobytes() for key, tensor in one.items()), name
    moments = "steps/step-000009/optimiser.safetensors"
    assert (tmp_path / "whole" / moments).read_bytes() == (tmp_path / "broken" / moments).read_bytes()


def test_another_seed_ends_elsewhere(made: Path, tmp_path: Path) -> None:
    """What the test above shows."""
    ends = []
    for seed in (1, 2):
        run = retrieval.run(config(made, tmp_path / str(seed), "optimisation.steps=2", f"seed={seed}"))
        ends.append((run.checkpoint / "model.safetensors").read_bytes())
    assert ends[0] != ends[1]


def test_a_finished_run_can_be_resumed_and_trains_no_further(made: Path, tmp_path: Path) -> None:
    short = config(made, tmp_path, "optimisation.steps=3", "checkpoint_every=3")
    first = retrieval.run(short)
    weights = (first.checkpoint / "model.safetensors").read_bytes()
    assert retrieval.run(short, resume=True).evaluations == first.evaluations
    assert (first.checkpoint / "model.safetensors").read_bytes() == weights


def test_an_earlier_run_is_not_overwritten(made: Path, tmp_path: Path) -> None:
    short = config(made, tmp_path, "optimisation.steps=2", "checkpoint_every=1")
    retrieval.run(short)
    with pytest.raises(ConfigError, match=r"holds checkpoints of an earlier run\. Pass --resume"):
        retrieval.run(short)


def test_a_run_with_another_architecture_is_not_resumed(made: Path, tmp_path: Path) -> None:
    retrieval.run(config(made, tmp_path, "optimisation.steps=1", "checkpoint_every=1"))
    with pytest.raises(CheckpointError, match="another architecture"):
        retrieval.run(config(made, tmp_path, "optimisation.steps=1", "model.temporal_layers=2"), resume=True)


def test_without_validation_the_last_model_is_kept(made: Path, tmp_path: Path) -> None:
    result = retrieval.run(
        config(made, tmp_path, "data.validation=null", "optimisation.steps=4", "evaluate_every=1", "checkpoint_every=4")
    )
    assert result.evaluations == {}
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == {}
    last = tmp_path / "steps" / "step-000004" / "model.safetensors"
    assert (result.checkpoint / "model.safetensors").read_bytes() == last.read_bytes()


def test_every_split_but_the_training_split_is_judged(made: Path, tmp_path: Path) -> None:
    lines = (made / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "test.jsonl").write_text("\n".join(lines[:4]), encoding="utf-8")
    result = retrieval.run(
        config(made, tmp_path / "run", f"data.test={tmp_path / 'test.jsonl'}", "optimisation.steps=1")
    )
    assert {name: split.counts for name, split in result.evaluations.items()} == {
        "validation": {"queries": QUERIES, "videos": len(VIDEOS)},
        "test": {"queries": 4, "videos": 2},
    }


def test_training_without_subtitles(made: Path, tmp_path: Path) -> None:
    result = retrieval.run(config(made, tmp_path, "data.subtitles=null", "optimisation.steps=2"))
    assert result.evaluations["validation"].counts["queries"] == QUERIES


def test_a_run_begins_with_the_initial_checkpoint(made: Path, tmp_path: Path, trained: tuple[Path, str]) -> None:
    start = trained[0] / "checkpoint"
    overrides = [
        f"initial={start}",
        f"tokenizer.source={start}",
        "optimisation.steps=1",
        "optimisation.learning_rate=1.0e-9",
    ]
    result = retrieval.run(config(made, tmp_path, *overrides))
    begun, ended = (
        HeroModel.from_pretrained(start).state_dict(),
        HeroModel.from_pretrained(result.checkpoint).state_dict(),
    )
    assert all(torch.allclose(tensor, ended[name], rtol=0, atol=1e-8) for name, tensor in begun.items())


def test_an_initial_checkpoint_decides_the_clip_interval(made: Path, tmp_path: Path) -> None:
    """A model that was trained on clips of 3 s reads clips of 3 s, whatever the default is."""
    model = HeroModel(HeroConfig(**{**TINY, "vocab_size": 400, "feature_dim": 6, "clip_interval": 3.0}))
    model.save_pretrained(tmp_path / "start")
    (tmp_path / "start" / "tokenizer.json").write_text(train_tokenizer_json(["It rains."], 300), encoding="utf-8")
    overrides = [f"initial={tmp_path / 'start'}", f"data.features={tmp_path / 'features'}", "optimisation.steps=1"]
    retrieval.run(config(made, tmp_path / "run", "model={}", *overrides))
    (cached,) = (tmp_path / "features").rglob("first.safetensors")
    assert load_file(cached)["features"].shape == (3, 6)


def test_an_initial_checkpoint_for_other_features_is_refused(made: Path, tmp_path: Path) -> None:
    HeroModel(HeroConfig(**{**TINY, "vocab_size": 400, "feature_dim": 7})).save_pretrained(tmp_path / "start")
    (tmp_path / "start" / "tokenizer.json").write_text(train_tokenizer_json(["It rains."], 300), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"reads features of width 7 .*the frame encoder gives 6"):
        retrieval.run(config(made, tmp_path / "run", f"initial={tmp_path / 'start'}", "model={}"))


def test_moments_are_rounded_as_configured(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[list[int]]] = []
    draw = RetrievalSampler.batch

    def noted(self: RetrievalSampler, step: int) -> RetrievalBatch:
        batch = draw(self, step)
        seen.append(batch.targets.tolist())
        return batch

    monkeypatch.setattr(RetrievalSampler, "batch", noted)
    query = {"desc_id": 1, "desc": "A short one.", "vid_name": "first", "ts": [3.1, 5.0]}
    one = write_annotations(tmp_path / "one.jsonl", [query])
    for rounding in ("outward", "middle"):
        forget_the_last_run()
        changes = [f"data.train={one}", f"data.rounding={rounding}", "sampling.videos=1", "optimisation.steps=1"]
        retrieval.run(config(made, tmp_path / rounding, *changes))
    assert seen == [[[2, 3]], [[2, 2]]]


@pytest.mark.slow  # Three processes import torch.
def test_two_processes_train_one_model(made: Path, tmp_path: Path) -> None:
    command = [Path(sys.executable).parent / "torchrun", "--nproc_per_node", "2", "-m", "hero_train.cli", "run"]
    changes = ["sampling.videos=3", "optimisation.steps=20", f"output={tmp_path / 'run'}"]
    arguments = [str(made / "run.yaml"), *(part for change in changes for part in ("--set", change))]
    ended = subprocess.run([*map(str, command), *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    entries = read_log(tmp_path / "run")
    assert [entry["step"] for entry in entries] == [20, 20]
    assert [kind for entry in entries for kind in ("loss", "validation") if kind in entry] == ["loss", "validation"]
    assert ended.stdout.count("The checkpoint is") == 1


def test_eval_and_predict_measure_as_the_run_did(trained: tuple[Path, str], tmp_path: Path) -> None:
    record, out, found = str(trained[0] / "config.yaml"), tmp_path / "moments.json", tmp_path / "metrics.json"
    for arguments in (["predict", record, "--out", str(out)], ["eval", record, "--out", str(found)]):
        ended = CliRunner().invoke(cli.app, [*arguments, "--split", "validation"], catch_exceptions=False)
        assert ended.exit_code == 0
    expected = json.loads((trained[0] / "results.json").read_text(encoding="utf-8"))
    assert json.loads(found.read_text(encoding="utf-8")) == expected
    queries = read_moment_queries(load_config(trained[0] / "config.yaml").data.validation)
    written = read_retrieval(out, queries).metrics()["all"]
    assert written["VCMR/R@1/IoU=0.7"] == expected["validation"]["metrics"]["all"]["VCMR/R@1/IoU=0.7"]
    assert written["SVMR/R@10/IoU=0.5"] == expected["validation"]["metrics"]["all"]["SVMR/R@10/IoU=0.5"]
