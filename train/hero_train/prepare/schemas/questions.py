"""Questions with several answers: TVQA, How2QA."""

from __future__ import annotations

import zlib
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


def _parse_tvqa(row: Mapping[str, Any], line: int) -> Iterator[Record]:
    """``qid``, ``q``, ``a0``, ``a1``, ..., ``vid_name``; where known, ``answer_idx``, ``ts`` and this project's ``kind``."""
    require(row, ("qid", "q", "a0", "a1", "vid_name"))
    names = [f"a{number}" for number in range(sum(name[:1] == "a" and name[1:].isdecimal() for name in row))]
    if missing := [name for name in names if row.get(name) is None]:
        raise Unusable("answer missing", f"has no {', '.join(missing)}; expected {len(names)} answers")
    question_id = read_id(row["qid"], "qid")
    entries = {"qid": question_id, "q": read_text(row["q"], "q")}
    entries |= {name: read_text(row[name], name) for name in names}
    if (correct := _read_correct(row.get("answer_idx"), len(names))) is not None:
        entries["answer_idx"] = correct
    if row.get("kind") is not None:
        entries["kind"] = read_text(row["kind"], "kind")
    yield Record(
        question_id,
        read_video_id(row["vid_name"], "vid_name"),
        entries,
        read_moments(row.get("ts"), "ts"),
        split=read_split(row.get("split")),
        mended=mended_texts(row["q"], *(row[name] for name in names)),
    )


def _read_correct(value: Any, answers: int) -> int | None:
    """The place of the right answer; TVQA+ and tables have it as a text."""
    if value is None:
        return None
    place = int(value) if isinstance(value, str) and value.isdecimal() else value
    if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < answers:
        raise Unusable("right answer unknown", f"has answer_idx {value!r:.40}; expected 0 to {answers - 1}")
    return place


def _parse_how2qa(row: Mapping[str, Any], line: int) -> Iterator[Record]:
    """``video_id``, ``moment`` as "[start:end]" in seconds of the whole video, three wrong answers, ``question``, ``answer``.

    The right answer goes to a place among the others that its question decides, so that no place is more often right.
    """
    if "question" not in row:
        yield from _parse_tvqa(row, line)
        return
    require(row, HOW2QA.columns)
    texts = [row[name] for name in ("wrong_1", "wrong_2", "wrong_3")]
    place = zlib.crc32(f"{row['video_id']} {row['moment']} {row['question']}".encode(errors="replace")) % 4
    texts.insert(place, row["answer"])
    question_id = f"{row['video_id']}-{line}"  # the release has no ids
    entries = {"qid": question_id, "q": read_text(row["question"], "question")}
    entries |= {f"a{number}": read_text(text, "an answer") for number, text in enumerate(texts)}
    yield Record(
        question_id,
        read_video_id(row["video_id"], "video_id"),
        entries | {"answer_idx": place},
        read_moments(row["moment"], "moment"),
        whole=True,
        mended=mended_texts(row["question"], *texts),
    )


TVQA = Schema(
    name="tvqa",
    task="questions",
    expects='qid, q, a0 to a4, vid_name and, where known, answer_idx and ts "start-end"',
    columns=("qid", "q", *(f"a{number}" for number in range(5)), "vid_name", "answer_idx", "ts"),
    parse=_parse_tvqa,
)

HOW2QA = Schema(
    name="how2qa",
    task="questions",
    expects="the columns video_id, moment [start:end], three wrong answers, question, answer, or lines as TVQA has them",
    columns=("video_id", "moment", "wrong_1", "wrong_2", "wrong_3", "question", "answer"),
    parse=_parse_how2qa,
    positional=True,
    piece_seconds=60,
)
