"""The layout of a batch in the authors' code: one row per subtitle and one per video, each padded to the longest of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hero_sdk.hero import VideoFeatures
from hero_sdk.manifest import Manifest
from hero_sdk.rows import PAD_TOKEN, Regrouping, VideoInput, pack_videos
from hero_sdk.tokens import TextTokenizer
from hero_sdk.types import FloatArray, IntArray
from hero_sdk.video_inputs import video_inputs


@dataclass(frozen=True)
class PaddedVideos:
    """A batch of V videos with N subtitles in all, as the authors' loader collates it.

    The longest of the batch decide the shapes: F frames of a subtitle, T tokens of one, S of both together, L frames of a video.
    Positions count from 0 in every row. A subtitle that owns no frame has a dummy frame of zeros, which nobody looks at.

    Attributes:
        token_ids: (N, T) int32, ``PAD_TOKEN`` beyond the text.
        frame_features: (N, F, feature_dim) float32, the frames of each subtitle, zero beyond.
        gather_index: (N, S) int32, places among F frames and T tokens, one after the other: those of the subtitle's frames, then
            those of its tokens; what follows is masked.
        mask: (N, S) bool, True where a subtitle has a frame or a token.
        video_features: (V, L, feature_dim) float32, zero beyond a video's end.
        video_mask: (V, L) bool.
        regrouping: from the rows of subtitles to those of videos.
    """

    token_ids: IntArray
    frame_features: FloatArray
    gather_index: IntArray
    mask: np.ndarray
    video_features: FloatArray
    video_mask: np.ndarray
    regrouping: Regrouping


def pad_videos(videos: Sequence[VideoInput]) -> PaddedVideos:
    """Lay videos out as the authors do.

    Args:
        videos: at least one, each with at least one segment.
    """
    owners = [number for number, video in enumerate(videos) for _ in video.segments]
    segments = [segment for video in videos for segment in video.segments]
    frames = np.array([len(segment.frames) for segment in segments])
    tokens = np.array([len(segment.tokens) for segment in segments])
    slots = np.maximum(frames, 1)
    width = videos[0].features.shape[1]
    most_frames, longest = slots.max(), (slots + tokens).max()

    token_ids = np.full((len(segments), tokens.max()), PAD_TOKEN, dtype=np.int32)
    frame_features = np.zeros((len(segments), most_frames, width), dtype=np.float32)
    gather_index = np.tile(np.arange(longest, dtype=np.int32), (len(segments), 1))
    mask = np.arange(longest) < (slots + tokens)[:, None]
    mask[frames == 0, 0] = False
    for row, (owner, segment) in enumerate(zip(owners, segments, strict=True)):
        token_ids[row, : tokens[row]] = segment.tokens
        frame_features[row, : frames[row]] = videos[owner].features[segment.frames]
        gather_index[row, slots[row] : slots[row] + tokens[row]] = most_frames + np.arange(tokens[row])

    lengths = np.array([len(video.features) for video in videos])
    video_features = np.zeros((len(videos), lengths.max(), width), dtype=np.float32)
    for row, video in enumerate(videos):
        video_features[row, : lengths[row]] = video.features
    return PaddedVideos(
        token_ids,
        frame_features,
        gather_index,
        mask,
        video_features,
        video_mask=np.arange(lengths.max()) < lengths[:, None],
        regrouping=Regrouping(
            source_row=np.repeat(np.arange(len(segments), dtype=np.int32), frames),
            source_slot=_joined([np.arange(count) for count in frames]),
            target_row=np.repeat(np.array(owners, dtype=np.int32), frames),
            target_slot=_joined([segment.frames for segment in segments]),
        ),
    )


def slot_counts(video: VideoFeatures, manifest: Manifest, tokenizer_json: str) -> dict[str, int]:
    """How many slots of stage 1 a video takes: those that hold something, those of packed rows, and those of padded rows."""
    inputs = video_inputs(video.features, video.subtitles, TextTokenizer(tokenizer_json), manifest.model)
    windows = [window for _, window in inputs]
    packed = pack_videos(windows, manifest.geometry).cross_modal.segment_ids
    padded = pad_videos(windows).mask
    return {"used slots": int((packed > 0).sum()), "packed slots": packed.size, "padded slots": padded.size}


def _joined(parts: Sequence[np.ndarray]) -> IntArray:
    return np.concatenate(parts).astype(np.int32)
