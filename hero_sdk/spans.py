"""Span search: from clip embeddings and an encoded query to moments (paper, section 3.3).

This is the only implementation. The corpus, ``Hero.moments`` and the evaluation during training call it, so that what
is measured is what is served. Clips of several videos come one after another in one array, with the number of clips of
each video beside it, so nothing is padded over the hidden dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hero_sdk.errors import InputError
from hero_sdk.manifest import MomentSpec
from hero_sdk.types import FloatArray

EPSILON = 1e-5
"""Norms below this count as this, in the cosine (``eps`` of ``torch.nn.functional.normalize``, the authors' value)."""

VIDEO_LIMIT = 100
"""How many videos are searched for spans (paper, section 4: the best 100 by similarity)."""


SIMILARITIES_AT_A_TIME = 1 << 25
"""Of queries and clips, held in memory at once (128 MiB): the queries of a whole split against its corpus would be gigabytes."""


@dataclass(frozen=True)
class Spans:
    """Candidate moments of one query, best first; four arrays of one length.

    Attributes:
        video: int64, which of the videos that were searched.
        first, last: int64, the first and the last clip of the span, both inclusive.
        score: float64, in [0, 1].
    """

    video: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.score)

    def take(self, index: npt.NDArray[np.int64] | slice) -> Spans:
        """The spans at these places, in this order."""
        return Spans(self.video[index], self.first[index], self.last[index], self.score[index])

    def times(self, clip_interval: float, durations: npt.ArrayLike | None = None) -> npt.NDArray[np.float64]:
        """Start and end of each span in seconds, float64 (spans, 2).

        Args:
            clip_interval: seconds per clip.
            durations: (videos,) seconds; a span does not end after its video. None: do not cut.
        """
        start, end = self.first * clip_interval, (self.last + 1) * clip_interval
        if durations is not None:
            end = np.minimum(end, np.asarray(durations, dtype=np.float64)[self.video])
        return np.stack([np.minimum(start, end), end], axis=-1)


def video_similarity(
    vector: FloatArray, clip_embeddings: FloatArray, lengths: Sequence[int] | npt.NDArray[np.integer] | None = None
) -> FloatArray:
    """Similarity of videos and queries: the maximum over the video's clips of the cosine.

    Args:
        vector: (hidden,) or (queries, hidden), the query vectors.
        clip_embeddings: (clips, hidden), the clips of all videos one after another.
        lengths: (videos,) clips of each video, each at least 1. None: all clips are of one video.

    Returns:
        float32 (videos,) or (queries, videos), in [-1, 1].
    """
    counts = _lengths(clip_embeddings, lengths)
    clips = np.asarray(clip_embeddings, dtype=np.float32)
    # Dividing the products by the norms spares a normalised copy of the clips.
    norms = np.maximum(np.sqrt(np.einsum("ch,ch->c", clips, clips)), np.float32(EPSILON))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])

    def best(vectors: FloatArray) -> FloatArray:
        cosine = (vectors @ clips.T) / norms
        return np.clip(np.maximum.reduceat(cosine, starts, axis=-1), -1.0, 1.0).astype(np.float32)

    vectors = _normalised(vector)
    if vectors.ndim == 1:
        return best(vectors)
    at_a_time = max(1, SIMILARITIES_AT_A_TIME // len(clips))
    return np.concatenate([best(vectors[row : row + at_a_time]) for row in range(0, max(1, len(vectors)), at_a_time)])


def span_logits(
    span_vector: FloatArray,
    clip_embeddings: FloatArray,
    moment: MomentSpec,
    lengths: Sequence[int] | npt.NDArray[np.integer] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Start and end logits of every clip: two one-dimensional convolutions over the query-clip similarities.

    Similarities are plain products, not cosines. As in ``torch.nn.Conv1d`` the taps are not flipped, and what lies
    before the first and after the last clip of a video counts as zero. (The authors' convolution also sees the clips
    that pad a batch, so that the last two clips of a video depend on its neighbours; here each video stands alone.)

    Args:
        span_vector: (hidden,) or (queries, hidden).
        clip_embeddings: (clips, hidden), the clips of all videos one after another.
        moment: whose taps to use.
        lengths: (videos,) clips of each video. None: all clips are of one video.

    Returns:
        Two float32 arrays (videos, longest) or (queries, videos, longest), -inf after the last clip of each video.
    """
    counts = _lengths(clip_embeddings, lengths)
    products = np.asarray(span_vector, dtype=np.float32) @ np.asarray(clip_embeddings, dtype=np.float32).T
    real = np.arange(counts.max()) < counts[:, None]
    similarities = np.zeros((*products.shape[:-1], *real.shape), dtype=np.float32)
    similarities[..., real] = products
    start, end = (_correlate(similarities, taps) for taps in (moment.start_taps, moment.end_taps))
    return np.where(real, start, -np.inf).astype(np.float32), np.where(real, end, -np.inf).astype(np.float32)


def best_spans(
    start_logits: FloatArray,
    end_logits: FloatArray,
    moment: MomentSpec,
    *,
    weights: npt.ArrayLike | None = None,
    limit: int | None = None,
) -> Spans:
    """The most probable spans of one query over several videos.

    The probability of a span is softmax(start)[first] * softmax(end)[last], each softmax over the clips of its own
    video. A span has ``moment.min_clips`` to ``moment.max_clips`` clips; a video that is shorter than ``min_clips`` has
    one span, the whole of it (the authors give it none, so that it could never be found).

    Args:
        start_logits, end_logits: (videos, longest) from ``span_logits``; (clips,) for one video.
        moment: whose span lengths to use.
        weights: (videos,) factor on the probabilities of each video. None: 1.
        limit: how many to return. None: all.

    Returns:
        Spans with score = weight * probability, best first; ties by video, then first, then last clip.
    """
    start_logits, end_logits = np.atleast_2d(start_logits), np.atleast_2d(end_logits)
    lengths = np.isfinite(start_logits).sum(axis=-1)
    start, end = _softmax(start_logits), _softmax(end_logits)
    if weights is not None:
        start = start * np.asarray(weights, dtype=np.float64)[:, None]
    shortest = np.minimum(moment.min_clips, lengths)

    width = start.shape[1]
    parts: list[Spans] = []
    for clips in range(1, min(moment.max_clips, width) + 1):
        scores = start[:, : width - clips + 1] * end[:, clips - 1 :]
        fits = np.arange(scores.shape[1]) + clips <= lengths[:, None]
        fits &= (shortest <= clips)[:, None] & (clips <= np.maximum(moment.max_clips, shortest))[:, None]
        video, first = np.nonzero(fits)
        parts.append(Spans(video, first, first + clips - 1, scores[video, first]))
    every = Spans(*(np.concatenate([getattr(part, name) for part in parts]) for name in Spans.__dataclass_fields__))
    if limit is not None and limit < len(every):
        # Keep whatever ties with the last one that fits, so that the order below decides and not the partition.
        threshold = -np.partition(-every.score, limit - 1)[limit - 1]
        every = every.take(np.flatnonzero(every.score >= threshold))
    order = np.lexsort((every.last, every.first, every.video, -every.score))
    return every.take(order if limit is None else order[:limit])


def temporal_iou(first: npt.ArrayLike, second: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Intersection over union of intervals.

    Args:
        first, second: (..., 2) start and end, in any unit; the shapes broadcast.

    Returns:
        float64 (...), in [0, 1]; 0 for two empty intervals.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    common = np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0])
    common = np.maximum(common, 0.0)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def non_maximum_suppression(spans: Spans, iou: float, limit: int | None = None) -> Spans:
    """Drop each span that overlaps a better one of the same video by a temporal IoU above ``iou``.

    Args:
        spans: best first.
        iou: the threshold; 1.0 keeps all.
        limit: stop after so many. None: go through all.

    Returns:
        Those that are kept, in their order.
    """
    if iou >= 1.0:
        return spans.take(slice(limit))
    intervals = spans.times(1.0)
    alive = np.ones(len(spans), dtype=bool)
    kept: list[int] = []
    position = 0
    while position < len(spans) and (limit is None or len(kept) < limit):
        kept.append(position)
        rivals = position + 1 + np.flatnonzero(spans.video[position + 1 :] == spans.video[position])
        alive[rivals[temporal_iou(intervals[position], intervals[rivals]) > iou]] = False
        remaining = np.flatnonzero(alive[position + 1 :])
        position = position + 1 + int(remaining[0]) if len(remaining) else len(spans)
    return spans.take(np.asarray(kept, dtype=np.int64))


def search_spans(
    query_vector: FloatArray,
    span_vector: FloatArray,
    clip_embeddings: FloatArray,
    lengths: Sequence[int] | npt.NDArray[np.integer],
    moment: MomentSpec,
    top_k: int,
    *,
    video_limit: int = VIDEO_LIMIT,
    similarity: FloatArray | None = None,
) -> Spans:
    """The whole search of one query: best videos, spans in them, non-maximum suppression.

    The score of a moment is p_start * p_end * exp(scale * (similarity - 1)), in [0, 1]. The authors multiply by
    exp(scale * similarity) instead, which orders the same and grows to e^20.

    Args:
        query_vector, span_vector: (hidden,).
        clip_embeddings: (clips, hidden), the clips of all videos one after another.
        lengths: (videos,) clips of each video.
        moment: moment head and protocol.
        top_k: how many moments at most.
        video_limit: how many videos, by similarity, are searched for spans.
        similarity: (videos,) from ``video_similarity``, when it is there already (an evaluation computes it for all its
            queries at once). None: compute it.

    Returns:
        At most ``top_k`` spans, best first; ``video`` counts in the order of ``lengths``.
    """
    counts = _lengths(clip_embeddings, lengths)
    if similarity is None:
        similarity = video_similarity(query_vector, clip_embeddings, counts)
    # Ascending places keep the order of ties that of the input.
    chosen = np.sort(np.argsort(-similarity, kind="stable")[:video_limit])
    if len(chosen) < len(counts):
        mask = np.zeros(len(counts), dtype=bool)
        mask[chosen] = True
        clip_embeddings = clip_embeddings[np.repeat(mask, counts)]
    start, end = span_logits(span_vector, clip_embeddings, moment, counts[chosen])
    weights = np.exp(moment.similarity_scale * (similarity[chosen].astype(np.float64) - 1.0))

    # Suppression only looks at better spans, so a prefix gives exact results; it grows until it gives enough of them.
    limit = 200 + 20 * top_k
    while True:
        candidates = best_spans(start, end, moment, weights=weights, limit=limit)
        kept = non_maximum_suppression(candidates, moment.nms_iou, top_k)
        if len(kept) == top_k or len(candidates) < limit:
            return Spans(chosen[kept.video], kept.first, kept.last, kept.score)
        limit *= 8


def _lengths(
    clip_embeddings: FloatArray, lengths: Sequence[int] | npt.NDArray[np.integer] | None
) -> npt.NDArray[np.int64]:
    clips = len(clip_embeddings)
    counts = np.asarray([clips] if lengths is None else lengths, dtype=np.int64)
    if counts.ndim != 1 or not len(counts) or counts.min() < 1 or counts.sum() != clips:
        raise InputError(
            f"The lengths of the videos are {counts.tolist()[:10]} (sum {counts.sum()}) for {clips} clips; "
            "expected one length of at least 1 per video, and their sum equal to the number of clips."
        )
    return counts


def _normalised(vectors: npt.ArrayLike) -> FloatArray:
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(EPSILON))


def _correlate(values: FloatArray, taps: Sequence[float]) -> FloatArray:
    """Correlation over the last axis with zeros around; the output is as long as the input."""
    before = len(taps) // 2
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(before, len(taps) - 1 - before)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(taps), axis=-1)
    return windows @ np.asarray(taps, dtype=np.float32)


def _softmax(logits: FloatArray) -> npt.NDArray[np.float64]:
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
