"""Accuracy of answers to questions and of judgements of statements, beside guessing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hero_train.data.answer_annotations import Question, Statement
from hero_train.errors import DataError
from hero_train.evaluation import Evaluation, Metrics, baseline_by_group, by_group

ANSWER_METRICS = ("accuracy",)
"""The names of what an evaluation of answers measures."""

JUDGEMENTS = 2
"""A statement is true or false."""


@dataclass(frozen=True)
class Judged:
    """An answer beside the right one.

    Attributes:
        kind: of the question or statement; None where the annotation does not tell.
        said, right: places of the answer that was given and of the right one; for a statement 1 is true and 0 is false.
        choices: how many answers there were to choose from.
    """

    kind: str | None
    said: int
    right: int
    choices: int


def measure_answers(judged: Sequence[Judged], what: str) -> Evaluation:
    """Accuracy over all and by kind, beside two ways to guess.

    ``chance`` chooses any answer alike. ``majority`` always says what is right most often in what is evaluated, be it a place or
    true: the best that one can do without looking.

    Args:
        judged: the answers.
        what: they are, in the plural: "questions" or "statements".

    Raises:
        DataError: no answer.
    """
    if not judged:
        raise DataError(f"The split has no {what} whose answer is known; check its annotation file.")
    guessing = {"chance": _chance, "majority": _majority}
    baselines: dict[str, Metrics] = {}
    for name, guess in guessing.items():
        baselines |= baseline_by_group(name, by_group(judged, _kind, guess))
    return Evaluation(by_group(judged, _kind, _accuracy), baselines, {what: len(judged)})


def measure_questions(said: Mapping[str, int], questions: Sequence[Question]) -> Evaluation:
    """``measure_answers`` of what was said, by the question's id, on the questions whose answer is known."""
    return measure_answers(
        [
            Judged(one.kind, said[one.question_id], one.correct, len(one.answers))
            for one in questions
            if one.correct is not None
        ],
        "questions",
    )


def measure_statements(said: Mapping[str, int], statements: Sequence[Statement]) -> Evaluation:
    """``measure_answers`` of what was said, by the statement's id, on the statements whose label is known."""
    return measure_answers(
        [
            Judged(one.kind, said[one.statement_id], int(one.label), JUDGEMENTS)
            for one in statements
            if one.label is not None
        ],
        "statements",
    )


def _kind(one: Judged) -> str | None:
    return one.kind


def _accuracy(judged: Sequence[Judged]) -> Metrics:
    return {"accuracy": sum(one.said == one.right for one in judged) / len(judged)}


def _chance(judged: Sequence[Judged]) -> Metrics:
    return {"accuracy": sum(1 / one.choices for one in judged) / len(judged)}


def _majority(judged: Sequence[Judged]) -> Metrics:
    return {"accuracy": max(Counter(one.right for one in judged).values()) / len(judged)}
