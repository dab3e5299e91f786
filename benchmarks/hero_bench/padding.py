"""The layout of a batch in the authors' code: one row per subtitle and one per video, each padded to the longest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hero_sdk.hero import VideoFeatures
from hero_sdk.manifest import Manifest
from hero_sdk.rows import (
    LAST_TEXT_POSITION,
    PAD_TOKEN,
    CrossModalRows,
    PackedVideos,
    Regrouping,
    Segment,
    Span,
    TemporalRows,
    VideoInput,
    pack_videos,
)
from hero_sdk.tokens import TextTokenizer
from hero_sdk.types import IntArray
from hero_sdk.video_inputs import video_inputs


def pad_videos(videos: Sequence[VideoInput]) -> PackedVideos:
    """Lay videos out as the authors do, for the model to encode them as it encodes packed ones.

    A subtitle that owns no frame has a row too, with room for a dummy frame that nobody looks at.

    Args:
        videos: at least one, each with at least one segment.
    """
    segments = [(number, segment) for number, video in enumerate(videos) for segment in video.segments]
    frames = [len(segment.frames) for _, segment in segments]
    spans = tuple(Span(number, 0, len(video.features)) for number, video in enumerate(videos))
    rows = iter(range(len(segments)))
    return PackedVideos(
        cross_modal=_cross_modal(videos, segments),
        temporal=_temporal(videos),
        regrouping=Regrouping(
            source_row=np.repeat(np.arange(len(segments), dtype=np.int32), frames),
            source_slot=_joined([np.arange(count) for count in frames]),
            target_row=np.repeat(np.array([number for number, _ in segments], dtype=np.int32), frames),
            target_slot=_joined([segment.frames for _, segment in segments]),
        ),
        videos=spans,
        segments=tuple(
            tuple(Span(next(rows), 0, len(one.frames) + len(one.tokens)) for one in video.segments) for video in videos
        ),
        cut_tokens=0,
    )


def slot_counts(video: VideoFeatures, manifest: Manifest, tokenizer_json: str) -> dict[str, int]:
    """How many slots of stage 1 a video takes: those that hold something, those of packed rows, and those of padded rows."""
    inputs = video_inputs(video.features, video.subtitles, TextTokenizer(tokenizer_json), manifest.model)
    windows = [window for _, window in inputs]
    packed = pack_videos(windows, manifest.geometry).cross_modal.segment_ids
    padded = pad_videos(windows).cross_modal.segment_ids
    return {"used slots": int((packed > 0).sum()), "packed slots": packed.size, "padded slots": padded.size}


def _cross_modal(videos: Sequence[VideoInput], segments: Sequence[tuple[int, Segment]]) -> CrossModalRows:
    shape = (len(segments), max(max(len(one.frames), 1) + len(one.tokens) for _, one in segments))
    most_frames = max(1, *(len(one.frames) for _, one in segments))
    rows = CrossModalRows(
        frame_features=np.zeros((len(segments), most_frames, videos[0].features.shape[1]), dtype=np.float32),
        frame_index=np.full(shape, -1, dtype=np.int32),
        token_ids=np.full(shape, PAD_TOKEN, dtype=np.int32),
        position_ids=np.zeros(shape, dtype=np.int32),
        segment_ids=np.zeros(shape, dtype=np.int32),
    )
    for row, (number, segment) in enumerate(segments):
        frames, tokens = len(segment.frames), len(segment.tokens)
        text = slice(frames, frames + tokens)
        rows.frame_features[row, :frames] = videos[number].features[segment.frames]
        rows.frame_index[row, :frames] = np.arange(frames)
        rows.token_ids[row, text] = segment.tokens
        rows.position_ids[row, :frames] = np.arange(frames)
        rows.position_ids[row, text] = np.minimum(np.arange(tokens), LAST_TEXT_POSITION)
        rows.segment_ids[row, : frames + tokens] = 1
    return rows


def _temporal(videos: Sequence[VideoInput]) -> TemporalRows:
    shape = (len(videos), max(len(video.features) for video in videos))
    rows = TemporalRows(
        frame_features=np.zeros((*shape, videos[0].features.shape[1]), dtype=np.float32),
        position_ids=np.zeros(shape, dtype=np.int32),
        segment_ids=np.zeros(shape, dtype=np.int32),
    )
    for row, video in enumerate(videos):
        frames = len(video.features)
        rows.frame_features[row, :frames] = video.features
        rows.position_ids[row, :frames] = np.arange(frames)
        rows.segment_ids[row, :frames] = 1
    return rows


def _joined(parts: Sequence[np.ndarray]) -> IntArray:
    return np.concatenate(parts).astype(np.int32)
