"""The sentences of annotation files of any task and of plain text files: what a tokenizer learns its words from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hero_train.data.annotations import read_json_lines
from hero_train.errors import DataError

JSON_LINES = ".jsonl"


def read_texts(path: Path) -> list[str]:
    """The sentences of a file.

    Args:
        path: a JSONL file of queries, questions, statements or captions, of which the sentences and answers are read; else a text
            file, of which each line is a sentence.

    Raises:
        DataError: no such file, one that is not UTF-8 or JSONL, or not a sentence in it.
    """
    if not path.is_file():
        raise DataError(f"There is no file of texts {path}; expected annotations (JSONL), or a text file.")
    if path.suffix.lower() == JSON_LINES:
        texts = [text for _, content in read_json_lines(path) for text in _sentences(content)]
    else:
        try:
            texts = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 ({error}). Save it as UTF-8.") from error
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise DataError(
            f"{path} has no sentence in it; expected objects with desc, statement, q and a0, a1, ..., or descs (JSONL), or lines "
            "of text."
        )
    return texts


def _sentences(content: dict[str, Any]) -> Iterator[str]:
    """What people wrote in one annotation, by the names that the formats of TVR, TVQA, VIOLIN and TVC give it."""
    for name, value in content.items():
        is_answer = name[:1] == "a" and name[1:].isdecimal()
        if isinstance(value, str) and (is_answer or name in ("desc", "statement", "q")):
            yield value
        elif name == "descs" and isinstance(value, list):
            yield from (text for one in value if isinstance(one, dict) and isinstance(text := one.get("desc"), str))
