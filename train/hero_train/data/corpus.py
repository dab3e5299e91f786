"""A training corpus in memory: tokenised videos and queries, ready to pack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hero_sdk.alignment import build_segments
from hero_sdk.rows import Segment, VideoInput
from hero_sdk.subtitles import read_subtitles
from hero_sdk.tokens import SEPARATOR_ID, TextTokenizer
from hero_sdk.types import IntArray, Subtitle
from hero_train.config import HeroConfig
from hero_train.data.annotations import MomentQuery, QueryType, moment_clips
from hero_train.data.features import VideoFeatures
from hero_train.errors import DataError

SUBTITLE_SUFFIXES = (".srt", ".vtt")


@dataclass(frozen=True)
class EncodedQuery:
    """A query as the model reads it.

    Attributes:
        tokens: (tokens,) int32 with ``<s>`` in front.
        first, last: clips of the moment, both inclusive.
        type: what the query is about.
    """

    tokens: IntArray
    first: int
    last: int
    type: QueryType


@dataclass
class CorpusVideo:
    """A video with everything that training reads of it.

    Attributes:
        input: features and segments, cut to the clip limit.
        subtitle_tokens: (tokens,) int32 of each segment's own subtitle, without separator.
        queries: annotated queries.
        annotations: the same, as they were read.
    """

    video_id: str
    duration: float
    input: VideoInput
    subtitle_tokens: tuple[IntArray, ...]
    queries: list[EncodedQuery] = field(default_factory=list)
    annotations: list[MomentQuery] = field(default_factory=list)


def find_subtitles(folder: Path | None, video_id: str) -> tuple[Subtitle, ...]:
    """The subtitles of a video, from ``folder/video_id.srt`` or ``.vtt``; none when there is no such file."""
    for suffix in SUBTITLE_SUFFIXES if folder else ():
        assert folder is not None
        if (path := folder / f"{video_id}{suffix}").is_file():
            return read_subtitles(path)
    return ()


def build_corpus(
    queries: Sequence[MomentQuery],
    features: dict[str, VideoFeatures],
    subtitles: Path | None,
    tokenizer: TextTokenizer,
    config: HeroConfig,
) -> list[CorpusVideo]:
    """The videos that a split's queries are about, with their queries.

    Clips beyond the clip limit are left out in training, and queries about them with them; search reads long videos through
    windows instead.

    Raises:
        DataError: a query about a video without features.
    """
    videos: dict[str, CorpusVideo] = {}
    for query in queries:
        if query.video_id not in videos:
            if query.video_id not in features:
                raise DataError(f"Query {query.query_id} is about the video {query.video_id}, which has no features.")
            spoken = find_subtitles(subtitles, query.video_id)
            videos[query.video_id] = _build_video(query.video_id, features[query.video_id], spoken, tokenizer, config)
        video = videos[query.video_id]
        clips = len(video.input.features)
        if query.start >= clips * config.clip_interval:
            continue
        first, last = moment_clips(query.start, query.end, config.clip_interval, clips)
        video.queries.append(EncodedQuery(tokenizer.encode_query(query.text), first, last, query.type))
        video.annotations.append(query)
    return list(videos.values())


def _build_video(
    video_id: str,
    extracted: VideoFeatures,
    subtitles: tuple[Subtitle, ...],
    tokenizer: TextTokenizer,
    config: HeroConfig,
) -> CorpusVideo:
    features = extracted.features[: config.clip_limit]
    segments = build_segments(
        subtitles,
        len(features),
        clip_interval=config.clip_interval,
        tokenizer=tokenizer,
        context=config.subtitle_context,
    )
    own = [tokenizer.encode_subtitle(subtitle.text) for subtitle in subtitles] or [np.zeros(0, np.int32)] * len(
        segments
    )
    return CorpusVideo(video_id, extracted.duration, VideoInput(features, segments), tuple(own))


def without_text(video: VideoInput) -> VideoInput:
    """The video with every subtitle silenced: the separator stays."""
    silent = np.array([SEPARATOR_ID], dtype=np.int32)
    return VideoInput(video.features, tuple(Segment(segment.frames, silent) for segment in video.segments))


def without_picture(video: VideoInput) -> VideoInput:
    """The video with every frame blanked: all features are zero."""
    return VideoInput(np.zeros_like(video.features), video.segments)
