"""Packing loses nothing, mixes nothing up, and changes no result."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hero_sdk.bins import first_fit
from hero_sdk.errors import InputError
from hero_sdk.rows import (
    LAST_TEXT_POSITION,
    PAD_TOKEN,
    PackedVideos,
    RowGeometry,
    Segment,
    VideoInput,
    pack_queries,
    pack_videos,
)
from hero_train.model.hero import HeroModel
from tests.tiny_training import tiny_config

WIDTH = 3
FIRST_MARK = 1000


class Case(NamedTuple):
    """Videos, and the shapes to pack them into. The first token of each segment tells which of all segments it is."""

    videos: list[VideoInput]
    geometry: RowGeometry


class Piece(NamedTuple):
    """What one segment id of one row holds: frames as (video, frame), and tokens."""

    frames: list[tuple[int, int]]
    tokens: list[int]


def frame_feature(video: int, frame: int) -> list[float]:
    return [video, frame, 1.0]


def make_video(number: int, n_frames: int, segments: list[Segment]) -> VideoInput:
    features = np.array([frame_feature(number, frame) for frame in range(n_frames)], dtype=np.float32)
    return VideoInput(features, tuple(segments))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    slots = draw(st.integers(2, 24))
    geometry = RowGeometry(slots, draw(st.integers(1, slots)), draw(st.integers(1, 20)), 8)
    videos = []
    mark = FIRST_MARK
    for number in range(draw(st.integers(1, 4))):
        n_frames = draw(st.integers(1, geometry.temporal_slots))
        segments = []
        for _ in range(draw(st.integers(0, 5))):
            frames = sorted(draw(st.sets(st.integers(0, n_frames - 1))))
            tokens = [mark, *draw(st.lists(st.integers(2, 99), max_size=30))]
            segments.append(Segment(np.array(frames, np.int32), np.array(tokens, np.int32)))
            mark += 1
        videos.append(make_video(number, n_frames, segments))
    return Case(videos, geometry)


def pieces(packed: PackedVideos) -> list[Piece]:
    """Read the rows back, slot by slot."""
    rows = packed.cross_modal
    found = []
    for row in range(len(rows.segment_ids)):
        for number in range(1, rows.segment_ids[row].max() + 1):
            slots = np.flatnonzero(rows.segment_ids[row] == number)
            assert slots.tolist() == list(range(slots[0], slots[-1] + 1)), "a segment is not in consecutive slots"
            is_frame = rows.frame_index[row, slots] >= 0
            count = int(is_frame.sum())
            assert is_frame[:count].all(), "a token stands before a frame"
            table = rows.frame_features[row, rows.frame_index[row, slots[:count]]]
            tokens = rows.token_ids[row, slots[count:]].tolist()
            assert rows.position_ids[row, slots].tolist() == [*range(count), *range(len(tokens))]
            assert (rows.token_ids[row, slots[:count]] == PAD_TOKEN).all()
            found.append(Piece([(int(video), int(frame)) for video, frame, _ in table], tokens))
    return found


def segments_of(case: Case) -> dict[int, tuple[int, Segment]]:
    return {
        int(segment.tokens[0]): (number, segment)
        for number, video in enumerate(case.videos)
        for segment in video.segments
    }


@given(cases(), st.booleans())
def test_every_frame_and_every_token_is_there_once(case: Case, keep_frameless: bool) -> None:
    packed = pack_videos(case.videos, case.geometry, keep_frameless=keep_frameless)
    by_mark: dict[int, list[Piece]] = {}
    for piece in pieces(packed):
        by_mark.setdefault(piece.tokens[0], []).append(piece)
    cut = 0
    for mark, (number, segment) in segments_of(case).items():
        parts = sorted(by_mark.pop(mark, []))
        assert [frame for part in parts for frame in part.frames] == [(number, int(frame)) for frame in segment.frames]
        assert bool(parts) == (keep_frameless or len(segment.frames) > 0)
        for part in parts:
            # Each piece of a long segment repeats the text, as much as its row has room for.
            assert part.tokens == segment.tokens[: len(part.tokens)].tolist()
            if len(part.tokens) < len(segment.tokens):
                assert len(part.frames) + len(part.tokens) == case.geometry.slots
            cut += len(segment.tokens) - len(part.tokens)
        if (
            len(segment.frames) + len(segment.tokens) <= case.geometry.slots
            and len(segment.frames) <= case.geometry.frames
        ):
            assert len(parts) <= 1, "a segment was cut that fits a row"
    assert not by_mark, "rows hold a segment that no video has"
    assert packed.cut_tokens == cut


@given(cases())
def test_rows_have_the_shapes_of_the_geometry_and_empty_slots_are_empty(case: Case) -> None:
    packed = pack_videos(case.videos, case.geometry)
    rows, geometry = packed.cross_modal, case.geometry
    count = len(rows.segment_ids)
    assert rows.frame_features.shape == (count, geometry.frames, WIDTH)
    assert {array.shape for name, array in rows.arrays().items() if name != "frame_features"} == {
        (count, geometry.slots)
    }
    assert {array.dtype for array in rows.arrays().values()} == {np.dtype(np.float32), np.dtype(np.int32)}
    empty = rows.segment_ids == 0
    assert (rows.frame_index[empty] == -1).all()
    assert (rows.token_ids[empty] == PAD_TOKEN).all()
    assert (rows.position_ids[empty] == 0).all()
    for row in range(count):
        used = rows.frame_index[row][rows.frame_index[row] >= 0]
        # The table holds each frame of the row in a row of its own, and nothing else.
        assert sorted(used.tolist()) == list(range(len(used)))
        assert not rows.frame_features[row, len(used) :].any()
    assert len(packed.temporal.segment_ids[0]) == geometry.temporal_slots


@given(cases(), st.booleans())
def test_segments_are_found_where_they_are_said_to_lie(case: Case, keep_frameless: bool) -> None:
    packed = pack_videos(case.videos, case.geometry, keep_frameless=keep_frameless)
    for video, spans in zip(case.videos, packed.segments, strict=True):
        for segment, span in zip(video.segments, spans, strict=True):
            if span is None:
                assert not len(segment.frames)
                assert not keep_frameless
                continue
            place = (span.row, slice(span.start, span.start + span.length))
            assert len(set(packed.cross_modal.segment_ids[place].tolist())) == 1
            assert segment.tokens[0] in packed.cross_modal.token_ids[place]


@given(cases())
def test_unpacking_gives_the_videos_back(case: Case) -> None:
    packed = pack_videos(case.videos, case.geometry)
    for video, features in zip(case.videos, packed.unpack(packed.temporal.frame_features), strict=True):
        np.testing.assert_array_equal(features, video.features)
    for positions in packed.unpack(packed.temporal.position_ids[..., None].astype(np.float32)):
        assert positions[:, 0].tolist() == list(range(len(positions)))
    owners = packed.unpack(packed.temporal.segment_ids[..., None].astype(np.float32))
    assert all(len(set(part[:, 0])) == 1 for part in owners)
    places = [(span.row, part[0, 0]) for span, part in zip(packed.videos, owners, strict=True)]
    assert len(set(places)) == len(case.videos), "two videos share a segment of a row"
    assert np.count_nonzero(packed.temporal.segment_ids) == sum(len(video.features) for video in case.videos)


@given(cases())
def test_regrouping_sums_what_the_segments_say_of_a_frame(case: Case) -> None:
    """Each slot's output is its frame's feature and a one: the sum counts the owners."""
    packed = pack_videos(case.videos, case.geometry)
    rows = packed.cross_modal
    index = np.maximum(rows.frame_index, 0)
    hidden = np.take_along_axis(rows.frame_features, index[..., None], axis=1) * (rows.frame_index >= 0)[..., None]
    matched = packed.unpack(packed.regrouping.apply(hidden, packed.temporal))
    for number, video in enumerate(case.videos):
        owners = Counter(int(frame) for segment in video.segments for frame in segment.frames)
        expected = [
            [owners[frame] * value for value in frame_feature(number, frame)] for frame in range(len(matched[number]))
        ]
        np.testing.assert_array_equal(matched[number], np.array(expected, np.float32))


def test_text_positions_stop_at_the_last() -> None:
    tokens = np.full(600, 5, np.int32)
    video = make_video(0, 2, [Segment(np.array([0, 1], np.int32), tokens)])
    packed = pack_videos([video], RowGeometry(700, 8, 8, 8))
    positions = packed.cross_modal.position_ids[0, :602].tolist()
    assert positions == [0, 1, *range(512), *[LAST_TEXT_POSITION] * 88]
    assert LAST_TEXT_POSITION == 511
    assert packed.cut_tokens == 0


def test_the_narrowest_rows_take_a_frame_each() -> None:
    video = make_video(0, 2, [Segment(np.array([0, 1], np.int32), np.array([2, 7, 8], np.int32))])
    two = pack_videos([video], RowGeometry(2, 2, 2, 2))
    assert sorted(pieces(two)) == [Piece([(0, 0)], [2]), Piece([(0, 1)], [2])]
    assert two.cut_tokens == 4
    one = pack_videos([video], RowGeometry(1, 1, 2, 2))
    assert sorted(pieces(one)) == [Piece([(0, 0)], []), Piece([(0, 1)], [])]
    assert one.cut_tokens == 6


def test_segments_without_words_and_videos_without_segments() -> None:
    silent = make_video(0, 3, [Segment(np.array([1], np.int32), np.zeros(0, np.int32))])
    bare = make_video(1, 2, [])
    nothing = make_video(2, 1, [Segment(np.zeros(0, np.int32), np.zeros(0, np.int32))])
    packed = pack_videos([silent, bare, nothing], RowGeometry(8, 4, 8, 4), keep_frameless=True)
    assert pieces(packed) == [Piece([(0, 1)], [])]
    assert packed.segments[1:] == ((), (None,))
    alone = pack_videos([bare], RowGeometry(8, 4, 8, 4))
    # An engine takes at least one row.
    assert alone.cross_modal.segment_ids.tolist() == [[0] * 8]
    assert len(alone.regrouping.source_row) == 0


@st.composite
def sizes(draw: st.DrawFn) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    capacity = tuple(draw(st.lists(st.integers(1, 20), min_size=1, max_size=2)))
    item = st.tuples(*(st.integers(0, most) for most in capacity))
    return draw(st.lists(item, max_size=30)), capacity


@given(sizes())
def test_first_fit_overfills_no_bin_and_opens_none_too_early(
    problem: tuple[list[tuple[int, ...]], tuple[int, ...]],
) -> None:
    items, capacity = problem
    bins = first_fit(items, capacity)
    count = max(bins, default=-1) + 1
    assert sorted(set(bins)) == list(range(count))
    used = np.zeros((count, len(capacity)), int)
    for item, number in zip(items, bins, strict=True):
        used[number] += item
    assert (used <= capacity).all()
    for item, number in zip(items, bins, strict=True):
        for earlier in range(number):
            assert (used[earlier] + item > capacity).any(), "an item would have fitted an earlier bin"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slots": 0}, r"RowGeometry\.slots is 0; it must be at least 1"),
        ({"frames": 0}, r"RowGeometry\.frames is 0"),
        ({"temporal_slots": -1}, r"RowGeometry\.temporal_slots is -1"),
        ({"query_tokens": 0}, r"RowGeometry\.query_tokens is 0"),
        ({"slots": 8, "frames": 9}, "9 frames in a row of 8 slots; .* choose frames <= slots"),
    ],
)
def test_shapes_that_cannot_be(changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RowGeometry(**changes)


def features(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ([], "There is no video to pack"),
        ([VideoInput(features(0, 3), ())], r"Video 0 has features of shape \(0, 3\); .* at least one frame"),
        ([VideoInput(features(3), ())], r"Video 0 has features of shape \(3,\)"),
        (
            [VideoInput(features(2, 3), ()), VideoInput(features(2, 4), ())],
            "Video 1 has features of width 4 and video 0 of width 3",
        ),
        (
            [VideoInput(features(9, 3), ())],
            "Video 0 has 9 frames and a temporal row has 8 slots; cut the video into windows",
        ),
        (
            [VideoInput(features(4, 3), (Segment(np.array([3, 4], np.int32), np.zeros(0, np.int32)),))],
            "Segment 0 of video 0 names frames 3 to 4; the video has frames 0 to 3",
        ),
        (
            [VideoInput(features(4, 3), (Segment(np.array([-1], np.int32), np.zeros(0, np.int32)),))],
            "Segment 0 of video 0 names frames -1 to -1",
        ),
    ],
)
def test_videos_that_cannot_be_packed(videos: list[VideoInput], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pack_videos(videos, RowGeometry(8, 8, 8, 8))


@given(st.lists(st.lists(st.integers(2, 99), max_size=12), max_size=5), st.integers(1, 10))
def test_queries_take_a_row_each(queries: list[list[int]], width: int) -> None:
    token_ids, segment_ids = pack_queries([np.array(query, np.int32) for query in queries], width)
    assert token_ids.shape == segment_ids.shape == (len(queries), width)
    assert token_ids.dtype == segment_ids.dtype == np.int32
    for query, row, mask in zip(queries, token_ids.tolist(), segment_ids.tolist(), strict=True):
        kept = query[:width]
        assert row == kept + [PAD_TOKEN] * (width - len(kept))
        assert mask == [1] * len(kept) + [0] * (width - len(kept))


@pytest.fixture(scope="module")
def model() -> HeroModel:
    """Weights large enough that attention is far from uniform, and that a wrong neighbour shows."""
    torch.manual_seed(0)
    return HeroModel(tiny_config(feature_dim=5, initializer_range=0.5, cross_modal_layers=2)).eval()


@pytest.fixture(scope="module")
def exact_model(model: HeroModel) -> HeroModel:
    """The same in float64: for some inputs weights as large amplify the rounding of float32 a thousandfold."""

    def widen(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Tensor]
    ) -> tuple[tuple[Any, ...], dict[str, Tensor]]:
        return args, {name: value.double() if value.is_floating_point() else value for name, value in kwargs.items()}

    exact = copy.deepcopy(model).double()
    for stage in (exact.cross_modal, exact.temporal):
        stage.register_forward_pre_hook(widen, with_kwargs=True)
    return exact


def alone(model: HeroModel, video: VideoInput) -> Tensor:
    """Clip embeddings of one video as its definition reads: each segment by itself, unpadded, then all frames."""
    table = torch.from_numpy(video.features)
    matched = torch.zeros(len(table), model.config.hidden_size, dtype=next(model.parameters()).dtype)
    for segment in video.segments:
        count, words = len(segment.frames), len(segment.tokens)
        if count:
            hidden = model.cross_modal(
                frame_features=table[segment.frames][None],
                frame_index=torch.tensor([[*range(count), *[-1] * words]]),
                token_ids=torch.tensor([[*[PAD_TOKEN] * count, *segment.tokens.tolist()]]),
                position_ids=torch.tensor([[*range(count), *range(words)]]),
                segment_ids=torch.ones(1, count + words, dtype=torch.int32),
            )
            for place, frame in enumerate(segment.frames):
                matched[frame] += hidden[0, place]
    ones = torch.ones(1, len(table), dtype=torch.int32)
    positions = torch.arange(len(table))[None]
    return model.temporal(frame_features=table[None], matched=matched[None], position_ids=positions, segment_ids=ones)[
        0
    ]


@st.composite
def model_batches(draw: st.DrawFn) -> tuple[list[VideoInput], RowGeometry]:
    """Videos whose segments fit a row, with frames that several segments own and frames that none does."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    videos = []
    for _ in range(draw(st.integers(1, 4))):
        n_frames = draw(st.integers(1, 10))
        segments = []
        for _ in range(draw(st.integers(0, 4))):
            frames = np.flatnonzero(rng.random(n_frames) < 0.5).astype(np.int32)
            segments.append(Segment(frames, rng.integers(2, 40, rng.integers(0, 7)).astype(np.int32)))
        videos.append(VideoInput(rng.standard_normal((n_frames, 5), dtype=np.float32), tuple(segments)))
    return videos, RowGeometry(draw(st.integers(16, 40)), draw(st.integers(10, 16)), draw(st.integers(10, 30)), 8)


@settings(max_examples=100, deadline=None)
@given(batch=model_batches())
def test_packed_equals_unpadded_one_at_a_time(
    exact_model: HeroModel, batch: tuple[list[VideoInput], RowGeometry]
) -> None:
    videos, geometry = batch
    packed = pack_videos(videos, geometry)
    with torch.inference_mode():
        together = packed.unpack(exact_model.encode_videos(packed).numpy())
        for video, clips in zip(videos, together, strict=True):
            np.testing.assert_allclose(clips, alone(exact_model, video).numpy(), rtol=0, atol=1e-9)


def test_empty_rows_of_frame_tables_are_not_projected(model: HeroModel) -> None:
    rng = np.random.default_rng(0)
    words = np.array([2, 9, 11], np.int32)
    segments = [Segment(np.array(frames, np.int32), words) for frames in ([0, 1, 2], [3], [4, 5])]
    video = VideoInput(rng.standard_normal((6, 5), dtype=np.float32), tuple(segments))
    packed = pack_videos([video], RowGeometry(12, 10, 8, 8))  # of six and five slots, and of four: five frames, and one
    shown = model.cross_modal_inputs(packed)["frame_features"]
    assert packed.cross_modal.frame_features.shape == (2, 10, 5)
    assert shown.shape == (2, 5, 5)
    with torch.inference_mode():
        found = model.cross_modal(**model.cross_modal_inputs(packed))
        expected = model.cross_modal(**model.tensors(packed.cross_modal.arrays()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    silent = pack_videos([VideoInput(video.features, ())], RowGeometry(12, 10, 8, 8))
    assert model.cross_modal_inputs(silent)["frame_features"].shape == (1, 1, 5)


def test_the_model_would_show_a_wrong_neighbour(model: HeroModel) -> None:
    """What the test above is worth: one word, one frame or one position elsewhere changes the result by far more."""
    rng = np.random.default_rng(0)
    frames, words = np.arange(3, dtype=np.int32), np.array([2, 9, 11], np.int32)
    video = VideoInput(rng.standard_normal((4, 5), dtype=np.float32), (Segment(frames, words),))
    others = [
        VideoInput(video.features, (Segment(frames, np.array([2, 9, 12], np.int32)),)),
        VideoInput(video.features, (Segment(frames, np.array([2, 11, 9], np.int32)),)),
        VideoInput(video.features, (Segment(frames[:2], words),)),
        VideoInput(video.features, (Segment(frames[::-1].copy(), words),)),
    ]
    with torch.inference_mode():
        right = alone(model, video)
        for other in others:
            assert (alone(model, other) - right).abs().max() > 1e-2
