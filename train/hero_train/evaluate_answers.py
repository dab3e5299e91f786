"""Evaluation of question answering and statements: what a model says, and how often that is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from hero_sdk.engines import Engine
from hero_sdk.rows import RowGeometry
from hero_train.data.answers import EncodedQuestion, EncodedStatement
from hero_train.evaluation import Evaluation
from hero_train.judged import answer_logits, evaluating, statement_logits
from hero_train.losses import IGNORED_TARGET
from hero_train.metrics_answers import JUDGEMENTS, Judged, measure_answers
from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements
from hero_train.model.hero import HeroEncoders

BATCH = 8

Item = TypeVar("Item")


def answer_questions(
    model: HeroForQuestionAnswering | Engine, questions: Sequence[EncodedQuestion], geometry: RowGeometry
) -> np.ndarray:
    """The place of the answer that a model, or an engine that runs its graphs, takes for right, (Q,) int64."""
    return _in_batches(model, questions, lambda part: answer_logits(model, part, geometry).argmax(axis=1))


def judge_statements(
    model: HeroForStatements | Engine, statements: Sequence[EncodedStatement], geometry: RowGeometry
) -> np.ndarray:
    """1 where a model, or an engine that runs its graphs, takes the statement for true and 0 where for false, (S,) int64."""
    return _in_batches(model, statements, lambda part: (statement_logits(model, part, geometry) > 0).astype(np.int64))


def _in_batches(
    model: HeroEncoders | Engine, items: Sequence[Item], say: Callable[[Sequence[Item]], np.ndarray]
) -> np.ndarray:
    with evaluating(model):
        said = [say(items[start : start + BATCH]) for start in range(0, len(items), BATCH)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *said])


def judged_questions(
    model: HeroForQuestionAnswering | Engine, questions: Sequence[EncodedQuestion], geometry: RowGeometry
) -> list[Judged]:
    """What the model says to the questions of a split whose answer is known, beside the right answer."""
    known = [question for question in questions if question.correct != IGNORED_TARGET]
    said = answer_questions(model, known, geometry).tolist()
    return [Judged(one.kind, place, one.correct, len(one.answers)) for one, place in zip(known, said, strict=True)]


def judged_statements(
    model: HeroForStatements | Engine, statements: Sequence[EncodedStatement], geometry: RowGeometry
) -> list[Judged]:
    """What the model says to the statements of a split whose label is known, beside the label."""
    known = [statement for statement in statements if statement.label is not None]
    said = judge_statements(model, known, geometry).tolist()
    return [Judged(one.kind, place, int(one.label is True), JUDGEMENTS) for one, place in zip(known, said, strict=True)]


def evaluate_questions(
    model: HeroForQuestionAnswering | Engine, questions: Sequence[EncodedQuestion], geometry: RowGeometry
) -> Evaluation:
    """``measure_answers`` of ``judged_questions``.

    Raises:
        DataError: no question whose answer is known.
    """
    return measure_answers(judged_questions(model, questions, geometry), "questions")


def evaluate_statements(
    model: HeroForStatements | Engine, statements: Sequence[EncodedStatement], geometry: RowGeometry
) -> Evaluation:
    """``measure_answers`` of ``judged_statements``.

    Raises:
        DataError: no statement whose label is known.
    """
    return measure_answers(judged_statements(model, statements, geometry), "statements")
