"""Statements that are true or false of a video: VIOLIN."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from hero_train.prepare.records import (
    Record,
    Unusable,
    mended_texts,
    read_id,
    read_moments,
    read_text,
    read_video_id,
    require,
)
from hero_train.prepare.schemas.schema import Schema, read_split

_LABELS = {"1": True, "true": True, "0": False, "false": False}


def _flatten_violin(document: Any) -> Iterator[Mapping[str, Any]] | None:
    """The release: an object of clips by name, each with pairs of statements, subtitles and the split."""
    if not isinstance(document, Mapping) or not all(
        isinstance(clip, Mapping) and "statement" in clip for clip in document.values()
    ):
        return None
    return ({"file": name, **clip} for name, clip in document.items())


def _parse_violin(row: Mapping[str, Any], line: int) -> Iterator[Record]:
    """``file`` and ``statement``, pairs of a true and a false one; or a line for each statement."""
    if not isinstance(row.get("statement"), list):
        yield _parse_line(row)
        return
    require(row, ("file", "statement", "split"))
    name, split = read_video_id(row["file"], "file"), read_split(row["split"])
    for number, pair in enumerate(row["statement"]):
        if not isinstance(pair, list) or len(pair) != 2:
            raise Unusable(
                "statement without its pair", f"has the statements {pair!r:.80}; expected a true and a false one"
            )
        for place, (text, label) in enumerate(zip(pair, (1, 0), strict=True)):
            yield _statement(f"{name}-{number}-{place}", text, name, label, split)


def _parse_line(row: Mapping[str, Any]) -> Record:
    """A line of the authors' preprocessing (``desc_id``, ``desc``), of VALUE (``example_id``, ``answer``), or this project's.

    VALUE's lines have a ``paired_id`` as well, which its submissions do not use.
    """
    number = next((name for name in ("desc_id", "example_id", "paired_id") if name in row), "id")
    text = "desc" if "desc" in row else "statement"
    label = row.get("answer" if "answer" in row else "label")
    require(row, (number, text, "vid_name"))
    if isinstance(label, str):
        label = _LABELS.get(label.lower(), label)
    if label not in (None, 0, 1) or isinstance(label, float):
        raise Unusable("label that is none", f"has the label {label!r:.40}; expected 1 or true, 0 or false")
    label = None if label is None else int(label)
    statement_id, split = read_id(row[number], number), read_split(row.get("split"))
    record = _statement(statement_id, row[text], row["vid_name"], label, split, row.get("kind"))
    return dataclasses.replace(record, moments=read_moments(row.get("ts"), "ts"))


def _statement(
    number: str | int, text: Any, video_id: Any, label: int | None, split: str | None, kind: Any = None
) -> Record:
    entries = {"id": number, "statement": read_text(text, "a statement")} | ({} if label is None else {"label": label})
    if kind is not None:
        entries["kind"] = read_text(kind, "kind")
    return Record(number, read_video_id(video_id, "vid_name"), entries, split=split, mended=mended_texts(text))


VIOLIN = Schema(
    name="violin",
    task="statements",
    expects="clips with file, split and statement [[true, false], ...], or lines with desc_id, desc, vid_name and label",
    columns=("id", "statement", "vid_name", "label"),
    parse=_parse_violin,
    flatten=_flatten_violin,
)
