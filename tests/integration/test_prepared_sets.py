"""A run trains on what ``hero-train prepare`` wrote, without the videos, for every task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.state import AcceleratorState
from typer.testing import CliRunner

from hero_train import cli
from tests.tiny_training import TINY, VIDEOS
from tests.unit.releases import run, write_arrays, write_lines
from tests.unit.tiny_videos import write_srt

LINES = [(video, number, line) for video, (_, lines) in VIDEOS.items() for number, line in enumerate(lines)]


def moment(number: int) -> list[float]:
    return [3.0 * number, 3.0 * (number + 1)]


ANNOTATIONS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "retrieval": (
        "tvr",
        [
            {"desc_id": key, "desc": f"Somebody says: {line}", "vid_name": video, "ts": moment(number), "type": "t"}
            for key, (video, number, line) in enumerate(LINES)
        ],
    ),
    "questions": (
        "tvqa",
        [
            {
                "qid": key,
                "q": "What is said?",
                "a0": line,
                "a1": "nothing",
                "answer_idx": 0,
                "vid_name": video,
                "ts": moment(number),
            }
            for key, (video, number, line) in enumerate(LINES)
        ],
    ),
    "statements": (
        "violin",
        [
            {"id": f"{key}-{label}", "statement": f"Somebody says: {text}", "vid_name": video, "label": label}
            for key, (video, _, line) in enumerate(LINES)
            for label, text in ((1, line), (0, "nothing"))
        ],
    ),
    "captions": (
        "tvc",
        [
            {"clip_id": key, "vid_name": video, "ts": moment(number), "descs": [{"desc": f"Somebody says: {line}"}]}
            for key, (video, number, line) in enumerate(LINES)
        ],
    ),
}

SAMPLING: dict[str, dict[str, Any]] = {
    "retrieval": {"videos": 4, "queries_per_video": 2},
    "questions": {"items": 2},
    "statements": {"items": 4},
    "captions": {"videos": 3},
    "pretraining": {"videos": 4},
}


@pytest.fixture(autouse=True)
def _one_run_per_process() -> Iterator[None]:
    """Accelerate keeps the settings of the first run of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("task", SAMPLING)
def test_a_prepared_set_trains(tmp_path: Path, task: str) -> None:
    features = write_arrays(tmp_path / "arrays", dict.fromkeys(VIDEOS, 6), width=5)
    for video, (_, lines) in VIDEOS.items():
        write_srt(tmp_path / "subtitles" / f"{video}.srt", lines)
    schema, records = ANNOTATIONS.get(task, (None, []))
    files = {"train": write_lines(tmp_path / "annotations.jsonl", records)} if schema else {}
    summary = run(tmp_path / "set", schema, features, files=files, subtitles=tmp_path / "subtitles")
    assert summary.task == task
    named = {"train": "set/annotations/train.jsonl"} if schema else {}
    settings = {
        "task": task,
        "output": "run",
        "data": {"features": "set", "subtitles": "set/subtitles.jsonl", **named},
        "tokenizer": {"vocabulary": 400},
        "model": TINY,
        "sampling": SAMPLING[task],
        "optimisation": {"steps": 2, "warmup": 1},
        "rows": {"slots": 64, "frames": 32, "temporal_slots": 64, "query_tokens": 32},
        "precision": "fp32",
        "threads": 1,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    done = CliRunner().invoke(cli.app, ["run", str(tmp_path / "run.yaml")])
    assert done.exception is None, done.output
    assert (tmp_path / "run" / "checkpoint" / "config.json").is_file()
    assert (tmp_path / "run" / "log.jsonl").read_text().count('"step"')
