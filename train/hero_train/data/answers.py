"""Questions in the format of TVQA and statements in that of VIOLIN, from annotation files to batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hero_sdk.answering import QuestionInput, question_text
from hero_sdk.rows import PackedVideos, RowGeometry, VideoInput, pack_videos
from hero_sdk.tokens import TextTokenizer, separated
from hero_sdk.types import IntArray
from hero_train.config import HeroConfig
from hero_train.data.annotations import Rounding, moment_clips, read_json_lines
from hero_train.data.corpus import build_input, read_all_subtitles
from hero_train.data.features import VideoFeatures
from hero_train.errors import DataError
from hero_train.evaluation import ALL
from hero_train.losses import IGNORED_TARGET


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
