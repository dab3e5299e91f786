"""Videos packed with a text about each: the text is whole in every segment and after the frames, and nothing else changes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hero_sdk.errors import InputError
from hero_sdk.rows import PackedVideos, RowGeometry, Segment, TextTemporalRows, VideoInput, pack_videos

TEXT_MARK = 1000
WIDTH = 2


class Case(NamedTuple):
    videos: list[VideoInput]
    texts: list[np.ndarray]
    geometry: RowGeometry


def int32(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.int32)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Tokens of subtitles are 2 to 9; those of text n are 1000 n and up, so that no two texts share one."""
    slots = draw(st.integers(4, 20))
    longest_text = draw(st.integers(1, slots - 2))
    geometry = RowGeometry(slots, draw(st.integers(1, slots)), draw(st.integers(longest_text + 1, 24)), 8)
    videos, texts = [], []
    for number in range(draw(st.integers(1, 4))):
        frames = draw(st.integers(1, geometry.temporal_slots - longest_text))
        owners = draw(st.lists(st.integers(-1, 2), min_size=frames, max_size=frames))
        segments = [
            Segment(
                int32([frame for frame, owner in enumerate(owners) if owner == index]),
                int32(draw(st.lists(st.integers(2, 9), max_size=slots))),
            )
            for index in range(3)
        ]
        features = np.array([(number, frame) for frame in range(frames)], dtype=np.float32)
        videos.append(VideoInput(features, tuple(segments)))
        length = draw(st.integers(1, longest_text))
        texts.append(TEXT_MARK * (number + 1) + np.arange(length, dtype=np.int32))
    return Case(videos, texts, geometry)


def text_rows(packed: PackedVideos) -> TextTemporalRows:
    assert isinstance(packed.temporal, TextTemporalRows)
    return packed.temporal


@given(case=cases())
def test_stage_two_has_each_video_and_then_its_text_in_a_segment_of_their_own(case: Case) -> None:
    packed = pack_videos(case.videos, case.geometry, texts=case.texts)
    rows = text_rows(packed)
    filled = np.zeros_like(rows.segment_ids, dtype=bool)
    for video, text, span in zip(case.videos, case.texts, packed.videos, strict=True):
        assert span.length == len(video.features)
        frames = (span.row, slice(span.start, span.start + span.length))
        words = (span.row, slice(span.start + span.length, span.start + span.length + len(text)))
        assert np.array_equal(rows.frame_features[frames], video.features)
        assert np.array_equal(rows.position_ids[frames], np.arange(span.length))
        assert (rows.token_ids[frames] == -1).all()
        assert np.array_equal(rows.token_ids[words], text)
        assert np.array_equal(rows.position_ids[words], np.arange(len(text)))
        assert not rows.frame_features[words].any()
        own = rows.segment_ids == rows.segment_ids[span.row, span.start]
        own[[row for row in range(len(own)) if row != span.row]] = False
        assert own.sum() == span.length + len(text)
        assert own[frames].all()
        assert own[words].all()
        assert not filled[own].any()
        filled |= own
    assert not rows.segment_ids[~filled].any()
    assert (rows.token_ids[~filled] == -1).all()


@given(case=cases())
def test_every_segment_of_stage_one_ends_with_the_whole_text_of_its_video(case: Case) -> None:
    packed = pack_videos(case.videos, case.geometry, texts=case.texts)
    rows = packed.cross_modal
    seen = []
    for row in range(len(rows.segment_ids)):
        for segment in range(1, rows.segment_ids[row].max() + 1):
            slots = np.flatnonzero(rows.segment_ids[row] == segment)
            assert np.array_equal(slots, np.arange(slots[0], slots[-1] + 1))
            index, tokens = rows.frame_index[row, slots], rows.token_ids[row, slots]
            count = int((index >= 0).sum())
            assert count
            assert (index[:count] >= 0).all(), "frames come first"
            features = rows.frame_features[row, index[:count]]
            number = int(features[0, 0])
            text = case.texts[number]
            assert np.array_equal(tokens[-len(text) :], text)
            assert tokens[count : -len(text)].max(initial=0) < TEXT_MARK
            assert np.array_equal(rows.position_ids[row, slots[count:]], np.arange(len(slots) - count))
            seen += [(number, int(frame)) for frame in features[:, 1]]
    owned = [
        (number, int(frame))
        for number, video in enumerate(case.videos)
        for segment in video.segments
        for frame in segment.frames
    ]
    assert sorted(seen) == sorted(owned)


@given(case=cases())
def test_every_frame_finds_its_way_from_stage_one_to_stage_two(case: Case) -> None:
    packed = pack_videos(case.videos, case.geometry, texts=case.texts)
    rows = packed.cross_modal
    # What stage 1 says of a slot is taken to be the feature of its frame, plus one to tell it from nothing.
    frames = np.take_along_axis(rows.frame_features + 1, rows.frame_index.clip(min=0)[..., None], axis=1)
    matched = packed.regrouping.apply(frames * (rows.frame_index >= 0)[..., None], packed.temporal)
    for video, arrived in zip(case.videos, packed.unpack(matched), strict=True):
        owned = np.isin(np.arange(len(video.features)), np.concatenate([one.frames for one in video.segments]))
        assert np.array_equal(arrived, (video.features + 1) * owned[:, None])
    assert not matched[text_rows(packed).token_ids >= 0].any()


def test_subtitles_are_cut_to_make_room_and_the_cut_is_counted() -> None:
    video = VideoInput(np.zeros((2, WIDTH), np.float32), (Segment(int32([0, 1]), int32([2, 5, 6, 7])),))
    packed = pack_videos([video], RowGeometry(8, 4, 8), texts=[int32([2, 20, 21, 22])])
    assert packed.cut_tokens == 2
    assert packed.cross_modal.token_ids[0].tolist() == [1, 1, 2, 5, 2, 20, 21, 22]


def test_without_texts_rows_have_no_tokens() -> None:
    video = VideoInput(np.zeros((2, WIDTH), np.float32), ())
    assert set(pack_videos([video], RowGeometry(8, 4, 8)).temporal.arrays()) == {
        "frame_features",
        "position_ids",
        "segment_ids",
    }
    assert "token_ids" in pack_videos([video], RowGeometry(8, 4, 8), texts=[int32([2])]).temporal.arrays()


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "There are 0 texts for 1 videos; pass one per video"),
        ([[]], "Text 0 has 0 tokens; expected 1 to 5 beside a video of 3 frames in rows of 9 and 8 slots"),
        ([[2] * 6], "Text 0 has 6 tokens; expected 1 to 5"),
    ],
)
def test_a_text_that_does_not_fit_is_named(tokens: list[list[int]], message: str) -> None:
    video = VideoInput(np.zeros((3, WIDTH), np.float32), ())
    with pytest.raises(InputError, match=message):
        pack_videos([video], RowGeometry(9, 4, 8), texts=[int32(one) for one in tokens])


def test_the_longest_text_that_fits_is_packed() -> None:
    video = VideoInput(np.zeros((3, WIDTH), np.float32), (Segment(int32([0, 1, 2]), int32([2, 5])),))
    packed = pack_videos([video], RowGeometry(7, 4, 8), texts=[int32([2] * 5)])
    # One frame at a time: the text and the separator leave no room for a second.
    assert packed.cross_modal.segment_ids.shape == (3, 7)
    with pytest.raises(InputError, match="expected 1 to 5"):
        pack_videos([video], RowGeometry(7, 4, 9), texts=[int32([2] * 6)])
