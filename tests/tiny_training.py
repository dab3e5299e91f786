"""What the tests of training share: a model of a few thousand weights, and a real training set of short videos."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import yaml
from accelerate.state import AcceleratorState

from hero_train.config import HeroConfig
from hero_train.run_config import load_config
from tests.tiny_checkpoint import write_frame_encoder
from tests.unit.tiny_videos import write_srt, write_video

TINY: dict[str, Any] = {
    "hidden_size": 16,
    "num_heads": 2,
    "intermediate_size": 32,
    "cross_modal_layers": 1,
    "temporal_layers": 1,
    "text_positions": 64,
    "temporal_positions": 32,
    "query_positions": 32,
    "frame_positions": 32,
    "clip_limit": 16,
    "min_span_clips": 1,
    "max_span_clips": 4,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
}

VIDEOS = {
    "first": (["red", "green", "blue"], ["the apple falls", "a bird sings", "open the door"]),
    "second": (["green", "blue", "red"], ["close the window", "where is the key", "we are late"]),
    "third": (["blue", "red", "green"], ["it rains again", "give me the map", "look at the moon"]),
    "fourth": (["red", "blue", "green"], ["take the train", "nobody came", "sing it louder"]),
    "fifth": (["green", "red", "blue"], ["the soup is cold", "call the doctor", "turn the page"]),
    "sixth": (["blue", "green", "red"], ["hide the letter", "paint the wall", "count to ten"]),
}
"""Three seconds of each colour, with a line spoken over each."""

ANNOTATIONS = {task: f"{task}.jsonl" for task in ("questions", "statements", "captions")} | {
    "retrieval": "queries.jsonl"
}
"""The annotation file of each task."""

ANSWERS = 5

STEPS = {"pretraining": 120, "retrieval": 120, "questions": 120, "statements": 90, "captions": 90}
"""What learning the training set by heart takes."""

_SECTIONS: dict[str, dict[str, Any]] = {
    "pretraining": {"sampling": {"videos": 6, "span_dropout": 0.5, "share": 0.3}},
    "retrieval": {
        "sampling": {"videos": 6, "queries_per_video": 3},
        "loss": {"ranking": "nce", "video_weight": 1.0, "query_weight": 1.0, "clip_weight": 1.0, "span_weight": 0.5},
    },
    "questions": {"sampling": {"items": 6}},
    "statements": {"sampling": {"items": 6}},
    "captions": {"sampling": {"videos": 6}},
}


def tiny_config(**changes: Any) -> HeroConfig:
    """An architecture with every part of a HERO."""
    return HeroConfig(**{**TINY, "vocab_size": 40, "feature_dim": 6, **changes})


def write_annotations(path: Path, queries: list[dict[str, Any]]) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(query) + "\n" for query in queries), encoding="utf-8")
    return path


def write_training_set(folder: Path) -> Path:
    """Videos, subtitles, the frame encoder, and annotations of every task: everything but the configuration."""
    annotated: dict[str, list[dict[str, Any]]] = {name: [] for name in ANNOTATIONS.values()}
    names = list(VIDEOS)
    for place, (video, (colours, lines)) in enumerate(VIDEOS.items()):
        write_video(folder / "videos" / f"{video}.mp4", colours)
        write_srt(folder / "subtitles" / f"{video}.srt", lines)
        strangers = VIDEOS[names[place - 1]][1]
        for number, line in enumerate(lines):
            moment = {"vid_name": video, "ts": [3.0 * number, 3.0 * (number + 1)]}
            annotated["queries.jsonl"].append(_query(len(annotated["queries.jsonl"]), line) | moment)
            annotated["questions.jsonl"].append(_question(place, number, lines, strangers) | moment)
            annotated["statements.jsonl"] += [
                _statement(place, number, said, label, video) for said, label in ((line, 1), (strangers[number], 0))
            ]
            annotated["captions.jsonl"].append(
                {"clip_id": f"{video}-{number}", "descs": [{"desc": f"{line} and all is {colours[number]}"}]} | moment
            )
    for name, rows in annotated.items():
        write_annotations(folder / name, rows)
    write_frame_encoder(folder / "encoder", 6)
    return folder


def _query(number: int, line: str) -> dict[str, Any]:
    return {"desc_id": number, "desc": f"Somebody says: {line}", "type": "t"}


def _question(video: int, number: int, lines: list[str], strangers: list[str]) -> dict[str, Any]:
    """What is said first, second or last; the right answer stands in another place each time."""
    when = ("first", "second", "last")[number]
    right = (video + number) % ANSWERS
    wrong = [line for line in [*lines, *strangers] if line != lines[number]]
    answers = [*wrong[:right], lines[number], *wrong[right:]][:ANSWERS]
    return {
        "qid": 10 * video + number,
        "q": f"What is said {when}?",
        **{f"a{place}": answer for place, answer in enumerate(answers)},
        "answer_idx": right,
        "kind": when,
    }


def _statement(video: int, number: int, line: str, label: int, name: str) -> dict[str, Any]:
    return {
        "id": 100 * video + 10 * number + label,
        "statement": f"Somebody says: {line}",
        "label": label,
        "pair_id": 10 * video + number,
        "vid_name": name,
    }


def run_settings(task: str, **changes: Any) -> dict[str, Any]:
    """A run on the training set that learns it by heart, and is judged on it."""
    data = {"videos": "videos", "subtitles": "subtitles", "features": "features"}
    if task in ANNOTATIONS:
        data |= {"train": ANNOTATIONS[task], "validation": ANNOTATIONS[task]}
    return {
        "task": task,
        "output": "run",
        "frame_encoder": "encoder",
        "data": data,
        "tokenizer": {"vocabulary": 400},
        "model": {**TINY, "hidden_size": 32, "intermediate_size": 64},
        "optimisation": {"steps": STEPS[task], "warmup": 5, "learning_rate": 0.006 if task == "questions" else 0.01},
        "rows": {"slots": 64, "frames": 32, "temporal_slots": 32, "query_tokens": 16},
        "precision": "fp32",
        "threads": 1,
        **copy.deepcopy(_SECTIONS[task]),
        **changes,
    }


def load_run(folder: Path, task: str, *overrides: str, **changes: Any) -> Any:
    """The configuration of such a run, of its task's class."""
    path = folder / f"{task}.yaml"
    path.write_text(yaml.safe_dump(run_settings(task, **changes)), encoding="utf-8")
    return load_config(path, overrides)


def read_log(output: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def forget_the_last_run() -> None:
    """Accelerate keeps the settings of the first run of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
