"""Questions and statements as the models read them: encoded with their videos, and packed into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hero_sdk.answering import QuestionInput, question_text
from hero_sdk.rows import PackedVideos, RowGeometry, VideoInput, pack_videos
from hero_sdk.tokens import TextTokenizer, separated
from hero_sdk.types import IntArray
from hero_train.config import HeroConfig
from hero_train.data.annotations import Rounding, moment_clips
from hero_train.data.answer_annotations import Question, Statement
from hero_train.data.corpus import build_input, read_all_subtitles
from hero_train.data.features import VideoFeatures
from hero_train.errors import DataError
from hero_train.losses import IGNORED_TARGET

UNKNOWN_MOMENT = (IGNORED_TARGET, IGNORED_TARGET)


@dataclass(frozen=True)
class EncodedQuestion:
    """A question as the model reads it.

    Attributes:
        question_id: of the annotation.
        video: what the encoders read of its video.
        tokens: ``</s>`` and the tokens of the question, int32.
        answers: ``</s>`` and the tokens of each answer, int32.
        correct: place of the right answer, or ``IGNORED_TARGET``.
        moment: first and last clip of the moment, both inclusive, or ``UNKNOWN_MOMENT``.
        kind: as in ``Question``.
    """

    question_id: str
    video: VideoInput
    tokens: IntArray
    answers: tuple[IntArray, ...]
    correct: int
    moment: tuple[int, int]
    kind: str | None = None


@dataclass(frozen=True)
class EncodedStatement:
    """A statement as the model reads it: its video, the tokens of ``</s>`` statement, its moment in clips; the rest as in
    ``Statement`` and ``EncodedQuestion``."""

    statement_id: str
    video: VideoInput
    tokens: IntArray
    label: bool | None
    pair: str | None = None
    kind: str | None = None
    moment: tuple[int, int] = UNKNOWN_MOMENT


@dataclass(frozen=True)
class QuestionBatch:
    """Q questions of A answers each.

    Attributes:
        packed: the video of each question A times, once with each answer.
        answers: A.
        correct: (Q,) int64, ``IGNORED_TARGET`` where unknown.
        moments: (Q, 2) int64 first and last clip, both inclusive; ``IGNORED_TARGET`` where unknown.
        cut_tokens: how many tokens of questions and answers were cut.
    """

    packed: PackedVideos
    answers: int
    correct: np.ndarray
    moments: np.ndarray
    cut_tokens: int


@dataclass(frozen=True)
class StatementBatch:
    """S statements.

    Attributes:
        packed: the video of each, with the statement.
        labels: (S,) int64, 1 true, 0 false, ``IGNORED_TARGET`` where unknown.
        cut_tokens: how many tokens of statements were cut.
    """

    packed: PackedVideos
    labels: np.ndarray
    cut_tokens: int


def encode_questions(
    questions: Sequence[Question],
    features: dict[str, VideoFeatures],
    subtitles: Path | None,
    tokenizer: TextTokenizer,
    config: HeroConfig,
    rounding: Rounding = "outward",
) -> list[EncodedQuestion]:
    """Questions with what the encoders read of their videos, each video once in memory.

    A moment beyond the clips that are read, up to the clip limit, counts as unknown.

    Args:
        questions: of a file.
        features: of the videos, by id.
        subtitles: folder of the subtitle files; None reads none.
        tokenizer: of the model.
        config: of the model.
        rounding: from seconds to clips, see ``moment_clips``.

    Raises:
        DataError: a question about a video without features.
    """
    videos = _read_videos(
        [(one.question_id, one.video_id) for one in questions], features, subtitles, tokenizer, config
    )
    encoded = []
    for question in questions:
        video = videos[question.video_id]
        answers = tuple(separated(tokenizer, answer) for answer in question.answers)
        correct = IGNORED_TARGET if question.correct is None else question.correct
        encoded.append(
            EncodedQuestion(
                question.question_id,
                video,
                separated(tokenizer, question.text),
                answers,
                correct,
                _clips_of(question.moment, video, config, rounding),
                question.kind,
            )
        )
    return encoded


def encode_statements(
    statements: Sequence[Statement],
    features: dict[str, VideoFeatures],
    subtitles: Path | None,
    tokenizer: TextTokenizer,
    config: HeroConfig,
    rounding: Rounding = "outward",
) -> list[EncodedStatement]:
    """Statements with what the encoders read of their videos; arguments and errors as for ``encode_questions``."""
    videos = _read_videos(
        [(one.statement_id, one.video_id) for one in statements], features, subtitles, tokenizer, config
    )
    return [
        EncodedStatement(
            one.statement_id,
            videos[one.video_id],
            separated(tokenizer, one.text),
            one.label,
            one.pair,
            one.kind,
            _clips_of(one.moment, videos[one.video_id], config, rounding),
        )
        for one in statements
    ]


def _clips_of(
    moment: tuple[float, float] | None, video: VideoInput, config: HeroConfig, rounding: Rounding
) -> tuple[int, int]:
    """First and last clip of a moment."""
    clips = len(video.features)
    if moment is None or moment[0] >= clips * config.clip_interval:
        return UNKNOWN_MOMENT
    return moment_clips(*moment, config.clip_interval, clips, rounding)


def _read_videos(
    wanted: Sequence[tuple[str, str]],
    features: dict[str, VideoFeatures],
    subtitles: Path | None,
    tokenizer: TextTokenizer,
    config: HeroConfig,
) -> dict[str, VideoInput]:
    """The videos that annotations, as (id, video id), are about."""
    for annotation, video_id in wanted:
        if video_id not in features:
            raise DataError(f"Annotation {annotation} is about the video {video_id}, which has no features.")
    spoken = read_all_subtitles(subtitles, (video_id for _, video_id in wanted))
    return {video_id: build_input(features[video_id], said, tokenizer, config) for video_id, said in spoken.items()}


def collate_questions(questions: Sequence[EncodedQuestion], geometry: RowGeometry) -> QuestionBatch:
    """Pack questions with equally many answers.

    A question and an answer that have more than ``geometry.query_tokens`` together are cut at the end of the question, so that
    the answers stay apart.

    Raises:
        DataError: no question, or questions with different numbers of answers.
        InputError: a video or a text that does not fit the rows.
    """
    counts = {len(question.answers) for question in questions}
    if len(counts) != 1:
        raise DataError(
            f"A batch has questions of {sorted(counts)} answers; expected questions of one number of answers."
        )
    inputs = question_inputs(questions, geometry)
    copies = [one.video for one in inputs for _ in one.texts]
    texts = [text for one in inputs for text in one.texts]
    whole = sum(len(question.tokens) + len(answer) for question in questions for answer in question.answers)
    return QuestionBatch(
        packed=pack_videos(copies, geometry, texts=texts),
        answers=counts.pop(),
        correct=np.array([question.correct for question in questions], dtype=np.int64),
        moments=np.array([question.moment for question in questions], dtype=np.int64),
        cut_tokens=whole - sum(map(len, texts)),
    )


def question_inputs(questions: Sequence[EncodedQuestion], geometry: RowGeometry) -> list[QuestionInput]:
    """Questions as the SDK reads them, each answer with the question before it, cut to ``geometry.query_tokens``."""
    limit = geometry.query_tokens
    return [
        QuestionInput(one.video, tuple(question_text(one.tokens, answer, limit) for answer in one.answers))
        for one in questions
    ]


def statement_inputs(
    statements: Sequence[EncodedStatement], geometry: RowGeometry
) -> list[tuple[VideoInput, IntArray]]:
    """Statements as the SDK reads them, cut to ``geometry.query_tokens``."""
    return [(one.video, one.tokens[: geometry.query_tokens]) for one in statements]


def collate_statements(statements: Sequence[EncodedStatement], geometry: RowGeometry) -> StatementBatch:
    """Pack statements; those longer than ``geometry.query_tokens`` are cut.

    Raises:
        InputError: no statement, or a video or a statement that does not fit the rows.
    """
    inputs = statement_inputs(statements, geometry)
    texts = [text for _, text in inputs]
    packed = pack_videos([video for video, _ in inputs], geometry, texts=texts)
    cut = sum(len(one.tokens) - len(text) for one, text in zip(statements, texts, strict=True))
    labels = [IGNORED_TARGET if one.label is None else int(one.label) for one in statements]
    return StatementBatch(packed, np.array(labels, dtype=np.int64), cut)
