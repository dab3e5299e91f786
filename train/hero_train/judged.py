"""What an evaluation asks: a model in PyTorch, or an engine of the SDK that runs the graphs of a bundle.

The questions are the same, and so is all that is made of the answers: an engine is judged by the evaluation that judged the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from hero_sdk import answering, captioning
from hero_sdk.encoding import encode_packed
from hero_sdk.engines import Engine
from hero_sdk.errors import InputError
from hero_sdk.manifest import QUERY_GRAPH, STEP_GRAPH, MomentSpec
from hero_sdk.rows import PackedVideos, RowGeometry, pack_queries
from hero_sdk.sentence_search import BeamConfig
from hero_sdk.types import FloatArray, IntArray
from hero_train.data.answers import (
    EncodedQuestion,
    EncodedStatement,
    collate_questions,
    collate_statements,
    question_inputs,
    statement_inputs,
)
from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements
from hero_train.model.captioning import CAPTION_LIMIT, HeroForCaptioning
from hero_train.model.hero import HeroEncoders, HeroModel


@contextmanager
def evaluating(judged: HeroEncoders | Engine) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients, and back again; an engine has one mode."""
    if not isinstance(judged, HeroEncoders):
        yield
        return
    training = judged.training
    judged.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        judged.train(training)


def clip_interval(judged: HeroEncoders | Engine) -> float:
    """Seconds per clip."""
    return judged.config.clip_interval if isinstance(judged, HeroEncoders) else judged.manifest.model.clip_interval


def moment_spec(judged: HeroModel | Engine) -> MomentSpec:
    """The moment head and the search protocol."""
    return judged.moment_spec() if isinstance(judged, HeroModel) else judged.manifest.require_moment()


def encode_videos(judged: HeroEncoders | Engine, packed: PackedVideos) -> list[FloatArray]:
    """Clip embeddings (clips, hidden) float32 of packed videos."""
    if isinstance(judged, HeroEncoders):
        return packed.unpack(judged.encode_videos(packed).float().cpu().numpy())
    return encode_packed(judged, packed)


def encode_queries(
    judged: HeroModel | Engine, queries: Sequence[IntArray], geometry: RowGeometry
) -> tuple[FloatArray, FloatArray]:
    """Query vectors and span vectors of tokens with ``<s>`` in front, (Q, hidden) float32 each."""
    inputs = dict(zip(("token_ids", "segment_ids"), pack_queries(queries, geometry.query_tokens), strict=True))
    if isinstance(judged, HeroModel):
        output = judged.encode_queries(**judged.tensors(inputs))
        return output.vector.float().cpu().numpy(), output.span_vector.float().cpu().numpy()
    arrays = judged.run(QUERY_GRAPH, inputs)
    return arrays["query_vector"], arrays["span_vector"]


def answer_logits(
    judged: HeroForQuestionAnswering | Engine, questions: Sequence[EncodedQuestion], geometry: RowGeometry
) -> FloatArray:
    """Logits (Q, A) of the answers of questions that have equally many."""
    if isinstance(judged, HeroForQuestionAnswering):
        batch = collate_questions(questions, geometry)
        return judged(batch.packed, batch.answers).answer.float().cpu().numpy()
    scores = answering.score_answers(judged, question_inputs(questions, geometry)).answer
    return scores[:, : len(questions[0].answers)]


def statement_logits(
    judged: HeroForStatements | Engine, statements: Sequence[EncodedStatement], geometry: RowGeometry
) -> FloatArray:
    """Logits (S,) of statements; one above 0 is taken for true."""
    if isinstance(judged, HeroForStatements):
        return judged(collate_statements(statements, geometry).packed).float().cpu().numpy()
    return answering.score_statements(judged, statement_inputs(statements, geometry))


def caption_limit(judged: HeroForCaptioning | Engine) -> int:
    """Most tokens of a caption, its end included: the authors', or what a bundle was exported for."""
    if isinstance(judged, HeroForCaptioning):
        return CAPTION_LIMIT
    cache = next(tensor for tensor in judged.manifest.graphs[STEP_GRAPH].inputs if tensor.name == "cache")
    return cache.shape[4]


def write_captions(
    judged: HeroForCaptioning | Engine,
    packed: PackedVideos,
    moments: IntArray,
    *,
    limit: int | None = None,
    beam: BeamConfig | None = None,
) -> list[IntArray]:
    """The tokens of a caption for each moment, without begin and end.

    Args:
        judged: writes them.
        packed, moments: as for ``HeroForCaptioning.encode_moments``.
        limit: most tokens, the end included; None takes ``caption_limit``. An engine writes up to its own limit only.
        beam: search with a beam; None takes the most probable word each time.

    Raises:
        InputError: another limit than the engine's.
    """
    own = caption_limit(judged)
    if isinstance(judged, HeroForCaptioning):
        return judged.caption(packed, moments, limit=own if limit is None else limit, beam=beam)
    if limit not in (None, own):
        raise InputError(
            f"Captions of up to {limit} tokens were asked for; the bundle writes up to {own}. Ask for {own}."
        )
    encoded = encode_packed(judged, packed)
    return captioning.write_captions(
        judged, [encoded[video][first:stop] for video, first, stop in moments.tolist()], beam
    )
