"""The sentences of annotation and text files, by the names of each format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hero_train.data.texts import read_texts
from hero_train.errors import DataError


@pytest.mark.parametrize(
    ("annotation", "sentences"),
    [
        ({"desc_id": 1, "desc": "A dog runs.", "vid_name": "clip", "type": "v"}, ["A dog runs."]),
        (
            {
                "qid": 7,
                "q": "Who runs?",
                "a0": "A dog.",
                "a1": "A cat.",
                "a10": "Both.",
                "answer_idx": 0,
                "vid_name": "clip",
            },
            ["Who runs?", "A dog.", "A cat.", "Both."],
        ),
        ({"id": 3, "statement": "The dog sleeps.", "label": 0, "vid_name": "clip"}, ["The dog sleeps."]),
        (
            {
                "clip_id": 0,
                "vid_name": "clip",
                "descs": [{"desc_id": 0, "desc": "One."}, {"desc_id": 1, "desc": "Two."}],
            },
            ["One.", "Two."],
        ),
    ],
)
def test_annotations_of_every_task(tmp_path: Path, annotation: dict[str, Any], sentences: list[str]) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(f"{json.dumps(annotation)}\n\n{json.dumps(annotation)}\n", encoding="utf-8")
    assert read_texts(path) == sentences * 2


def test_a_text_file_has_a_sentence_per_line(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\ufeffOne line.\n\n  \nAnother.\n", encoding="utf-8")
    assert read_texts(tmp_path / "texts.txt") == ["One line.", "Another."]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"vid_name": "clip", "audio": "loud"}\n', "has no sentence in it; expected objects with desc"),
        ("a.jsonl", b"[1]\n", "Line 1 of .* is a list; expected an object"),
        ("a.txt", b"\n\n", "has no sentence in it"),
        ("a.txt", b"\xff\xfe\x00", "is not UTF-8"),
        ("a.txt", None, "There is no file of texts"),
    ],
)
def test_files_without_sentences_are_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_texts(tmp_path / name)
