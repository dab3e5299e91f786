"""Long videos in overlapping windows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hero_sdk.errors import InputError
from hero_sdk.windows import merge_windows, split_windows


@st.composite
def cuts(draw: st.DrawFn) -> tuple[int, int, int]:
    limit = draw(st.integers(1, 40))
    return draw(st.integers(1, 300)), limit, draw(st.integers(0, limit - 1))


@given(cuts())
def test_windows_cover_the_video_with_the_overlap(cut: tuple[int, int, int]) -> None:
    n_frames, limit, overlap = cut
    windows = split_windows(n_frames, limit, overlap)
    assert windows[0].start == 0
    assert windows[-1].stop == n_frames
    assert all(len(window) == min(limit, n_frames) for window in windows)
    for one, other in pairwise(windows):
        assert one.start < other.start <= one.stop - overlap
    # No window more than the overlap needs.
    assert len(windows) == (1 if n_frames <= limit else 1 + -(-(n_frames - limit) // (limit - overlap)))


@given(cuts(), st.randoms())
def test_merging_gives_back_what_was_cut(cut: tuple[int, int, int], random: object) -> None:
    n_frames, limit, overlap = cut
    values = np.arange(n_frames * 2, dtype=np.float32).reshape(n_frames, 2)
    parts = [(window, values[window.start : window.stop]) for window in split_windows(n_frames, limit, overlap)]
    random.shuffle(parts)  # type: ignore[attr-defined]
    merged = merge_windows(parts)
    assert merged.dtype == np.float32
    assert np.array_equal(merged, values)


@given(cuts())
def test_each_frame_comes_from_the_window_in_which_it_lies_deepest(cut: tuple[int, int, int]) -> None:
    windows = split_windows(*cut)
    merged = merge_windows([(window, np.full((len(window), 1), number)) for number, window in enumerate(windows)])
    for frame, chosen in enumerate(merged[:, 0]):
        depths = [min(frame - window.start, window.stop - 1 - frame) for window in windows]
        assert depths[chosen] == max(depths)
        assert chosen == depths.index(max(depths))


def test_default_overlap_is_a_fifth() -> None:
    assert split_windows(230, 100) == [range(100), range(80, 180), range(130, 230)]
    assert split_windows(100, 100) == [range(100)]


def test_errors() -> None:
    with pytest.raises(InputError, match="at least one frame"):
        split_windows(0, 10)
    for overlap in (-1, 10):
        with pytest.raises(InputError, match="overlap"):
            split_windows(30, 10, overlap)
    with pytest.raises(InputError, match="no window"):
        merge_windows([])
    with pytest.raises(InputError, match="one row per frame"):
        merge_windows([(range(3), np.zeros((2, 1), np.float32))])
    with pytest.raises(InputError, match=r"No window has the frames \[3, 4\]"):
        merge_windows([(range(3), np.zeros((3, 1), np.float32)), (range(5, 8), np.zeros((3, 1), np.float32))])
    with pytest.raises(InputError, match=r"No window has the frames \[0, 1\]"):
        merge_windows([(range(2, 4), np.zeros((2, 1), np.float32))])
