"""Annotation files of questions in the format of TVQA and of statements in that of VIOLIN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hero_train.data.annotations import read_json_lines
from hero_train.errors import DataError
from hero_train.evaluation import ALL


@dataclass(frozen=True)
class Question:
    """A question with its answers.

    Attributes:
        question_id: of the annotation (``qid``).
        text: the question.
        answers: all of them, at least two.
        video_id: the video it is about.
        correct: place of the right answer, or None where the annotation does not tell.
        moment: start and end in seconds of what answers it, or None.
        kind: of question, by which accuracy is told apart; None where the annotation does not tell.
    """

    question_id: str
    text: str
    answers: tuple[str, ...]
    video_id: str
    correct: int | None
    moment: tuple[float, float] | None
    kind: str | None = None


@dataclass(frozen=True)
class Statement:
    """A statement about a video.

    Attributes:
        statement_id: of the annotation (``id``).
        text: the statement.
        video_id: the video it is about.
        label: whether it is true, or None where the annotation does not tell.
        pair: what a true and a false statement have in common that were written together (``pair_id``), or None.
        moment: start and end in seconds of what decides it, or None.
    """

    statement_id: str
    text: str
    video_id: str
    label: bool | None
    pair: str | None = None
    kind: str | None = None
    moment: tuple[float, float] | None = None


def read_questions(path: Path) -> list[Question]:
    """Read a TVQA annotation file: ``qid``, ``q``, ``a0``, ``a1``, ..., ``vid_name``; where known, ``answer_idx`` and ``ts``.

    ``ts`` is "start-end" or [start, end] in seconds; "nan-nan", as TVQA has it, is a moment that nobody marked. All questions of a
    file have the same number of answers: five in TVQA, four in How2QA. A ``kind`` of question, which TVQA does not have, is kept:
    accuracy is told apart by it.

    Raises:
        DataError: a line without one of them or with a value that does not fit; the message names the line.
    """
    questions: list[Question] = []
    for number, content in read_json_lines(path):
        where = f"Line {number} of {path}"
        question = _question(content, where)
        if questions and len(question.answers) != len(questions[0].answers):
            raise DataError(
                f"{where} has {len(question.answers)} answers and the first question {len(questions[0].answers)}; "
                "expected equally many, so put the others into a file of their own."
            )
        questions.append(question)
    if not questions:
        raise DataError(f"{path} has no question in it.")
    return questions


def _question(content: dict[str, Any], where: str) -> Question:
    _require(content, ("qid", "q", "a0", "a1", "vid_name"), "a question", where)
    names = [f"a{number}" for number in range(sum(name[:1] == "a" and name[1:].isdecimal() for name in content))]
    _require(content, names, f"a question with {len(names)} answers", where)
    correct = content.get("answer_idx")
    whole = isinstance(correct, int) and not isinstance(correct, bool)
    if correct is not None and not (whole and 0 <= correct < len(names)):
        raise DataError(f"{where} has answer_idx {correct!r}; expected a number from 0 to {len(names) - 1}.")
    return Question(
        question_id=str(content["qid"]),
        text=_sentence(content, "q", where),
        answers=tuple(_sentence(content, name, where) for name in names),
        video_id=str(content["vid_name"]),
        correct=correct,
        moment=_moment(content.get("ts"), where),
        kind=_kind(content, where),
    )


def _moment(value: Any, where: str) -> tuple[float, float] | None:
    """Start and end of "start-end" or [start, end]; None where nobody marked them."""
    if value is None:
        return None
    parts = value.split("-") if isinstance(value, str) else value
    try:
        start, end = map(float, parts)
    except (TypeError, ValueError):
        start = end = math.inf
    if math.isnan(start) and math.isnan(end):
        return None
    if not 0 <= start < end < math.inf:
        raise DataError(
            f'{where} has ts {value!r}; expected "start-end" or [start, end] in seconds with 0 <= start < end.'
        )
    return start, end


def read_statements(path: Path) -> list[Statement]:
    """Read a file of statements: ``id``, ``statement``, ``vid_name`` and, where known, ``label`` (1 or true, 0 or false).

    Statements with the same ``pair_id`` were written together, one true and one false. ``ts``, where it is there, is what decides a
    statement, as for questions. The names ``desc_id`` and ``desc``, by which
    the authors' VIOLIN files call the first two, are read as well. A ``kind`` is kept: accuracy is told apart by it.

    Raises:
        DataError: a line without one of them or with a value that does not fit; the message names the line.
    """
    statements = [_statement(content, f"Line {number} of {path}") for number, content in read_json_lines(path)]
    if not statements:
        raise DataError(f"{path} has no statement in it.")
    return statements


def _statement(content: dict[str, Any], where: str) -> Statement:
    names = ("desc_id", "desc") if "desc" in content else ("id", "statement")
    _require(content, (*names, "vid_name"), "a statement", where)
    label = content.get("label")
    if label not in (None, 0, 1) or isinstance(label, float):
        raise DataError(
            f"{where} has label {label!r}; expected 1 or true for a true statement, 0 or false for a false one."
        )
    return Statement(
        statement_id=str(content[names[0]]),
        text=_sentence(content, names[1], where),
        video_id=str(content["vid_name"]),
        label=None if label is None else bool(label),
        pair=None if content.get("pair_id") is None else str(content["pair_id"]),
        kind=_kind(content, where),
        moment=_moment(content.get("ts"), where),
    )


def _require(content: dict[str, Any], names: Sequence[str], what: str, where: str) -> None:
    if missing := [name for name in names if name not in content]:
        raise DataError(f"{where} has no {missing}; {what} has {', '.join(names)}.")


def _kind(content: dict[str, Any], where: str) -> str | None:
    """What kind of question or statement it is, any word but the one for all of them."""
    kind = content.get("kind")
    if kind is None:
        return None
    if not isinstance(kind, str) or not kind.strip() or kind == ALL:
        raise DataError(f"{where} has kind {kind!r}; expected a word other than {ALL!r}, which stands for all kinds.")
    return kind


def _sentence(content: dict[str, Any], name: str, where: str) -> str:
    """A text that may be as short as a word, but not empty."""
    text = content[name]
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where} has {name} {text!r}; expected a text.")
    return text
