"""Runs on two processes: the results of one, whole or sharded weights alike, and nothing lost when both are killed."""

from __future__ import annotations

import functools
import importlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import Tensor

from hero_train.run_config import load_config
from hero_train.training_state import latest_state
from tests.integration import test_training
from tests.processes import join_group, killed, together
from tests.tiny_training import VIDEOS, run_settings, write_training_set

pytestmark = pytest.mark.slow  # Pairs of processes import torch.

WORLD = 2
STEPS = 4
LONG = 8

ROUNDING = 1e-4
"""Of a weight after some steps: Adam enlarges a rounding where a gradient is next to nothing."""


def retrieval(**changes: Any) -> dict[str, Any]:
    content = test_training.settings(checkpoint_every=2, evaluate_every=3, **changes)
    content["model"]["hidden_dropout"] = 0.0
    content["sampling"] = {"videos": len(VIDEOS) // WORLD, "queries_per_video": 3, "spoken_per_video": 1}
    content["optimisation"] |= {"steps": STEPS, "accumulation": 2, "hard_negatives_after": 2}
    content["loss"]["ranking"] = "hinge"
    return content


def pretraining(**changes: Any) -> dict[str, Any]:
    """All tasks but the one that tells frames apart within a process."""
    content = run_settings("pretraining") | {"checkpoint_every": 2} | changes
    content["sampling"] |= {
        "videos": len(VIDEOS) // WORLD,
        "mix": {"mlm": 1, "mfm_nce": 0, "mffr": 1, "fom": 1, "vsm": 1},
    }
    content["optimisation"] |= {"steps": STEPS, "accumulation": 2}
    return content


def with_dropout(**changes: Any) -> dict[str, Any]:
    """A run that is long enough to be killed, in which chance has a say."""
    content = retrieval(**changes) | {"evaluate_every": 0}
    content["model"] |= {"hidden_dropout": 0.1, "attention_dropout": 0.1}
    content["optimisation"] |= {"steps": LONG, "accumulation": 1}
    return content


def impatient(**changes: Any) -> dict[str, Any]:
    """A run that gets no better, and does not wait for it."""
    content = retrieval(**changes) | {"evaluate_every": 1, "patience": 2}
    content["optimisation"] |= {"learning_rate": 1e-12, "steps": LONG, "accumulation": 1}
    return content


RUNS = {
    "ddp": retrieval(),
    "fsdp": retrieval(distributed="fsdp", activation_checkpointing=True),
    "pretraining-ddp": pretraining(),
    "pretraining-fsdp": pretraining(distributed="fsdp"),
    "impatient": impatient(),
    "dropout-ddp": with_dropout(),
    "dropout-fsdp": with_dropout(distributed="fsdp"),
}


def run_all(folder: Path, names: Sequence[str], resume: bool, rank: int, world: int) -> int:
    """Runs one after the other in the same processes, each with a group of its own; the number of processes it saw."""
    for name in names:
        store = folder / f"store-{name}-{'resumed' if resume else 'begun'}-{world}"
        if world > 1:
            join_group(store, rank, world)
        AcceleratorState._reset_state(reset_partial_state=True)
        config = load_config(folder / f"{name}.yaml")
        importlib.import_module(f"hero_train.recipes.{config.task}").run(config, resume=resume)
    return world


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training set, the configurations, and the runs that one process makes of as many videos as two."""
    made = write_training_set(tmp_path_factory.mktemp("set"))
    alone = {"alone": retrieval(), "pretraining-alone": pretraining()}
    for content in alone.values():
        content["sampling"]["videos"] = len(VIDEOS)
    broken = {f"broken-{kind}": with_dropout(distributed=kind) for kind in ("ddp", "fsdp")}
    for name, content in (RUNS | alone | broken).items():
        content["output"] = f"runs/{name}"
        (made / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    run_all(made, list(alone), False, 0, 1)
    return made


@pytest.fixture(scope="module")
def runs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folders of all runs on two processes."""
    work = functools.partial(run_all, folder, list(RUNS), False)
    assert together(work, WORLD, tmp_path_factory.mktemp("processes")) == [WORLD] * WORLD
    return folder / "runs"


def entries(output: Path, kind: str) -> dict[int, Any]:
    """What was logged of one kind, by step."""
    lines = map(json.loads, (output / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return {line["step"]: line[kind] for line in lines if kind in line}


def weights(output: Path, file: str = f"steps/step-{STEPS:06d}/model.safetensors") -> dict[str, Tensor]:
    return load_file(output / file)


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((tensor - other[name]).abs().max()) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("name", "alone"),
    [
        ("ddp", "alone"),
        ("fsdp", "alone"),
        ("pretraining-ddp", "pretraining-alone"),
        ("pretraining-fsdp", "pretraining-alone"),
    ],
)
def test_two_processes_train_as_one_with_as_many_videos(runs: Path, name: str, alone: str) -> None:
    """Over four steps of two batches, with warm-up, clipping, and hard negatives from the third step on.

    The run with sharded weights also computes its activations again instead of keeping them.
    """
    assert furthest(weights(runs / name), weights(runs / alone)) < ROUNDING
    moved = furthest(weights(runs / alone), weights(runs / alone, "steps/step-000002/model.safetensors"))
    assert moved > 10 * ROUNDING, "the weights hardly move, so their being alike shows nothing"
    losses, expected = (entries(runs / output, "loss") for output in (name, alone))
    assert losses.keys() == expected.keys() == {STEPS}
    assert losses[STEPS] == pytest.approx(expected[STEPS], rel=1e-4)


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_evaluations_are_those_of_one_process_and_the_last_step_has_one(runs: Path, name: str) -> None:
    found, expected = (entries(runs / output, "validation") for output in (name, "alone"))
    assert list(found) == [3, STEPS]
    assert found == expected
    results = [json.loads((runs / output / "results.json").read_text(encoding="utf-8")) for output in (name, "alone")]
    assert results[0] == results[1]


def test_the_moments_of_sharded_weights_are_kept_whole(runs: Path) -> None:
    file = f"steps/step-{STEPS:06d}/optimiser.safetensors"
    sharded, whole = weights(runs / "fsdp", file), weights(runs / "ddp", file)
    assert {name: tensor.shape for name, tensor in sharded.items()} == {n: t.shape for n, t in whole.items()}
    assert furthest(sharded, whole) < ROUNDING


def test_one_process_goes_on_with_the_state_that_two_with_sharded_weights_left(folder: Path, runs: Path) -> None:
    shutil.copytree(runs / "fsdp", runs / "onward")
    shutil.rmtree(runs / "onward" / "steps" / f"step-{STEPS:06d}")
    content = yaml.safe_load((folder / "alone.yaml").read_text(encoding="utf-8")) | {"output": "runs/onward"}
    (folder / "onward.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    run_all(folder, ["onward"], True, 0, 1)
    assert furthest(weights(runs / "onward"), weights(runs / "alone")) < ROUNDING


def test_patience_ends_the_run_in_all_processes(runs: Path) -> None:
    evaluated = entries(runs / "impatient", "validation")
    assert 3 <= len(evaluated) < LONG
    assert (runs / "impatient" / "results.json").is_file()


@pytest.fixture(scope="module")
def resumed(folder: Path, runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folders of runs whose processes were both killed, and that were then resumed."""
    for kind in ("ddp", "fsdp"):
        output = runs / f"broken-{kind}"

        def is_on_its_way(steps: Path = output / "steps") -> bool:
            state = latest_state(steps)
            return state is not None and state.name >= "step-000002"

        work = functools.partial(run_all, folder, [f"broken-{kind}"], False)
        killed(work, WORLD, tmp_path_factory.mktemp("killed"), is_on_its_way)
        assert not (output / "results.json").exists()
        state = latest_state(output / "steps")
        assert state is not None
        assert state.name < f"step-{LONG:06d}", "the run was over before it was killed"
    work = functools.partial(run_all, folder, ["broken-ddp", "broken-fsdp"], True)
    together(work, WORLD, tmp_path_factory.mktemp("resumed"))
    return runs


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_run_whose_processes_were_killed_ends_bit_for_bit_where_an_uninterrupted_one_does(
    resumed: Path, kind: str
) -> None:
    whole, broken = resumed / f"dropout-{kind}", resumed / f"broken-{kind}"
    last = f"steps/step-{LONG:06d}"
    for file in ("checkpoint/model.safetensors", f"{last}/model.safetensors", f"{last}/optimiser.safetensors"):
        one, other = load_file(whole / file), load_file(broken / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items()), file
    assert (whole / "results.json").read_bytes() == (broken / "results.json").read_bytes()
