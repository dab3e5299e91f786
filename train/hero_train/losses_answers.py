"""Objectives of question answering (TVQA, How2QA) and of judging statements (VIOLIN)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from hero_train.gathering import ALONE, Processes
from hero_train.losses import IGNORED_TARGET, span_loss
from hero_train.model.answers import AnswerOutput

SPAN_WEIGHT = 0.4
"""Of the moment beside the answer, as in the paper."""


@dataclass(frozen=True)
class QuestionLoss:
    """The weighted parts of the loss; each a scalar."""

    answer: Tensor
    span: Tensor

    @property
    def total(self) -> Tensor:
        """What training minimises."""
        return self.answer + self.span


def question_loss(
    output: AnswerOutput,
    correct: Tensor,
    moments: Tensor,
    span_weight: float = SPAN_WEIGHT,
    processes: Processes = ALONE,
) -> QuestionLoss:
    """Cross-entropy of the answer, and the mean of those of start and end: each over the questions where it is known.

    Args:
        output: of the model, for Q questions.
        correct: (Q,) the right answer, ``IGNORED_TARGET`` where unknown.
        moments: (Q, 2) first and last clip of the moment, both inclusive; ``IGNORED_TARGET`` where unknown.
        span_weight: of start and end.
        processes: over whose batches the means are.
    """
    answer = F.cross_entropy(output.answer, correct.long(), ignore_index=IGNORED_TARGET, reduction="sum")
    span = (span_loss(output.start, output.end, moments) / 2).sum()
    return QuestionLoss(
        answer=processes.mean(answer, (correct != IGNORED_TARGET).sum()),
        span=span_weight * processes.mean(span, (moments != IGNORED_TARGET).all(dim=1).sum()),
    )


def statement_loss(logits: Tensor, labels: Tensor, processes: Processes = ALONE) -> Tensor:
    """Binary cross-entropy, the mean over the statements whose label is known.

    Args:
        logits: (S,).
        labels: (S,) 1 (true), 0 (false) or ``IGNORED_TARGET``.
        processes: over whose batches the mean is.
    """
    known = labels != IGNORED_TARGET
    loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    return processes.mean((loss * known).sum(), known.sum())
