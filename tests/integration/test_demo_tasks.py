"""The demo of all tasks and its ablation, small: every step by the commands that a user would type."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo.ablation import MIXES
from demo.tasks import SIZES, STARTS

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow  # Twelve training runs, each a process that imports torch: about a minute together.


def run_demo(module: str, work: Path, *options: str) -> str:
    """What the demo printed; without Java, since METEOR takes half a minute to start."""
    command = [sys.executable, "-m", module, "--size", "small", "--work", str(work), *options]
    environment = {**os.environ, "PATH": str(Path(sys.executable).parent)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "work"


@pytest.fixture(scope="module")
def printed(work: Path) -> str:
    return run_demo("demo.tasks", work)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


GROUPS = {
    "retrieval": ("VCMR/R@1/IoU=0.7", {"all", "v", "t", "vt"}, {"chance"}),
    "questions": ("accuracy", {"all", "picture", "dialogue", "order"}, {"chance", "majority"}),
    "statements": ("accuracy", {"all", "picture", "dialogue", "order"}, {"chance", "majority"}),
    "captions": ("CIDEr", {"all", "beam"}, {"frequent", "random"}),
}


def test_every_task_is_trained_and_judged_on_held_out_episodes(work: Path, printed: str) -> None:
    results = read(work / "results.json")
    assert results["episodes"] == list(SIZES["small"].episodes)
    assert set(results["minutes"]) == set(STARTS)
    assert set(results["tasks"]) == set(GROUPS)
    for task, (metric, groups, baselines) in GROUPS.items():
        judged = results["tasks"][task]
        assert set(judged["metrics"]) == groups, task
        assert baselines <= set(judged["baselines"])
        assert 0 <= judged["metrics"]["all"][metric] <= 10
        assert judged == read(work / task / "results.json")["test"]
    for task, start in STARTS.items():
        assert f"Train: {task}" in printed
        if start is not None:
            assert f"initial={work / start / 'checkpoint'}" in printed


def test_pretraining_sees_no_episode_that_is_judged(work: Path, printed: str) -> None:
    ids = read(work / "train_ids.json")
    assert len(ids) == SIZES["small"].episodes[0]
    assert all(name.startswith("train_") for name in ids)
    assert "data.ids=" in printed


def test_the_ablation_compares_kinds_of_pretraining(work: Path, printed: str) -> None:
    assert printed
    made = (work / "toontv" / "corpus.json").stat().st_mtime_ns
    run_demo("demo.ablation", work, "--seeds", "1")
    assert (work / "toontv" / "corpus.json").stat().st_mtime_ns == made, "the corpus is made once"
    runs = read(work / "ablation.json")["runs"]
    assert sorted((run["pretraining"], run["seed"]) for run in runs) == sorted((name, 1) for name in MIXES)
    assert all({"all", "v", "t", "vt"} == set(run["test"]["metrics"]) for run in runs)
    weights = {path.read_bytes() for path in work.glob("ablation/*/retrieval/checkpoint/model.safetensors")}
    assert len(weights) == len(MIXES), "each kind begins elsewhere"
    tokenizers = {path.read_bytes() for path in work.glob("ablation/*/retrieval/checkpoint/tokenizer.json")}
    assert len(tokenizers) == 1, "and reads the same words"
