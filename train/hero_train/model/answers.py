"""Video question answering (TVQA, How2QA) and judging statements (VIOLIN).

Both read a video together with a text: stage 1 has it at the end of every subtitle, stage 2 after the frames, where it enters as
embeddings. ``hero_sdk.rows.pack_videos`` packs both when it is given ``texts``. A question is read once with each of its answers,
so its video is packed that often; what the text does not reach, the projection of the frames, is a small part of the work and is
computed for each copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from hero_sdk.errors import InputError
from hero_sdk.rows import PackedVideos, TextTemporalRows
from hero_train.config import HeroConfig
from hero_train.model.classifier import Classifier
from hero_train.model.hero import HeroEncoders
from hero_train.model.layers import run_layers, segment_mask
from hero_train.model.moment import MASKED_LOGIT


class QuestionAnsweringConfig(HeroConfig):
    """Sizes of a ``HeroForQuestionAnswering``."""

    task: ClassVar[str] = "question answering"


class StatementsConfig(HeroConfig):
    """Sizes of a ``HeroForStatements``."""

    task: ClassVar[str] = "statements"


@dataclass(frozen=True)
class AnswerOutput:
    """What a model says about Q questions with A answers each, on videos of up to L clips.

    Attributes:
        answer: (Q, A) logits of the answers.
        start, end: (Q, L) logits of the first and last clip of the moment that answers, ``MASKED_LOGIT`` beyond the end.
    """

    answer: Tensor
    start: Tensor
    end: Tensor


class HeroWithText(HeroEncoders):
    """Encoders that read a video together with a text about it."""

    def embed_with_text(self, packed: PackedVideos) -> Tensor:
        """What stage 2 reads: frames after stage 1, and embedded tokens, in temporal rows (R, S, hidden).

        Raises:
            InputError: the videos were packed without texts.
        """
        _require_texts(packed)
        rows = self.tensors(packed.temporal.arrays())
        return self.embed_rows(rows["frame_features"], rows["position_ids"], rows["token_ids"], self.matched(packed))

    def embed_rows(self, frame_features: Tensor, position_ids: Tensor, token_ids: Tensor, matched: Tensor) -> Tensor:
        """``embed_with_text`` on tensors; see ``hero_sdk.rows.TextTemporalRows`` for them: (R, S, hidden)."""
        # A slot looks up both tables, and a text may be longer than the one, a video than the other.
        last_frame, last_token = (
            table.num_embeddings - 1 for table in (self.temporal.position, self.cross_modal.text.position)
        )
        frames = self.temporal.embed(frame_features, matched, position_ids.clamp(max=last_frame))
        words = self.cross_modal.text(token_ids.clamp(min=0), position_ids.clamp(max=last_token))
        return torch.where(token_ids[..., None] >= 0, words, frames)

    def encode_rows(
        self, frame_features: Tensor, position_ids: Tensor, segment_ids: Tensor, token_ids: Tensor, matched: Tensor
    ) -> Tensor:
        """Stage 2 over frames and text; see ``hero_sdk.rows.TextTemporalRows`` for the inputs.

        Args:
            matched: (R, S, hidden) stage-1 output of each frame, zero where no subtitle owns it.

        Returns:
            (R, S, hidden): clip embeddings in the slots of frames.
        """
        embedded = self.embed_rows(frame_features, position_ids, token_ids, matched)
        return run_layers(self.temporal.layers, embedded, segment_mask(segment_ids))

    def encode_with_text(self, packed: PackedVideos) -> tuple[Tensor, Tensor]:
        """Both stages: each video's clips (V, L, hidden), zero beyond its end, and their mask (V, L) bool.

        Raises:
            InputError: the videos were packed without texts.
        """
        _require_texts(packed)
        rows = self.tensors(packed.temporal.arrays())
        return self.unpack(packed, self.encode_rows(**rows, matched=self.matched(packed)))


def _require_texts(packed: PackedVideos) -> None:
    if not isinstance(packed.temporal, TextTemporalRows):
        raise InputError("The videos were packed without texts; pass texts to pack_videos.")


def pool(scores: Tensor, hidden: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Attention pooling over one dimension.

    Args:
        scores: (..., 1), by a linear map of ``hidden``.
        hidden: (..., hidden).
        mask: (...) bool, False where nothing is to be read.
        dim: the dimension that is pooled, which goes.
    """
    weights = scores.masked_fill(~mask[..., None], MASKED_LOGIT).softmax(dim=dim)
    return (weights * hidden).sum(dim=dim)


class HeroForQuestionAnswering(HeroWithText):
    """Which of several answers is right, and when the video shows it."""

    config_class = QuestionAnsweringConfig

    def __init__(self, config: HeroConfig) -> None:
        super().__init__(QuestionAnsweringConfig.of(config))
        self.answer_pool = nn.Linear(config.hidden_size, 1, bias=False)
        self.answer = Classifier(config.hidden_size, 1)
        self.span_pool = nn.Linear(config.hidden_size, 1, bias=False)
        self.span = Classifier(config.hidden_size, 2)

    def forward(self, packed: PackedVideos, answers: int) -> AnswerOutput:
        """Answer questions.

        Args:
            packed: Q * A videos with texts, ``</s>`` question ``</s>`` answer: the answers of one question follow one another.
            answers: A, the number of answers of each question.

        Raises:
            InputError: a number of videos that is no multiple of A, answers of one question with videos of different
                length, or videos that were packed without texts.
        """
        lengths = [span.length for span in packed.videos]
        if answers < 1 or len(lengths) % answers:
            raise InputError(
                f"{len(lengths)} videos were packed for questions of {answers} answers; pass one per answer."
            )
        groups = [lengths[start : start + answers] for start in range(0, len(lengths), answers)]
        for number, group in enumerate(groups):
            if len(set(group)) > 1:
                raise InputError(
                    f"The answers of question {number} have videos of {group} frames; pack one video with all answers."
                )
        clips, mask = self.encode_with_text(packed)
        clips, mask = clips.unflatten(0, (-1, answers)), mask.unflatten(0, (-1, answers))
        return self.head(clips, mask[:, 0], mask.any(dim=2))

    def head(self, clips: Tensor, clip_mask: Tensor, answer_mask: Tensor) -> AnswerOutput:
        """From the clips of a video, encoded once with each answer, to logits.

        Args:
            clips: (Q, A, L, hidden).
            clip_mask: (Q, L) bool, False beyond a video's end.
            answer_mask: (Q, A) bool, False where a question has fewer answers than others.

        Returns:
            The logits; ``MASKED_LOGIT`` for answers that a question has not.
        """
        mask = answer_mask[:, :, None] & clip_mask[:, None]
        answer = self.answer(pool(self.answer_pool(clips), clips, mask, dim=2)).squeeze(-1)
        edges = self.span(pool(self.span_pool(clips), clips, mask, dim=1)).masked_fill(
            ~clip_mask[:, :, None], MASKED_LOGIT
        )
        return AnswerOutput(answer.masked_fill(~answer_mask, MASKED_LOGIT), *edges.unbind(dim=-1))


class HeroForStatements(HeroWithText):
    """Whether a statement about a video is true."""

    config_class = StatementsConfig

    def __init__(self, config: HeroConfig) -> None:
        super().__init__(StatementsConfig.of(config))
        self.truth_pool = nn.Linear(config.hidden_size, 1, bias=False)
        self.truth = Classifier(config.hidden_size, 1)

    def forward(self, packed: PackedVideos) -> Tensor:
        """Logits (V,) of the statements, ``</s>`` statement, that the videos were packed with; true is above 0.

        Raises:
            InputError: the videos were packed without texts.
        """
        return self.head(*self.encode_with_text(packed))

    def head(self, clips: Tensor, clip_mask: Tensor) -> Tensor:
        """Logits (V,) from the clips of videos, encoded with a statement each: (V, L, hidden), (V, L) bool."""
        return self.truth(pool(self.truth_pool(clips), clips, clip_mask, dim=1)).squeeze(-1)
