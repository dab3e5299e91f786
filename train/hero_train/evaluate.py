"""Evaluation of retrieval by the paper's protocol, through the same span search that is served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from hero_sdk.manifest import MomentSpec
from hero_sdk.rows import RowGeometry, pack_queries, pack_videos
from hero_sdk.spans import Spans, search_spans, video_similarity
from hero_sdk.types import FloatArray
from hero_train.data.corpus import CorpusVideo
from hero_train.errors import DataError
from hero_train.evaluation import Evaluation
from hero_train.metrics import NOTHING, RANKS, QueryResult, Ranking, Searched, measure_retrieval
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


@torch.inference_mode()
def encode_corpus(model: HeroModel, corpus: Sequence[CorpusVideo], geometry: RowGeometry) -> list[FloatArray]:
    """Clip embeddings (clips, hidden) float32 of every video."""
    encoded: list[FloatArray] = []
    for part in _batches(len(corpus), BATCH):
        packed = pack_videos([video.input for video in corpus[part]], geometry)
        encoded += packed.unpack(model.encode_videos(packed).float().cpu().numpy())
    return encoded


@torch.inference_mode()
def encode_query_tokens(
    model: HeroModel, queries: Sequence[np.ndarray], geometry: RowGeometry
) -> tuple[FloatArray, FloatArray]:
    """Query vectors and span vectors, (Q, hidden) float32 each."""
    vectors, span_vectors = [], []
    for part in _batches(len(queries), 8 * BATCH):
        arrays = pack_queries(queries[part], geometry.query_tokens)
        inputs = model.tensors(dict(zip(("token_ids", "segment_ids"), arrays, strict=True)))
        output = model.encode_queries(**inputs)
        vectors.append(output.vector.float().cpu().numpy())
        span_vectors.append(output.span_vector.float().cpu().numpy())
    return np.concatenate(vectors), np.concatenate(span_vectors)


def search_corpus(
    model: HeroModel, corpus: Sequence[CorpusVideo], geometry: RowGeometry, moment: MomentSpec | None = None
) -> RetrievalPredictions:
    """Search the videos of a split for each of its queries.

    Args:
        model: put into evaluation mode for the time of the call.
        corpus: the split.
        geometry: rows to pack into.
        moment: search protocol; None takes the model's.

    Raises:
        DataError: the split has no query.
    """
    queries = [(number, index) for number, video in enumerate(corpus) for index in range(len(video.queries))]
    if not queries:
        raise DataError("The split has no query to evaluate; check its annotation file.")
    moment = moment or model.moment_spec()
    training = model.training
    model.eval()
    clips = encode_corpus(model, corpus, geometry)
    vectors, span_vectors = encode_query_tokens(
        model, [corpus[number].queries[index].tokens for number, index in queries], geometry
    )
    model.train(training)

    every, lengths = np.concatenate(clips), [len(part) for part in clips]
    durations = [video.duration for video in corpus]
    similarity = video_similarity(vectors, every, lengths)
    protocols = [replace(moment, nms_iou=1.0), *([moment] if moment.nms_iou < 1.0 else [])]
    found: list[list[QueryResult]] = [[] for _ in protocols]
    for row, (number, index) in enumerate(queries):
        annotation = corpus[number].annotations[index]
        videos = np.argsort(-similarity[row], kind="stable")[:DEPTH]
        ranking = Ranking(videos, np.zeros((len(videos), 2)), similarity[row, videos].astype(np.float64))
        for protocol, results in zip(protocols, found, strict=True):
            own, anywhere = NOTHING, NOTHING
            if annotation.moments:
                spans = search_spans(
                    vectors[row], span_vectors[row], every, lengths, protocol, DEPTH, similarity=similarity[row]
                )
                anywhere = _ranking(spans, spans.video, model.config.clip_interval, durations)
                spans = search_spans(vectors[row], span_vectors[row], clips[number], [lengths[number]], protocol, DEPTH)
                own = _ranking(spans, spans.video + number, model.config.clip_interval, durations)
            results.append(
                QueryResult(annotation.query_id, annotation.type, number, annotation.moments, ranking, anywhere, own)
            )
    return RetrievalPredictions(
        results=found[0],
        suppressed=found[1] if len(found) > 1 else None,
        video_ids=[video.video_id for video in corpus],
        searched=Searched(lengths, durations, model.config.clip_interval, moment),
    )


def _ranking(spans: Spans, video: np.ndarray, interval: float, durations: Sequence[float]) -> Ranking:
    placed = replace(spans, video=video)
    return Ranking(video, placed.times(interval, durations), spans.score)


def evaluate_retrieval(
    model: HeroModel, corpus: Sequence[CorpusVideo], geometry: RowGeometry, moment: MomentSpec | None = None
) -> Evaluation:
    """``measure_retrieval`` of what ``search_corpus`` finds; arguments and errors as there."""
    found = search_corpus(model, corpus, geometry, moment)
    return measure_retrieval(found.results, found.suppressed, found.searched)
