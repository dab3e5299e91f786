"""The most similar videos of a stream of candidates, in bounded memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hero_sdk.corpus.rows import Candidates
from hero_sdk.spans import video_similarity
from hero_sdk.types import FloatArray


class Shortlist:
    """Ranks candidates by exact similarity and keeps the best.

    Args:
        vector: (hidden,), the query vector.
        limit: how many videos to keep.
    """

    def __init__(self, vector: FloatArray, limit: int) -> None:
        self._vector = vector
        self._limit = limit
        self._parts: list[tuple[Candidates, FloatArray]] = []
        self._threshold = -np.inf

    def add(self, candidates: Candidates) -> None:
        """Look at some more videos."""
        if not len(candidates):
            return
        similarity = video_similarity(self._vector, candidates.clip_embeddings, candidates.lengths)
        good = np.flatnonzero(similarity >= self._threshold)
        if not len(good):
            return
        self._parts.append((candidates.take(good), similarity[good]))
        if sum(len(part) for part, _ in self._parts) > 4 * self._limit:
            self._reduce()

    def result(self) -> Candidates | None:
        """The best videos sorted by id, or None when there was none.

        Sorted, so that ties between moments never depend on the order of the files.
        """
        if not self._parts:
            return None
        self._reduce()
        candidates = self._parts[0][0]
        ids = np.asarray(candidates.video_ids, dtype=object)
        return candidates.take(np.argsort(ids, kind="stable"))

    def _reduce(self) -> None:
        batches = [batch for part, _ in self._parts for batch in part.table.to_batches()]
        joined = Candidates.join(batches, self._parts[0][0].hidden_size)
        similarity = np.concatenate([values for _, values in self._parts])
        order = _ranking(similarity, joined.video_ids)[: self._limit]
        self._parts = [(joined.take(order), similarity[order])]
        if len(order) == self._limit:
            self._threshold = float(similarity[order[-1]])


def _ranking(similarity: FloatArray, video_ids: list[str]) -> npt.NDArray[np.int64]:
    """Places by falling similarity; of equals, the smaller id first."""
    return np.asarray(sorted(range(len(video_ids)), key=lambda row: (-similarity[row], video_ids[row])), dtype=np.int64)
