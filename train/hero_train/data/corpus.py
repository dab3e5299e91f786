"""A training corpus in memory: tokenised videos and queries, ready to pack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hero_sdk.alignment import build_segments
from hero_sdk.rows import Segment, VideoInput
from hero_sdk.subtitles import read_subtitles
from hero_sdk.tokens import SEPARATOR_ID, TextTokenizer
from hero_sdk.types import IntArray, Subtitle
from hero_sdk.video_files import subtitle_files
from hero_train.config import HeroConfig
from hero_train.data.annotations import MomentQuery, QueryType, Rounding, moment_clips
from hero_train.data.features import VideoFeatures
from hero_train.errors import DataError


@dataclass(frozen=True)
class EncodedQuery:
    """A query as the model reads it.

    Attributes:
        tokens: (tokens,) int32 with ``<s>`` in front.
        first, last: clips of the moment, both inclusive.
        type: what the query is about.
        marked: whether somebody marked the moment. The time of a subtitle says where its words are to be found, and not where
            the scene begins and ends that somebody would mark.
    """

    tokens: IntArray
    first: int
    last: int
    type: QueryType
    marked: bool = True


@dataclass
class CorpusVideo:
    """A video with everything that training reads of it.

    Attributes:
        input: features and segments, cut to the clip limit.
        spoken: each subtitle as if it were a query for the clips that it is spoken over.
        queries: annotated queries.
        annotations: the same, as they were read.
    """

    video_id: str
    duration: float
    input: VideoInput
    spoken: tuple[EncodedQuery, ...]
    queries: list[EncodedQuery] = field(default_factory=list)
    annotations: list[MomentQuery] = field(default_factory=list)


def read_all_subtitles(folder: Path | None, video_ids: Iterable[str]) -> dict[str, tuple[Subtitle, ...]]:
    """The subtitles of videos, from ``folder/video_id.srt`` or ``.vtt``; none for a video that has no such file."""
    files = subtitle_files(folder) if folder is not None else {}
    return {
        video_id: read_subtitles(files[video_id]) if video_id in files else () for video_id in dict.fromkeys(video_ids)
    }


def build_corpus(
    queries: Sequence[MomentQuery],
    features: dict[str, VideoFeatures],
    subtitles: Path | None,
    tokenizer: TextTokenizer,
    config: HeroConfig,
    rounding: Rounding = "outward",
) -> list[CorpusVideo]:
    """The videos that a split's queries are about, with their queries.

    Clips beyond the clip limit are left out in training, and queries about them with them; search reads long videos through
    windows instead.

    Raises:
        DataError: a query about a video without features.
    """
    videos: dict[str, CorpusVideo] = {}
    spoken = read_all_subtitles(subtitles, (query.video_id for query in queries))
    for query in queries:
        if query.video_id not in videos:
            if query.video_id not in features:
                raise DataError(f"Query {query.query_id} is about the video {query.video_id}, which has no features.")
            videos[query.video_id] = _build_video(
                query.video_id, features[query.video_id], spoken[query.video_id], tokenizer, config, rounding
            )
        video = videos[query.video_id]
        clips = len(video.input.features)
        if query.start >= clips * config.clip_interval:
            continue
        first, last = moment_clips(query.start, query.end, config.clip_interval, clips, rounding)
        video.queries.append(EncodedQuery(tokenizer.encode_query(query.text), first, last, query.type))
        video.annotations.append(query)
    return list(videos.values())


def _build_video(
    video_id: str,
    extracted: VideoFeatures,
    subtitles: tuple[Subtitle, ...],
    tokenizer: TextTokenizer,
    config: HeroConfig,
    rounding: Rounding,
) -> CorpusVideo:
    features = extracted.features[: config.clip_limit]
    segments = build_segments(
        subtitles,
        len(features),
        clip_interval=config.clip_interval,
        tokenizer=tokenizer,
        context=config.subtitle_context,
    )
    spoken = tuple(
        EncodedQuery(
            tokenizer.encode_query(subtitle.text),
            *moment_clips(subtitle.start, subtitle.end, config.clip_interval, len(features), rounding),
            "t",
            marked=False,
        )
        for subtitle in subtitles
        if subtitle.start < len(features) * config.clip_interval
    )
    return CorpusVideo(video_id, extracted.duration, VideoInput(features, segments), spoken)


def without_text(video: VideoInput) -> VideoInput:
    """The video with every subtitle silenced: the separator stays."""
    silent = np.array([SEPARATOR_ID], dtype=np.int32)
    return VideoInput(video.features, tuple(Segment(segment.frames, silent) for segment in video.segments))


def without_picture(video: VideoInput) -> VideoInput:
    """The video with every frame blanked: all features are zero."""
    return VideoInput(np.zeros_like(video.features), video.segments)
