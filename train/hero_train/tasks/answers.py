"""Question answering (TVQA, How2QA) and statements (VIOLIN): from a batch to its loss."""

from __future__ import annotations

from torch import Tensor, nn

from hero_train.data.answers import QuestionBatch, StatementBatch
from hero_train.gathering import Processes
from hero_train.losses_answers import SPAN_WEIGHT, QuestionLoss, question_loss, statement_loss
from hero_train.model.answers import AnswerOutput, HeroForQuestionAnswering, HeroForStatements

# In half precision the losses would lose the small differences that they are made of, hence the float().


class QuestionTask(nn.Module):
    """A model with its loss on questions, as one module: what distributed training wraps.

    Args:
        model: the model to train.
        span_weight: of the moment beside the answer.
    """

    def __init__(self, model: HeroForQuestionAnswering, span_weight: float = SPAN_WEIGHT) -> None:
        super().__init__()
        self.model = model
        self.span_weight = span_weight

    def forward(self, batch: QuestionBatch) -> QuestionLoss:
        """The loss of one batch; in training, that of the joint batch of all processes."""
        output = self.model(batch.packed, batch.answers)
        targets = self.model.tensors({"correct": batch.correct, "moments": batch.moments})
        whole = AnswerOutput(output.answer.float(), output.start.float(), output.end.float())
        processes = Processes.in_training(self.training)
        return question_loss(whole, targets["correct"], targets["moments"], self.span_weight, processes)


class StatementTask(nn.Module):
    """A model with its loss on statements, as one module: what distributed training wraps."""

    def __init__(self, model: HeroForStatements) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: StatementBatch) -> Tensor:
        """The loss of one batch, a scalar; in training, that of the joint batch of all processes."""
        labels = self.model.tensors({"labels": batch.labels})["labels"]
        processes = Processes.in_training(self.training)
        return statement_loss(self.model(batch.packed).float(), labels, processes)
