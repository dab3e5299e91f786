"""Packing: many short sequences into few rows of one fixed shape.

HERO's cross-modal encoder looks at each subtitle together with the frames that it is spoken over (paper, section 3.1).
A **segment** is one such pair: its frames, then its tokens. A **row** has a fixed number of slots; segments take
consecutive slots of it, ``segment_ids`` says which, and attention stays inside a segment. Position ids restart in each
segment, so a packed segment gets the result that it gets alone. The temporal encoder packs whole videos the same way.

Everything here is plain numpy and is the only implementation: training, the export checks, the local engine and the
client of a server all pack and regroup through this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hero_sdk.bins import first_fit
from hero_sdk.errors import InputError
from hero_sdk.geometry import RowGeometry
from hero_sdk.types import FloatArray, IntArray

PAD_TOKEN = 1
"""Token id in slots that hold no token (``<pad>`` of RoBERTa's vocabulary)."""

LAST_TEXT_POSITION = 511
"""Text positions count from 0 in each segment and stop here, as in the authors' code."""


@dataclass(frozen=True)
class Segment:
    """One subtitle with the frames it is spoken over.

    Attributes:
        frames: indices of the frames in their video, in order; may be empty.
        tokens: token ids, with the separator that the model expects in front; may be empty.
    """

    frames: IntArray
    tokens: IntArray


@dataclass(frozen=True)
class VideoInput:
    """What the encoder reads of one video (or of one window of a long one).

    Attributes:
        features: (frames, feature_dim) float32, one row per clip.
        segments: the subtitles with their frames; frames that belong to no segment are still seen by the temporal encoder.
    """

    features: FloatArray
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class CrossModalRows:
    """Input of the cross-modal encoder (stage 1). ``R`` rows of ``S`` slots, ``F`` frames per table.

    Attributes:
        frame_features: (R, F, feature_dim) float32, the table of frames of each row.
        frame_index: (R, S) int32, the slot's frame in the table, or -1 where the slot holds no frame.
        token_ids: (R, S) int32, the slot's token, or ``PAD_TOKEN``.
        position_ids: (R, S) int32, counted from 0 over a segment's frames and again over its tokens.
        segment_ids: (R, S) int32, counted from 1 within a row; 0 in empty slots.
    """

    frame_features: FloatArray
    frame_index: IntArray
    token_ids: IntArray
    position_ids: IntArray
    segment_ids: IntArray

    def arrays(self) -> dict[str, np.ndarray]:
        """The tensors by the names that the exported graph gives them."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class TemporalRows:
    """Input of the temporal encoder (stage 2), but for the stage-1 output that ``Regrouping`` brings. ``R`` rows of ``S`` slots.

    Attributes:
        frame_features: (R, S, feature_dim) float32.
        position_ids: (R, S) int32, the frame's place in its video.
        segment_ids: (R, S) int32, counted from 1 within a row, one per video; 0 in empty slots.
    """

    frame_features: FloatArray
    position_ids: IntArray
    segment_ids: IntArray

    def arrays(self) -> dict[str, np.ndarray]:
        """The tensors by the names that the exported graph gives them."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class TextTemporalRows(TemporalRows):
    """Rows of stage 2 that hold the frames of a video and then a text about it, in one segment (question answering).

    Attributes:
        token_ids: (R, S) int32, the slot's token, or -1 where the slot holds none. The position of a token is counted from 0
            over the text.
    """

    token_ids: IntArray


@dataclass(frozen=True)
class Span:
    """Where a sequence lies: ``length`` slots of row ``row`` from slot ``start`` on."""

    row: int
    start: int
    length: int


@dataclass(frozen=True)
class Regrouping:
    """The way of each frame from its slot in stage 1 to its slot in stage 2: four index arrays of one length.

    A frame that several segments own receives the sum, as in the authors' code.
    """

    source_row: IntArray
    source_slot: IntArray
    target_row: IntArray
    target_slot: IntArray

    def apply(self, hidden: FloatArray, temporal: TemporalRows) -> FloatArray:
        """Bring stage-1 outputs (R1, S1, hidden) to the slots of stage 2, zero where no segment owns the frame."""
        matched = np.zeros((*temporal.segment_ids.shape, hidden.shape[-1]), dtype=hidden.dtype)
        np.add.at(matched, (self.target_row, self.target_slot), hidden[self.source_row, self.source_slot])
        return matched


@dataclass(frozen=True)
class PackedVideos:
    """A batch of videos, ready for both stages.

    Attributes:
        cross_modal: rows of stage 1.
        temporal: rows of stage 2.
        regrouping: from the one to the other.
        videos: where the frames of each video lie in ``temporal``.
        segments: where each segment of each video lies in ``cross_modal``, frames first: the last piece of one that was cut into
            several, and None for one that was left out because it owns no frame.
        cut_tokens: how many tokens did not fit their row and were cut.
    """

    cross_modal: CrossModalRows
    temporal: TemporalRows
    regrouping: Regrouping
    videos: tuple[Span, ...]
    segments: tuple[tuple[Span | None, ...], ...]
    cut_tokens: int

    def unpack(self, clip_embeddings: FloatArray) -> list[FloatArray]:
        """Stage-2 output (R, S, hidden) as one array (frames, hidden) per video."""
        return [clip_embeddings[span.row, span.start : span.start + span.length] for span in self.videos]


_NO_TEXT: IntArray = np.zeros(0, dtype=np.int32)


def piece_sizes(frames: int, tokens: int, text: int, geometry: RowGeometry) -> list[tuple[int, int]]:
    """How a segment is cut to what a row can hold: more frames than the table has make several pieces with the same tokens.

    Args:
        frames, tokens: of the segment.
        text: tokens of the text that every piece ends with, whole.
        geometry: the shapes.

    Returns:
        Frames and own tokens of each piece.
    """
    limit = max(1, min(geometry.frames, geometry.slots - text - (tokens > 0)))
    sizes = [min(limit, frames - start) for start in range(0, max(frames, 1), limit)]
    return [(size, min(tokens, geometry.slots - text - size)) for size in sizes]


def _pieces(segment: Segment, text: IntArray, geometry: RowGeometry) -> tuple[list[Segment], int]:
    """Cut a segment to what a row can hold, see ``piece_sizes``; also the number of tokens that were cut."""
    pieces, start = [], 0
    for frames, tokens in piece_sizes(len(segment.frames), len(segment.tokens), len(text), geometry):
        own = np.concatenate([segment.tokens[:tokens], text])
        pieces.append(Segment(segment.frames[start : start + frames], own))
        start += frames
    kept = sum(len(piece.tokens) - len(text) for piece in pieces)
    return pieces, len(pieces) * len(segment.tokens) - kept


def pack_videos(
    videos: Sequence[VideoInput],
    geometry: RowGeometry,
    *,
    keep_frameless: bool = False,
    texts: Sequence[IntArray] | None = None,
) -> PackedVideos:
    """Pack a batch of videos into rows for both stages.

    Args:
        videos: each with at most ``geometry.temporal_slots`` frames.
        geometry: the shapes.
        keep_frameless: also encode segments that own no frame. Retrieval never reads their output, so they are left out
            unless a task trains on their text.
        texts: a text about each video, with its separator in front, which stage 1 reads at the end of every segment and stage 2
            after the frames; the rows of stage 2 are then ``TextTemporalRows``. Subtitles are cut to make room for it.

    Raises:
        InputError: no video, a video without frames or with too many, features of different width, a segment that names a
            frame its video does not have, or a text that does not fit a row beside a video.
    """
    if not videos:
        raise InputError("There is no video to pack; pass at least one.")
    width = videos[0].features.shape[-1]
    for number, video in enumerate(videos):
        _check_video(number, video, width, geometry)
    if texts is not None:
        _check_texts(texts, videos, geometry)

    owners: list[tuple[int, int, Segment]] = []
    cut_tokens = 0
    for number, video in enumerate(videos):
        for index, segment in enumerate(video.segments):
            if len(segment.frames) or (keep_frameless and len(segment.tokens)):
                pieces, cut = _pieces(segment, _NO_TEXT if texts is None else texts[number], geometry)
                owners += [(number, index, piece) for piece in pieces]
                cut_tokens += cut

    temporal, spans = _pack_temporal(videos, texts, geometry, width)
    cross_modal, places = _pack_cross_modal(videos, owners, geometry, width)

    segments: list[list[Span | None]] = [[None] * len(video.segments) for video in videos]
    for (number, index, _), place in zip(owners, places, strict=True):
        segments[number][index] = place
    counts = _ints(len(piece.frames) for _, _, piece in owners)
    regrouping = Regrouping(
        source_row=np.repeat(_ints(place.row for place in places), counts),
        source_slot=_runs(_ints(place.start for place in places), counts),
        target_row=np.repeat(_ints(spans[number].row for number, _, _ in owners), counts),
        target_slot=_joined([piece.frames for _, _, piece in owners])
        + np.repeat(_ints(spans[number].start for number, _, _ in owners), counts),
    )
    return PackedVideos(cross_modal, temporal, regrouping, tuple(spans), tuple(map(tuple, segments)), cut_tokens)


def _ints(values: Iterable[int]) -> IntArray:
    return np.fromiter(values, dtype=np.int32)


def _joined(parts: Sequence[IntArray]) -> IntArray:
    return np.concatenate([_NO_TEXT, *parts]).astype(np.int32, copy=False)


def _runs(starts: IntArray, lengths: IntArray) -> IntArray:
    """``range(start, start + length)`` for each, one after the other."""
    ends = np.cumsum(lengths, dtype=np.int32)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(lengths.sum(), dtype=np.int32)


def _check_video(number: int, video: VideoInput, width: int, geometry: RowGeometry) -> None:
    if video.features.ndim != 2 or not len(video.features):
        raise InputError(
            f"Video {number} has features of shape {video.features.shape}; expected (frames, feature_dim) with at least one frame."
        )
    if video.features.shape[1] != width:
        raise InputError(
            f"Video {number} has features of width {video.features.shape[1]} and video 0 of width {width}; "
            "extract all features with the same frame encoder."
        )
    if len(video.features) > geometry.temporal_slots:
        raise InputError(
            f"Video {number} has {len(video.features)} frames and a temporal row has {geometry.temporal_slots} slots; "
            "cut the video into windows first."
        )
    named = _joined([segment.frames for segment in video.segments])
    if not len(named) or 0 <= named.min() <= named.max() < len(video.features):
        return
    for index, segment in enumerate(video.segments):
        if len(segment.frames) and not 0 <= segment.frames.min() <= segment.frames.max() < len(video.features):
            raise InputError(
                f"Segment {index} of video {number} names frames {segment.frames.min()} to {segment.frames.max()}; "
                f"the video has frames 0 to {len(video.features) - 1}."
            )


def _check_texts(texts: Sequence[IntArray], videos: Sequence[VideoInput], geometry: RowGeometry) -> None:
    if len(texts) != len(videos):
        raise InputError(f"There are {len(texts)} texts for {len(videos)} videos; pass one per video.")
    for number, (text, video) in enumerate(zip(texts, videos, strict=True)):
        # Beside the text, stage 1 needs a slot for a frame and one for a separator, stage 2 one for each frame.
        room = min(geometry.slots - 2, geometry.temporal_slots - len(video.features))
        if not 0 < len(text) <= room:
            raise InputError(
                f"Text {number} has {len(text)} tokens; expected 1 to {room} beside a video of {len(video.features)} frames in "
                f"rows of {geometry.slots} and {geometry.temporal_slots} slots. Cut the text, or choose longer rows."
            )


def _pack_temporal(
    videos: Sequence[VideoInput], texts: Sequence[IntArray] | None, geometry: RowGeometry, width: int
) -> tuple[TemporalRows, list[Span]]:
    after = [_NO_TEXT] * len(videos) if texts is None else texts
    bins = first_fit(
        [(len(video.features) + len(text),) for video, text in zip(videos, after, strict=True)],
        (geometry.temporal_slots,),
    )
    shape = (max(bins) + 1, geometry.temporal_slots)
    features = np.zeros((*shape, width), dtype=np.float32)
    positions, segments = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
    tokens = np.full(shape, -1, dtype=np.int32)
    used = [0] * len(segments)
    spans = []
    for video, text, row in zip(videos, after, bins, strict=True):
        span = Span(row, used[row], len(video.features))
        stop = span.start + span.length
        end = stop + len(text)
        features[row, span.start : stop] = video.features
        positions[row, span.start : stop] = np.arange(span.length)
        positions[row, stop:end] = np.minimum(np.arange(len(text)), LAST_TEXT_POSITION)
        tokens[row, stop:end] = text
        segments[row, span.start : end] = segments[row].max() + 1
        used[row] = end
        spans.append(span)
    if texts is None:
        return TemporalRows(features, positions, segments), spans
    return TextTemporalRows(features, positions, segments, tokens), spans


def _pack_cross_modal(
    videos: Sequence[VideoInput], owners: Sequence[tuple[int, int, Segment]], geometry: RowGeometry, width: int
) -> tuple[CrossModalRows, list[Span]]:
    sizes = [(len(piece.frames) + len(piece.tokens), len(piece.frames)) for _, _, piece in owners]
    bins = first_fit(sizes, (geometry.slots, geometry.frames))
    # An engine needs at least one row, even when no subtitle of the batch owns a frame.
    count = max(bins, default=0) + 1
    shape = (count, geometry.slots)
    rows = CrossModalRows(
        frame_features=np.zeros((count, geometry.frames, width), dtype=np.float32),
        frame_index=np.full(shape, -1, dtype=np.int32),
        token_ids=np.full(shape, PAD_TOKEN, dtype=np.int32),
        position_ids=np.zeros(shape, dtype=np.int32),
        segment_ids=np.zeros(shape, dtype=np.int32),
    )
    used_slots, used_frames, used_ids = [0] * count, [0] * count, [0] * count
    spans, first_frames, ids = [], [], []
    for (number, _, piece), row, (length, n_frames) in zip(owners, bins, sizes, strict=True):
        first_frame = used_frames[row]
        rows.frame_features[row, first_frame : first_frame + n_frames] = videos[number].features[piece.frames]
        used_ids[row] += 1
        spans.append(Span(row, used_slots[row], length))
        first_frames.append(first_frame)
        ids.append(used_ids[row])
        used_slots[row] += length
        used_frames[row] += n_frames

    # All slots at once, as places in rows that are laid end to end: a batch of training has a thousand segments.
    lengths, frames = _ints(length for length, _ in sizes), _ints(n_frames for _, n_frames in sizes)
    starts = _ints(span.row * geometry.slots + span.start for span in spans)
    frame_slots, token_slots = _runs(starts, frames), _runs(starts + frames, lengths - frames)
    nothing = np.zeros_like(frames)
    rows.frame_index.reshape(-1)[frame_slots] = _runs(_ints(first_frames), frames)
    rows.position_ids.reshape(-1)[frame_slots] = _runs(nothing, frames)
    rows.token_ids.reshape(-1)[token_slots] = _joined([piece.tokens for _, _, piece in owners])
    rows.position_ids.reshape(-1)[token_slots] = np.minimum(_runs(nothing, lengths - frames), LAST_TEXT_POSITION)
    rows.segment_ids.reshape(-1)[_runs(starts, lengths)] = np.repeat(_ints(ids), lengths)
    return rows, spans


def pack_queries(queries: Sequence[IntArray], tokens: int) -> tuple[IntArray, IntArray]:
    """Lay queries out one per row: ``token_ids`` and ``segment_ids`` (1 where there is a token), both (queries, tokens) int32.

    Queries longer than ``tokens`` are cut.
    """
    token_ids = np.full((len(queries), tokens), PAD_TOKEN, dtype=np.int32)
    segment_ids = np.zeros((len(queries), tokens), dtype=np.int32)
    for number, query in enumerate(queries):
        length = min(len(query), tokens)
        token_ids[number, :length] = query[:length]
        segment_ids[number, :length] = 1
    return token_ids, segment_ids
