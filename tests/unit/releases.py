"""Small annotation files in the layouts of the releases, and features for the videos that they name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hero_train.prepare.features import open_features
from hero_train.prepare.preparation import Request, prepare
from hero_train.prepare.schemas import SCHEMAS
from hero_train.prepare.summary import Summary

TVR = [
    {
        "vid_name": "friends_s01e01_seg02_clip_03",
        "duration": 12.5,
        "ts": [2.1, 6.0],
        "desc": "Monica pours the coffee &amp; smiles. ",
        "type": "v",
        "desc_id": 93717,
    },
    {
        "vid_name": "friends_s01e01_seg02_clip_03",
        "duration": 12.5,
        "ts": [0, 4.5],
        "desc": "Ross says that he is fine.",
        "type": "t",
        "desc_id": 93718,
    },
    {"vid_name": "house_s02e05_seg02_clip_11", "duration": 12.1, "ts": [3, 9.1], "desc": "House sits.", "desc_id": 3},
]

TVQA = [
    {
        "qid": 122039,
        "q": "Why does Howard leave the table?",
        "a0": "He is angry",
        "a1": "He wants to be alone",
        "a2": "The food is cold",
        "a3": "Raj asks him to",
        "a4": "His phone rings",
        "answer_idx": 1,
        "show_name": "The Big Bang Theory",
        "ts": "1.16-5.12",
        "vid_name": "s03e02_seg02_clip_10",
    },
    {
        "qid": 122040,
        "q": "Who knocks?",
        "a0": "Penny",
        "a1": "Amy",
        "a2": "Leonard",
        "a3": "Nobody",
        "a4": "Sheldon",
        "answer_idx": 4,
        "ts": "nan-nan",
        "vid_name": "s03e02_seg02_clip_10",
    },
    {
        "qid": 9,
        "q": "What is it?",
        "a0": "a",
        "a1": "b",
        "a2": "c",
        "a3": "d",
        "a4": "e",
        "vid_name": "castle_s01e01_seg01_clip_00",
    },
]

TVC = [
    {
        "vid_name": "grey_s03e12_seg02_clip_17",
        "duration": 12.0,
        "ts": [3.5, 8.9],
        "clip_id": 86602,
        "descs": [
            {"desc": "Meredith walks in.", "desc_id": 62633, "type": "v", "from_retrieval": True},
            {"desc": "She greets nobody.", "desc_id": 62634, "type": "vt", "from_retrieval": False},
        ],
    },
    {"vid_name": "grey_s03e12_seg02_clip_17", "duration": 12.0, "ts": [0, 3], "clip_id": 86603},
]

VIOLIN = {
    "dh_s08e07_clip_020_032": {
        "file": "dh_s08e07_clip_020_032",
        "source": "dh_s08e07",
        "span": [20.0, 32.0],
        "statement": [["She opens the door.", "She closes the door."], ["It rains.", "It snows."]],
        "sub": [["who is there", [500, 2000]], ["it is only me", [2500, 9000]]],
        "split": "train",
    },
    "gt3ntYidpvs_clip_000_012": {
        "file": "gt3ntYidpvs_clip_000_012",
        "source": "gt3ntYidpvs",
        "span": [0.0, 12.0],
        "statement": [["The man shouts.", "The man whispers."]],
        "sub": [["get down", [120, 1629]]],
        "split": "validate",
    },
    "fr_s01e01_clip_100_112": {
        "file": "fr_s01e01_clip_100_112",
        "source": "fr_s01e01",
        "span": [100.0, 112.0],
        "statement": [["They sit.", "They stand."]],
        "sub": [["how you doing", [101000, 102500]]],
        "split": "test",
    },
}

HOW2R = """z0r8QCIuHaM,[60:120],[62.72:69.37],The woman placed the design on the fabric
z0r8QCIuHaM,[60:120],[100.0:120.96],"In the garage, a woodworker discusses his project."
-8wVRbM63mE,[0:60],[6.9:17.71],the woman dress color was red
"""

HOW2QA = '''NOuQuofjk44,[67.2:78.0],10,12,16,how many knives are there?,1
piYcgGdO8_w,[14.15:21.52],White,Grey,Red,"What, on the right, is brown?",The box
DUEyiEnMVj4,[12.6:13.2],"it is ""pro graphix""","it is ""digitaldezignz","it is ""co.""",Its name?,"it is ""whatsdev"""
dnUFgR92F8M,[121.56:121.56],Pink,Yellow,White,What is the color of the petals?,Red
'''

DIDEMO = [
    {
        "annotation_id": 25,
        "description": "the dog turns around",
        "video": "54322086@N00_2408598493_274c77d26a.avi",
        "times": [[0, 0], [1, 1], [0, 1], [5, 5]],
        "num_segments": 6,
        "dl_link": "https://example.org/54322086",
        "reference_description": "the dog turns around",
    }
]

MSRVTT = {
    "info": {"year": "2016"},
    "videos": [
        {
            "id": 0,
            "video_id": "video0",
            "category": 9,
            "url": "u",
            "start time": 137.7,
            "end time": 149.4,
            "split": "train",
        },
        {
            "id": 1,
            "video_id": "video6513",
            "category": 9,
            "url": "u",
            "start time": 1,
            "end time": 11,
            "split": "validate",
        },
        {"id": 2, "video_id": "video7010", "category": 9, "url": "u", "start time": 0, "end time": 9, "split": "test"},
    ],
    "sentences": [
        {"caption": "a car is shown", "video_id": "video0", "sen_id": 1},
        {"caption": "a man talks", "video_id": "video0", "sen_id": 2},
        {"caption": "a cartoon", "video_id": "video6513", "sen_id": 3},
        {"caption": "people sing", "video_id": "video7010", "sen_id": 4},
    ],
}

JSFUSION = """key,vid_key,video_id,sentence
ret0,msr9770,video7010,a woman creating a fondant baby and flower
"""


def write_lines(path: Path, records: Iterable[Any]) -> Path:
    """JSON Lines; a record that is text or bytes is written as it stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        one if isinstance(one, bytes) else (one if isinstance(one, str) else json.dumps(one)).encode()
        for one in records
    ]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def write_arrays(folder: Path, clips: Mapping[str, int], width: int = 3, seed: int = 0) -> Path:
    """Features of videos, ``.npy``."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for video_id, count in clips.items():
        np.save(folder / f"{video_id}.npy", rng.standard_normal((count, width)).astype(np.float32))
    return folder


def run(
    out: Path, schema: str | None, features: Path | list[Path], interval: float | None = 1.5, **options: Any
) -> Summary:
    """Prepare a set."""
    folders = features if isinstance(features, list) else [features]
    chosen = SCHEMAS[schema] if schema is not None else None
    if "pieces" not in options and chosen is not None and chosen.piece_seconds:
        from hero_train.prepare.pieces import Pieces

        options["pieces"] = Pieces(chosen.piece_seconds)
    return prepare(Request(out=out, features=open_features(folders, interval), schema=chosen, **options))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def annotations_of(out: Path, split: str) -> list[dict[str, Any]]:
    return lines_of(out / "annotations" / f"{split}.jsonl")
