"""Evaluation of retrieval by the paper's protocol, through the same span search that is served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hero_sdk.engines import Engine
from hero_sdk.manifest import MomentSpec
from hero_sdk.rows import RowGeometry, pack_videos
from hero_sdk.spans import search_spans, video_similarity
from hero_sdk.tokens import TextTokenizer
from hero_sdk.types import FloatArray, IntArray
from hero_train.data.annotations import HiddenQuery
from hero_train.data.corpus import CorpusVideo
from hero_train.errors import DataError
from hero_train.evaluation import Evaluation
from hero_train.judged import clip_interval, encode_queries, encode_videos, evaluating, moment_spec
from hero_train.metrics import NOTHING, RANKS, UNKNOWN_VIDEO, QueryResult, Ranking, Searched, measure_retrieval
from hero_train.model.hero import HeroModel

BATCH = 16

DEPTH = max(RANKS)
"""Videos and moments per query."""


@dataclass(frozen=True)
class RetrievalPredictions:
    """What a model found for the queries of a split.

    Attributes:
        results: every moment competes.
        suppressed: the same queries, with moments that overlap a better one suppressed; None where the protocol has no suppression.
        video_ids: of the corpus, by the places that the results name.
        searched: clips, durations and protocol.
    """

    results: list[QueryResult]
    suppressed: list[QueryResult] | None
    video_ids: list[str]
    searched: Searched


def _batches(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def encode_corpus(model: HeroModel | Engine, corpus: Sequence[CorpusVideo], geometry: RowGeometry) -> list[FloatArray]:
    """Clip embeddings (clips, hidden) float32 of every video."""
    encoded: list[FloatArray] = []
    with evaluating(model):
        for part in _batches(len(corpus), BATCH):
            encoded += encode_videos(model, pack_videos([video.input for video in corpus[part]], geometry))
    return encoded


def encode_query_tokens(
    model: HeroModel | Engine, queries: Sequence[np.ndarray], geometry: RowGeometry
) -> tuple[FloatArray, FloatArray]:
    """Query vectors and span vectors, (Q, hidden) float32 each."""
    with evaluating(model):
        parts = [encode_queries(model, queries[part], geometry) for part in _batches(len(queries), 8 * BATCH)]
    vectors, span_vectors = zip(*parts, strict=True)
    return np.concatenate(vectors), np.concatenate(span_vectors)


@dataclass(frozen=True)
class _Asked:
    """A query to search for; ``seeks`` says whether it is about a moment, be it known or not."""

    query_id: str
    type: str
    tokens: IntArray
    seeks: bool
    video: int = UNKNOWN_VIDEO
    moments: tuple[tuple[float, float], ...] = ()


def search_corpus(
    model: HeroModel | Engine, corpus: Sequence[CorpusVideo], geometry: RowGeometry, moment: MomentSpec | None = None
) -> RetrievalPredictions:
    """Search the videos of a split for each of its queries.

    Args:
        model: put into evaluation mode for the time of the call; or an engine that runs its graphs.
        corpus: the split.
        geometry: rows to pack into; of an engine its bundle's.
        moment: search protocol; None takes the model's.

    Raises:
        DataError: the split has no query.
    """
    asked = [
        _Asked(annotation.query_id, query.type, query.tokens, bool(annotation.moments), number, annotation.moments)
        for number, video in enumerate(corpus)
        for query, annotation in zip(video.queries, video.annotations, strict=True)
    ]
    return _search(model, corpus, asked, geometry, moment or moment_spec(model))


def search_hidden(
    model: HeroModel | Engine,
    corpus: Sequence[CorpusVideo],
    queries: Sequence[HiddenQuery],
    tokenizer: TextTokenizer,
    geometry: RowGeometry,
    moment: MomentSpec | None = None,
) -> RetrievalPredictions:
    """Search a corpus for queries that do not tell which video they are about: VR and VCMR of a test split, to be handed in.

    Args:
        model, geometry, moment: as for ``search_corpus``.
        corpus: of ``build_videos``.
        queries: of ``read_hidden_queries``.
        tokenizer: of the model.

    Raises:
        DataError: no query.
    """
    asked = [_Asked(query.query_id, query.type, tokenizer.encode_query(query.text), True) for query in queries]
    return _search(model, corpus, asked, geometry, moment or moment_spec(model))


def _search(
    model: HeroModel | Engine,
    corpus: Sequence[CorpusVideo],
    asked: Sequence[_Asked],
    geometry: RowGeometry,
    moment: MomentSpec,
) -> RetrievalPredictions:
    if not asked:
        raise DataError("The split has no query to evaluate; check its annotation file.")
    clips = encode_corpus(model, corpus, geometry)
    vectors, span_vectors = encode_query_tokens(model, [query.tokens for query in asked], geometry)

    every, lengths = np.concatenate(clips), [len(part) for part in clips]
    durations, interval = [video.duration for video in corpus], clip_interval(model)
    similarity = video_similarity(vectors, every, lengths)
    protocols = [replace(moment, nms_iou=1.0), *([moment] if moment.nms_iou < 1.0 else [])]
    found: list[list[QueryResult]] = [[] for _ in protocols]
    for row, query in enumerate(asked):
        videos = np.argsort(-similarity[row], kind="stable")[:DEPTH]
        ranking = Ranking(videos, np.zeros((len(videos), 2)), similarity[row, videos].astype(np.float64))
        for protocol, results in zip(protocols, found, strict=True):
            own = anywhere = NOTHING
            if query.seeks:
                spans = search_spans(
                    vectors[row], span_vectors[row], every, lengths, protocol, DEPTH, similarity=similarity[row]
                )
                anywhere = Ranking(spans.video, spans.times(interval, durations), spans.score)
            if query.seeks and query.video != UNKNOWN_VIDEO:
                within = clips[query.video]
                spans = search_spans(vectors[row], span_vectors[row], within, [len(within)], protocol, DEPTH)
                times = spans.times(interval, durations[query.video : query.video + 1])
                own = Ranking(np.full(len(spans), query.video), times, spans.score)
            results.append(QueryResult(query.query_id, query.type, query.video, query.moments, ranking, anywhere, own))
    return RetrievalPredictions(
        results=found[0],
        suppressed=found[1] if len(found) > 1 else None,
        video_ids=[video.video_id for video in corpus],
        searched=Searched(lengths, durations, interval, moment),
    )


def evaluate_retrieval(
    model: HeroModel | Engine, corpus: Sequence[CorpusVideo], geometry: RowGeometry, moment: MomentSpec | None = None
) -> Evaluation:
    """``measure_retrieval`` of what ``search_corpus`` finds; arguments and errors as there."""
    found = search_corpus(model, corpus, geometry, moment)
    return measure_retrieval(found.results, found.suppressed, found.searched)
