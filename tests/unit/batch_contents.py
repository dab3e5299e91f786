"""What a training batch holds of each video and of each query, wherever it was packed."""

from __future__ import annotations

from typing import Any

import numpy as np

from hero_sdk.rows import Span
from hero_train.data.captions import CaptionBatch
from hero_train.data.pretraining import FrameBatch, OrderBatch, WordBatch
from hero_train.data.sampling import RetrievalBatch


def _at(array: np.ndarray, span: Span) -> list[Any]:
    return array[span.row, span.start : span.start + span.length].tolist()  # type: ignore[no-any-return]


def contents(batches: list[Any]) -> list[list[Any]]:
    """One list for each video of the batches, in order: its features, its words, and all that is asked of it."""
    return [video for batch in batches for video in _videos(batch)]


def _videos(batch: Any) -> list[list[Any]]:
    packed = batch.packed
    found: list[list[Any]] = []
    for span, segments in zip(packed.videos, packed.segments, strict=True):
        words = [None if part is None else _at(packed.cross_modal.token_ids, part) for part in segments]
        found.append([_at(packed.temporal.frame_features, span), words])
        if isinstance(batch, WordBatch):
            found[-1].append([_at(batch.labels, part) for part in segments if part is not None])
        if isinstance(batch, OrderBatch):
            found[-1].append(_at(batch.labels, span))
        if isinstance(batch, FrameBatch):
            found[-1].append(_at(batch.masks["temporal"], span))
    if isinstance(batch, RetrievalBatch):
        for number, (tokens, mask) in enumerate(zip(batch.token_ids, batch.segment_ids, strict=True)):
            query = [tokens[mask > 0].tolist(), batch.targets[number].tolist(), bool(batch.marked[number]), batch.view]
            found[int(batch.query_video[number])].append(query)
    if isinstance(batch, CaptionBatch):
        for targets, moment in zip(batch.target_ids, batch.moments[batch.caption_moment].tolist(), strict=True):
            found[moment[0]].append([targets[targets >= 0].tolist(), moment[1:]])
    return found
