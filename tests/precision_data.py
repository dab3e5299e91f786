"""A training split with prepared features, annotated for every task, and the configuration of a run on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml

from hero_train.data.features import VideoFeatures, write_features

LINES = ["the robot takes a red gem", "where is the gem", "who are you", "look at the sky"]
TASKS = {
    "retrieval": "retrieval",
    "question answering": "questions",
    "statements": "statements",
    "captioning": "captions",
}
VIDEOS = 12


def write_run(folder: Path, task: str, width: int, answers: int = 3) -> Path:
    """Write features of this width, subtitles, annotations, and the run's configuration; returns its path.

    Args:
        folder: to write into.
        task: the manifest's name of it.
        width: of a feature.
        answers: of each question.
    """
    rng = np.random.default_rng(0)
    (folder / "features").mkdir(parents=True)
    subtitles, annotations = [], []
    for number in range(VIDEOS):
        name, clips = f"video{number}", 6 + number % 3
        features = rng.exponential(0.5, (clips, width)).astype(np.float32)
        write_features(folder / "features" / f"{name}.safetensors", VideoFeatures(features, 1.5 * clips))
        line = LINES[number % len(LINES)]
        subtitles.append({"vid_name": name, "sub": [{"text": line, "start": 0.5, "end": 4.0}]})
        annotation = {
            "retrieval": {"desc_id": number, "desc": line, "ts": [0.0, 4.5], "type": "t"},
            "question answering": {
                "qid": number, "q": "What is said?", "answer_idx": 0, "ts": [0.0, 4.5],
                **{f"a{place}": LINES[(number + place) % len(LINES)] for place in range(answers)},
            },
            "statements": {"id": number, "statement": f"Somebody says: {line}", "label": 1},
            "captioning": {"clip_id": number, "ts": [0.0, 4.5], "descs": [{"desc": line}]},
        }[task]  # fmt: skip
        annotations.append({**annotation, "vid_name": name})
    for file, rows in (("subtitles", subtitles), ("train", annotations)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{file}.jsonl").write_text(text, encoding="utf-8")
    data = {"features": "features", "subtitles": "subtitles.jsonl", "train": "train.jsonl"}
    run = folder / "run.yaml"
    run.write_text(yaml.safe_dump({"task": TASKS[task], "output": "run", "data": data}), encoding="utf-8")
    return run
