"""Encoded videos and queries of random vectors, and a corpus filled with them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from hero_sdk import (
    Corpus,
    EncodedVideo,
    Query,
    Subtitle,
)
from hero_sdk.corpus.rows import video_row
from tests.unit.numpy_engine import HIDDEN


def make_video(seed: int, clips: int | None = None) -> EncodedVideo:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 30)) if clips is None else clips
    embeddings = rng.standard_normal((count, HIDDEN)).astype(np.float32)
    subtitles = tuple(Subtitle(2.0 * n, 2.0 * n + 1.5, f"line {n} of {seed}") for n in range(count))
    return EncodedVideo(embeddings, 1.5, count * 1.5 - 0.4, subtitles)


def fill(corpus: Corpus, videos: dict[str, EncodedVideo]) -> None:
    """Many videos in one commit, which is quicker than ``add_encoded``."""
    identity = corpus._table.identity
    rows = [video_row(video_id, video, None, identity) for video_id, video in videos.items()]
    corpus._table.insert(pa.concat_tables(rows), replace=False)


def make_query(seed: int) -> Query:
    rng = np.random.default_rng(10_000 + seed)
    vector, span = rng.standard_normal((2, HIDDEN)).astype(np.float32)
    return Query(f"query {seed}", vector, span)
