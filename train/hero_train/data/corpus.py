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
from hero_train.data.subtitles import read_subtitle_lines
from hero_train.errors import DataError
from hero_train.losses import IGNORED_TARGET


@dataclass(frozen=True)
class EncodedQuery:
    """A query as the model reads it.

    Attributes:
        tokens: (tokens,) int32 with ``<s>`` in front.
        first, last: clips of the moment, both inclusive: all clips of the video where nobody marked a moment, and twice
            ``IGNORED_TARGET`` where the moment begins after the last clip that is read.
        type: what the query is about.
        marked: whether somebody marked the moment. The time of a subtitle says where its words are to be found, and not where
            the scene begins and ends that somebody would mark.
    """

    tokens: IntArray
    first: int
    last: int
    type: QueryType
    marked: bool = True

    @property
    def reachable(self) -> bool:
        """Whether the moment begins in what is read of the video. Another one is evaluated, and not trained on."""
        return self.first != IGNORED_TARGET


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

    def ask(self, query: MomentQuery, tokens: IntArray, clip_interval: float, rounding: Rounding) -> None:
        """Add an annotated query.

        Args:
            query: about this video.
            tokens: its text with ``<s>`` in front.
            clip_interval: seconds per clip.
            rounding: see ``moment_clips``.
        """
        clips = len(self.input.features)
        target = (0, clips - 1)
        if query.moment is not None:
            beyond = query.moment[0] >= clips * clip_interval
            target = (
                (IGNORED_TARGET, IGNORED_TARGET)
                if beyond
                else moment_clips(*query.moment, clip_interval, clips, rounding)
            )
        self.queries.append(EncodedQuery(tokens, *target, query.type, marked=query.moment is not None))
        self.annotations.append(query)


def read_all_subtitles(source: Path | None, video_ids: Iterable[str]) -> dict[str, tuple[Subtitle, ...]]:
    """The subtitles of videos by id; none for a video that the source has nothing of.

    Args:
        source: a folder of ``video_id.srt`` or ``.vtt``, or a file of the field's format (see ``hero_train.data.subtitles``).
            None: no subtitles.
        video_ids: each is read once.

    Raises:
        SubtitleError, DataError: a folder or a file that cannot be read, with the place.
    """
    wanted = dict.fromkeys(video_ids)
    if source is not None and source.is_file():
        found = read_subtitle_lines(source, wanted)
        return {video_id: found.get(video_id, ()) for video_id in wanted}
    files = subtitle_files(source) if source is not None else {}
    return {video_id: read_subtitles(files[video_id]) if video_id in files else () for video_id in wanted}


def build_corpus(
    queries: Sequence[MomentQuery],
    features: dict[str, VideoFeatures],
    subtitles: Path | None,
    tokenizer: TextTokenizer,
    config: HeroConfig,
    rounding: Rounding = "outward",
) -> list[CorpusVideo]:
    """The videos that a split's queries are about, with their queries.

    Clips beyond the clip limit are left out, and queries about them are not trained on. They are evaluated all the same: what the
    model does not read it cannot find. (Search reads long videos through windows.)

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
        videos[query.video_id].ask(query, tokenizer.encode_query(query.text), config.clip_interval, rounding)
    return list(videos.values())


def build_videos(
    video_ids: Sequence[str],
    features: dict[str, VideoFeatures],
    subtitles: Path | None,
    tokenizer: TextTokenizer,
    config: HeroConfig,
) -> list[CorpusVideo]:
    """Videos without queries: the corpus of a test split that hides which video a query is about.

    Raises:
        DataError: a video without features.
    """
    if absent := [video_id for video_id in video_ids if video_id not in features]:
        raise DataError(f"{len(absent)} videos of the corpus have no features, such as {absent[0]}.")
    spoken = read_all_subtitles(subtitles, video_ids)
    return [_build_video(one, features[one], spoken[one], tokenizer, config, "outward") for one in video_ids]


def build_input(
    extracted: VideoFeatures, subtitles: Sequence[Subtitle], tokenizer: TextTokenizer, config: HeroConfig
) -> VideoInput:
    """What the encoders read of a video, cut to the clip limit."""
    features = extracted.features[: config.clip_limit]
    segments = build_segments(
        subtitles,
        len(features),
        clip_interval=config.clip_interval,
        tokenizer=tokenizer,
        context=config.subtitle_context,
    )
    return VideoInput(features, segments)


def _build_video(
    video_id: str,
    extracted: VideoFeatures,
    subtitles: tuple[Subtitle, ...],
    tokenizer: TextTokenizer,
    config: HeroConfig,
    rounding: Rounding,
) -> CorpusVideo:
    shown = build_input(extracted, subtitles, tokenizer, config)
    texts = [tokenizer.encode_query(subtitle.text) for subtitle in subtitles]
    spoken = spoken_queries(subtitles, texts, len(shown.features), config.clip_interval, rounding)
    return CorpusVideo(video_id, extracted.duration, shown, spoken)


def spoken_queries(
    subtitles: Sequence[Subtitle], texts: Sequence[IntArray], clips: int, clip_interval: float, rounding: Rounding
) -> tuple[EncodedQuery, ...]:
    """Each subtitle as a query for the clips that it is spoken over; those after the last clip are left out.

    Args:
        subtitles, texts: what is said, in seconds, and its tokens with ``<s>`` in front.
        clips: of the video.
        clip_interval: seconds per clip.
        rounding: see ``moment_clips``.
    """
    return tuple(
        EncodedQuery(tokens, *moment_clips(subtitle.start, subtitle.end, clip_interval, clips, rounding), "t", False)
        for subtitle, tokens in zip(subtitles, texts, strict=True)
        if subtitle.start < clips * clip_interval
    )


def without_text(video: VideoInput) -> VideoInput:
    """The video with every subtitle silenced: the separator stays."""
    silent = np.array([SEPARATOR_ID], dtype=np.int32)
    return VideoInput(video.features, tuple(Segment(segment.frames, silent) for segment in video.segments))


def without_picture(video: VideoInput) -> VideoInput:
    """The video with every frame blanked: all features are zero."""
    return VideoInput(np.zeros_like(video.features), video.segments)
