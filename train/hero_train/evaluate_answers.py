"""Evaluation of question answering and statements: accuracy, beside chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from hero_sdk.rows import RowGeometry
from hero_train.data.answers import EncodedQuestion, EncodedStatement, collate_questions, collate_statements
from hero_train.errors import DataError
from hero_train.losses import IGNORED_TARGET
from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements, HeroWithText

BATCH = 8

Item = TypeVar("Item")


@dataclass(frozen=True)
class AnswerEvaluation:
    """Accuracy on the annotations whose answer is known, and what guessing would get, in [0, 1].

    For statements, guessing is to say always what is true more often.
    """

    accuracy: float
    chance: float
    count: int


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
) -> AnswerEvaluation:
    """Answer the questions of a split.

    Raises:
        DataError: no question whose answer is known.
    """
    known = [question for question in questions if question.correct != IGNORED_TARGET]
    _require_any(known, "question")
    right = answer_questions(model, known, geometry) == [question.correct for question in known]
    chance = np.mean([1 / len(question.answers) for question in known])
    return AnswerEvaluation(float(right.mean()), float(chance), len(known))


def evaluate_statements(
    model: HeroForStatements, statements: Sequence[EncodedStatement], geometry: RowGeometry
) -> AnswerEvaluation:
    """Judge the statements of a split.

    Raises:
        DataError: no statement whose label is known.
    """
    known = [statement for statement in statements if statement.label is not None]
    _require_any(known, "statement")
    right = judge_statements(model, known, geometry) == [statement.label for statement in known]
    true = float(np.mean([statement.label for statement in known]))
    return AnswerEvaluation(float(right.mean()), max(true, 1 - true), len(known))


def _require_any(known: Sequence[object], what: str) -> None:
    if not known:
        raise DataError(f"The split has no {what} whose answer is known; check its annotation file.")
