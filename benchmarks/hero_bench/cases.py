"""What is measured: everything that a user waits for, in each of the ways to get it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hero_bench.padding import slot_counts
from hero_bench.rounds import Case
from hero_bench.workloads import TYPICAL_CLIPS, TYPICAL_SUBTITLES, Workloads, write_corpus
from hero_sdk.engines import Engine
from hero_sdk.hero import FRAME_BATCH, Hero, VideoFeatures
from hero_sdk.manifest import CROSS_MODAL_GRAPH, FRAME_GRAPH, QUERY_GRAPH, TEMPORAL_GRAPH
from hero_sdk.types import EncodedVideo, Query

GROUPS = ("query", "frames", "search", "video")
"""The cases by what is asked for, in the order in which they are measured: the slow ones last, should time run out."""

TYPICAL_VIDEO = f"encode a video ({TYPICAL_CLIPS} clips, {TYPICAL_SUBTITLES} subtitles)"
EAGER_PRECISION = "fp32"


class Encoder(Protocol):
    """The part of ``Hero`` that encodes."""

    def encode_queries(self, texts: Iterable[str]) -> list[Query]:
        """As ``Hero.encode_queries``."""

    def encode_many(self, videos: Sequence[VideoFeatures]) -> list[EncodedVideo]:
        """As ``Hero.encode_many``."""


@dataclass(frozen=True)
class Variant:
    """One way to encode.

    Attributes:
        name: for the tables.
        encoder: encodes queries and videos.
        engine: runs the graphs of the bundle; None for PyTorch, which has the model and no frame encoder.
    """

    name: str
    encoder: Encoder
    engine: Engine | None


def make_cases(
    variants: Sequence[Variant],
    workloads: Workloads,
    *,
    groups: Sequence[str],
    hero: Hero,
    folder: Path,
    corpus_sizes: Sequence[int],
) -> list[Case]:
    """The cases of one bundle.

    Args:
        variants: the first is the baseline.
        workloads: of the bundle.
        groups: which of ``GROUPS``.
        hero: that searches; no engine takes part in a search, so one variant is enough.
        folder: where the corpora go.
        corpus_sizes: videos of each corpus to search.
    """
    # Generators: what is not chosen is not made.
    makers = (
        _query_cases(variants, workloads),
        _frame_cases(variants, workloads),
        _search_cases(workloads, hero, folder, corpus_sizes),
        _video_cases(variants, workloads),
    )
    return [case for group, cases in zip(GROUPS, makers, strict=True) if group in groups for case in cases]


def _query_cases(variants: Sequence[Variant], workloads: Workloads) -> Iterator[Case]:
    for count in (1, 8):
        texts = workloads.queries(count)
        yield Case(
            "encode a query" if count == 1 else f"encode {count} queries",
            "query",
            count,
            {variant.name: partial(variant.encoder.encode_queries, texts) for variant in variants},
            output=_query_vectors,
            precisions=_precisions(variants, workloads, QUERY_GRAPH),
        )


def _frame_cases(variants: Sequence[Variant], workloads: Workloads) -> Iterator[Case]:
    engines = {variant.name: variant.engine for variant in variants if variant.engine is not None}
    for count in (1, FRAME_BATCH):
        images = {"images": workloads.images(count)}
        yield Case(
            "encode a frame" if count == 1 else f"encode {count} frames",
            "frame",
            count,
            {name: partial(engine.run, FRAME_GRAPH, images) for name, engine in engines.items()},
            output=_features,
            precisions=_precisions(variants, workloads, FRAME_GRAPH),
        )


def _search_cases(workloads: Workloads, hero: Hero, folder: Path, sizes: Sequence[int]) -> Iterator[Case]:
    query = workloads.corpus_query()
    for videos in sizes:
        corpus = write_corpus(workloads, hero, folder / f"corpus-{videos}", videos)
        yield Case(
            f"search {videos} videos",
            "query",
            1,
            {"default": partial(corpus.search, query), "exact": partial(corpus.search, query, exact=True)},
        )


def _video_cases(variants: Sequence[Variant], workloads: Workloads) -> Iterator[Case]:
    for name, video in (
        ("encode a video of one clip", workloads.video(1, 1)),
        (TYPICAL_VIDEO, workloads.typical_video()),
        ("encode a long video", workloads.long_video()),
    ):
        facts = {"clips": len(video.features), "subtitles": len(video.subtitles)}
        yield Case(
            name,
            "clip",
            len(video.features),
            {variant.name: partial(variant.encoder.encode_many, [video]) for variant in variants},
            output=_clip_embeddings,
            precisions=_precisions(variants, workloads, CROSS_MODAL_GRAPH, TEMPORAL_GRAPH),
            facts=facts | slot_counts(video, workloads.manifest, workloads.tokenizer_json),
        )


def _precisions(variants: Sequence[Variant], workloads: Workloads, *graphs: str) -> dict[str, str]:
    exported = ", ".join(sorted({workloads.manifest.graphs[graph].precision for graph in graphs}))
    return {variant.name: EAGER_PRECISION if variant.engine is None else exported for variant in variants}


def _query_vectors(result: Any) -> np.ndarray:
    return np.stack([vector for query in result for vector in (query.vector, query.span_vector)])


def _clip_embeddings(result: Any) -> np.ndarray:
    return np.concatenate([video.clip_embeddings for video in result])


def _features(result: Any) -> np.ndarray:
    return np.asarray(result["features"])
