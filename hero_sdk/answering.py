"""Questions and statements about a video, as a bundle for them reads and answers them.

Both stages read the text together with the video, so a video is encoded again with each answer of each question. A video that is
longer than the model reads at once goes through windows; for each answer the window counts that speaks most for it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from hero_sdk.encoding import encode_packed, pad_clips
from hero_sdk.engines import Graphs
from hero_sdk.errors import InputError
from hero_sdk.manifest import ANSWER_GRAPH, STATEMENT_GRAPH, MomentSpec
from hero_sdk.rows import VideoInput, pack_videos
from hero_sdk.spans import best_spans
from hero_sdk.tokens import TextTokenizer, separated
from hero_sdk.types import Answer, FloatArray, IntArray, Judgement
from hero_sdk.video_features import VideoFeatures
from hero_sdk.video_inputs import video_inputs

logger = logging.getLogger(__name__)

PACKED_TOGETHER = 8
"""Questions, or statements, that share rows: enough to fill them; a question holds its video once per answer."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class QuestionInput:
    """What a model reads of a question: a video, or a window of one, and for each answer ``</s>`` question ``</s>`` answer."""

    video: VideoInput
    texts: tuple[IntArray, ...]


@dataclass(frozen=True)
class AnswerLogits:
    """What a model says about Q questions.

    Attributes:
        answer: (Q, A) float32, A the most answers that the bundle takes; low where a question has fewer.
        start, end: (Q, L) float32 of the first and the last clip of the moment that answers, low beyond the end of the video.
    """

    answer: FloatArray
    start: FloatArray
    end: FloatArray


def question_text(question: IntArray, answer: IntArray, limit: int) -> IntArray:
    """``</s>`` question ``</s>`` answer in at most ``limit`` tokens, cut at the end of the question, so that answers stay apart.

    Args:
        question, answer: int32 tokens, the separator in front, as ``hero_sdk.tokens.separated`` gives them.
        limit: ``query_tokens`` of the rows.
    """
    answer = answer[:limit]
    return np.concatenate([question[: limit - len(answer)], answer])


def score_answers(engine: Graphs, questions: Sequence[QuestionInput]) -> AnswerLogits:
    """Logits of the answers of questions and of the moments that answer them.

    Raises:
        InputError: no question, or more answers than the bundle takes.
        EngineError: a graph failed.
    """
    spec = next(tensor for tensor in engine.manifest.graphs[ANSWER_GRAPH].inputs if tensor.name == "clips")
    _, answers, clips, width = spec.shape
    for question in questions:
        if not 0 < len(question.texts) <= answers:
            raise InputError(
                f"A question has {len(question.texts)} answers and the bundle takes 1 to {answers}. "
                "Export it again with more --answers."
            )
    outputs = []
    for part in _parts(questions):
        videos = [question.video for question in part for _ in question.texts]
        texts = [text for question in part for text in question.texts]
        encoded = iter(encode_packed(engine, pack_videos(videos, engine.manifest.geometry, texts=texts)))
        inputs = {
            "clips": np.zeros((len(part), answers, clips, width), dtype=np.float32),
            "clip_mask": np.zeros((len(part), clips), dtype=bool),
            "answer_mask": np.zeros((len(part), answers), dtype=bool),
        }
        for number, question in enumerate(part):
            count = len(question.texts)
            padded, mask = pad_clips([next(encoded) for _ in range(count)], clips)
            inputs["clips"][number, :count], inputs["clip_mask"][number] = padded, mask[0]
            inputs["answer_mask"][number, :count] = True
        outputs.append(engine.run(ANSWER_GRAPH, inputs))
    return AnswerLogits(*(np.concatenate([output[name] for output in outputs]) for name in ("answer", "start", "end")))


def score_statements(engine: Graphs, statements: Sequence[tuple[VideoInput, IntArray]]) -> FloatArray:
    """Logits (S,) float32 of statements; one that is above 0 is taken for true.

    Args:
        engine: runs the graphs.
        statements: a video, or a window of one, and the tokens of ``</s>`` statement; at least one.

    Raises:
        InputError: no statement, or one that does not fit the rows.
        EngineError: a graph failed.
    """
    spec = next(tensor for tensor in engine.manifest.graphs[STATEMENT_GRAPH].inputs if tensor.name == "clips")
    logits = []
    for part in _parts(statements):
        packed = pack_videos([video for video, _ in part], engine.manifest.geometry, texts=[text for _, text in part])
        clips, mask = pad_clips(encode_packed(engine, packed), spec.shape[1])
        logits.append(engine.run(STATEMENT_GRAPH, {"clips": clips, "clip_mask": mask})["truth"][:, 0])
    return np.concatenate(logits)


def answer_questions(
    engine: Graphs, tokenizer: TextTokenizer, video: VideoFeatures, questions: Sequence[tuple[str, Sequence[str]]]
) -> list[Answer]:
    """Answer questions about a video, each with its answers; see ``Hero.answer``."""
    model = engine.manifest.model
    windows = video_inputs(video.features, video.subtitles, tokenizer, model)
    limit = engine.manifest.geometry.query_tokens
    inputs = []
    for question, answers in questions:
        asked = separated(tokenizer, question)
        offered = [separated(tokenizer, answer) for answer in answers]
        texts = tuple(question_text(asked, answer, limit) for answer in offered)
        if any(len(text) < len(asked) + len(answer) for text, answer in zip(texts, offered, strict=True)):
            logger.warning(
                "A question and its answer have more than %d tokens; the rest is cut: %.60s...", limit, question
            )
        inputs += [QuestionInput(window, texts) for _, window in windows]
    logits = score_answers(engine, inputs)

    duration = video.seconds(model.clip_interval)
    answered = []
    for number, (_, answers) in enumerate(questions):
        place = slice(number * len(windows), (number + 1) * len(windows))
        scores = logits.answer[place, : len(answers)].astype(np.float64)
        best = int(scores.max(axis=0).argmax())
        window = int(scores[:, best].argmax())
        clips = windows[window][0]
        # Any length: the interval of a question's moment has no protocol.
        moment = MomentSpec((), (), min_clips=1, max_clips=len(clips))
        start, end = (part[place][window, : len(clips)] for part in (logits.start, logits.end))
        span = best_spans(start, end, moment, limit=1)
        first, last = clips.start + int(span.first[0]), clips.start + int(span.last[0])
        until = min((last + 1) * model.clip_interval, duration)
        answered.append(
            Answer(
                index=best,
                text=answers[best],
                probabilities=tuple(_softmax(scores.max(axis=0)).tolist()),
                start=min(first * model.clip_interval, until),
                end=until,
            )
        )
    return answered


def judge_statements(
    engine: Graphs, tokenizer: TextTokenizer, video: VideoFeatures, statements: Sequence[str]
) -> list[Judgement]:
    """Judge statements about a video; see ``Hero.judge``."""
    windows = video_inputs(video.features, video.subtitles, tokenizer, engine.manifest.model)
    limit = engine.manifest.geometry.query_tokens
    texts = [separated(tokenizer, statement) for statement in statements]
    for statement, text in zip(statements, texts, strict=True):
        if len(text) > limit:
            logger.warning(
                "A statement has %d tokens and the model reads %d; the rest is cut: %.60s...",
                len(text),
                limit,
                statement,
            )
    logits = score_statements(engine, [(window, text[:limit]) for text in texts for _, window in windows])
    most = logits.reshape(len(statements), len(windows)).max(axis=1)
    return [Judgement(true=bool(logit > 0), probability=_sigmoid(float(logit))) for logit in most]


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), PACKED_TOGETHER):
        yield items[start : start + PACKED_TOGETHER]


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def _sigmoid(logit: float) -> float:
    # In the form whose exponential cannot overflow.
    small = math.exp(-abs(logit))
    return (1.0 if logit >= 0 else small) / (1.0 + small)
