"""Evaluation by the paper's protocol, through the same span search that is served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from hero_sdk.manifest import MomentSpec
from hero_sdk.rows import RowGeometry, pack_queries, pack_videos
from hero_sdk.spans import search_spans, video_similarity
from hero_sdk.types import FloatArray
from hero_train.data.corpus import CorpusVideo
from hero_train.errors import DataError
from hero_train.evaluation import Evaluation, baseline_by_group, by_group
from hero_train.metrics import Prediction, QueryResult, chance, recalls
from hero_train.model.hero import HeroModel

BATCH = 16


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


def evaluate_retrieval(
    model: HeroModel, corpus: Sequence[CorpusVideo], geometry: RowGeometry, moment: MomentSpec | None = None
) -> Evaluation:
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
    interval = model.config.clip_interval
    training = model.training
    model.eval()
    clips = encode_corpus(model, corpus, geometry)
    vectors, span_vectors = encode_query_tokens(
        model, [corpus[number].queries[index].tokens for number, index in queries], geometry
    )
    model.train(training)

    every, lengths = np.concatenate(clips), [len(part) for part in clips]
    durations = [video.duration for video in corpus]
    ranked = np.argsort(-video_similarity(vectors, every, lengths), axis=1, kind="stable")
    results = []
    for row, (number, index) in enumerate(queries):
        annotation = corpus[number].annotations[index]
        own = search_spans(vectors[row], span_vectors[row], clips[number], [lengths[number]], moment, 100)
        found = search_spans(vectors[row], span_vectors[row], every, lengths, moment, 100)
        own_times, found_times = own.times(interval, [durations[number]]), found.times(interval, durations)
        results.append(
            QueryResult(
                type=annotation.type,
                video=number,
                moment=(annotation.start, annotation.end),
                videos=ranked[row].tolist(),
                corpus_moments=[
                    Prediction(int(video), *span) for video, span in zip(found.video, found_times.tolist(), strict=True)
                ],
                video_moments=[Prediction(number, *span) for span in own_times.tolist()],
            )
        )
    drawn = by_group(results, _type, lambda part: chance(part, lengths, durations, interval, moment))
    return Evaluation(
        metrics=by_group(results, _type, recalls),
        baselines=baseline_by_group("chance", drawn),
        counts={"queries": len(results), "videos": len(corpus)},
    )


def _type(result: QueryResult) -> str:
    return result.type
