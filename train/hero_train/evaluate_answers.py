"""Evaluation of question answering and statements: what a model says, and how often that is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from hero_sdk.rows import RowGeometry
from hero_train.data.answers import EncodedQuestion, EncodedStatement, collate_questions, collate_statements
from hero_train.evaluation import Evaluation
from hero_train.losses import IGNORED_TARGET
from hero_train.metrics_answers import JUDGEMENTS, Judged, measure_answers
from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements, HeroWithText

BATCH = 8

Item = TypeVar("Item")


def answer_questions(
    model: HeroForQuestionAnswering, questions: Sequence[EncodedQuestion], geometry: RowGeometry
) -> np.ndarray:
    """The place of the answer that the model takes for right, (Q,) int64."""

    def best(part: Sequence[EncodedQuestion]) -> Tensor:
        batch = collate_questions(part, geometry)
        return model(batch.packed, batch.answers).answer.argmax(dim=1)

    return _in_batches(model, questions, best)


def judge_statements(
    model: HeroForStatements, statements: Sequence[EncodedStatement], geometry: RowGeometry
) -> np.ndarray:
    """1 where the model takes the statement for true and 0 where for false, (S,) int64."""
    return _in_batches(
        model, statements, lambda part: (model(collate_statements(part, geometry).packed) > 0).to(torch.int64)
    )


@torch.inference_mode()
def _in_batches(model: HeroWithText, items: Sequence[Item], say: Callable[[Sequence[Item]], Tensor]) -> np.ndarray:
    training = model.training
    model.eval()
    said = [say(items[start : start + BATCH]).cpu().numpy() for start in range(0, len(items), BATCH)]
    model.train(training)
    return np.concatenate([np.zeros(0, dtype=np.int64), *said])


def evaluate_questions(
    model: HeroForQuestionAnswering, questions: Sequence[EncodedQuestion], geometry: RowGeometry
) -> Evaluation:
    """``measure_answers`` of what the model says to the questions of a split whose answer is known.

    Raises:
        DataError: no question whose answer is known.
    """
    known = [question for question in questions if question.correct != IGNORED_TARGET]
    said = answer_questions(model, known, geometry).tolist()
    judged = [Judged(one.kind, place, one.correct, len(one.answers)) for one, place in zip(known, said, strict=True)]
    return measure_answers(judged, "questions")


def evaluate_statements(
    model: HeroForStatements, statements: Sequence[EncodedStatement], geometry: RowGeometry
) -> Evaluation:
    """``measure_answers`` of what the model says to the statements of a split whose label is known.

    Raises:
        DataError: no statement whose label is known.
    """
    known = [statement for statement in statements if statement.label is not None]
    said = judge_statements(model, known, geometry).tolist()
    judged = [
        Judged(one.kind, place, int(one.label is True), JUDGEMENTS) for one, place in zip(known, said, strict=True)
    ]
    return measure_answers(judged, "statements")
