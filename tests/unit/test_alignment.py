"""The authors' assignment of frames to subtitles, against their own output and against the rule written out in loops."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from hero_sdk.alignment import assign_frames, build_segments
from hero_sdk.errors import InputError
from hero_sdk.tokens import TextTokenizer
from hero_sdk.types import Subtitle

ORACLE = json.loads((Path(__file__).parents[1] / "data" / "oracle_alignment.json").read_text(encoding="utf-8"))


def tokenizer() -> TextTokenizer:
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, **{f"w{number}": number for number in range(4, 40)}}
    model = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    return TextTokenizer(model.to_str())


def subtitles(*times: tuple[float, float]) -> list[Subtitle]:
    return [Subtitle(start, end, f"w{number + 4}") for number, (start, end) in enumerate(times)]


def by_loops(times: list[tuple[float, float]], n_frames: int, interval: float) -> list[list[int]]:
    """The rule, one frame and one subtitle at a time, in float32."""
    one = np.float32
    owned: list[list[int]] = [[] for _ in times]
    reach = []
    for index, (start, end) in enumerate(times):
        frames = list(range(math.floor(one(start) / one(interval)), math.ceil(one(end) / one(interval))))
        if one(start) >= one(interval * n_frames):
            frames = []
        elif index == len(times) - 1 and min(one(end), one(interval * n_frames)) - one(start) > 16:
            frames = frames[:11]
        reach.append(frames)
    for frame in range(n_frames):
        candidates = [index for index, frames in enumerate(reach) if frame in frames]
        if not candidates:
            continue
        best, owner = one(0), 0
        for index in candidates:
            start, end = one(times[index][0]) / one(interval), one(times[index][1]) / one(interval)
            shared = min(end, one(frame + 1)) - max(start, one(frame))
            iou = max(shared, one(0)) / (max(end, one(frame + 1)) - min(start, one(frame)))
            if iou > best:
                best, owner = iou, index
        owned[owner].append(frame)
    return owned


@pytest.mark.parametrize("name", sorted(ORACLE))
def test_equals_the_authors(name: str) -> None:
    video = ORACLE[name]
    segments = build_segments(subtitles(*video["subtitles"]), video["frames"], clip_interval=1.5, tokenizer=tokenizer())
    assert [segment.frames.tolist() for segment in segments] == video["owned"]
    assert all(segment.frames.dtype == np.int32 for segment in segments)
    owned = {frame for segment in segments for frame in segment.frames.tolist()}
    assert sorted(set(range(video["frames"])) - owned) == video["unmatched"]


TIMES = st.integers(0, 400).map(lambda tenths: tenths / 10)


@settings(max_examples=200)
@given(st.lists(st.tuples(TIMES, TIMES), max_size=8), st.integers(1, 30), st.sampled_from([0.7, 1.5, 2.0]))
def test_equals_the_rule_in_loops(pairs: list[tuple[float, float]], n_frames: int, interval: float) -> None:
    times = sorted((min(pair), max(pair)) for pair in pairs)
    found = assign_frames(subtitles(*times), n_frames, interval)
    assert [frames.tolist() for frames in found] == by_loops(times, n_frames, interval)


def test_a_day_of_video_in_blocks() -> None:
    times = [(10.0 * index, 10.0 * index + 9.5) for index in range(1000)]
    found = assign_frames(subtitles(*times), 9000, 1.5)
    assert [len(frames) for frames in found[:900]] == [len(frames) for frames in by_loops(times[:900], 9000, 1.5)[:900]]
    assert np.array_equal(np.sort(np.concatenate(found)), np.unique(np.concatenate(found)))


def test_ties_go_to_the_first() -> None:
    assert [frames.tolist() for frames in assign_frames(subtitles((0, 3), (0, 3)), 2, 1.5)] == [[0, 1], []]


def test_a_frame_reached_without_length_goes_to_subtitle_0() -> None:
    found = assign_frames(subtitles((0, 1), (4, 4)), 4, 1.5)
    assert [frames.tolist() for frames in found] == [[0, 2], []]


def test_subtitles_after_the_end_own_nothing() -> None:
    found = assign_frames(subtitles((0, 1), (6.0, 8.0), (90.0, 120.0)), 4, 1.5)
    assert [frames.tolist() for frames in found] == [[0], [], []]


def test_only_the_last_subtitle_is_cut_when_long() -> None:
    cut = assign_frames(subtitles((0, 1), (3.0, 60.0)), 40, 1.5)
    assert cut[1].tolist() == list(range(2, 13))
    whole = assign_frames(subtitles((3.0, 57.0), (57.0, 60.0)), 40, 1.5)
    assert whole[0].tolist() == list(range(2, 38))
    # Its length counts to the end of the video.
    short = assign_frames(subtitles((0, 1), (3.0, 60.0)), 12, 1.5)
    assert short[1].tolist() == list(range(2, 12))


def test_segments_repeat_previous_subtitles_as_context() -> None:
    lines = [Subtitle(0, 1, "w4 w5"), Subtitle(1.5, 3, "W6 W7"), Subtitle(3, 4, "w8 &lt;")]
    for context, expected in [
        (0, [[2, 4, 5], [2, 6, 7], [2, 8, 3]]),
        (1, [[2, 4, 5], [2, 4, 5, 6, 7], [2, 6, 7, 8, 3]]),
        (9, [[2, 4, 5], [2, 4, 5, 6, 7], [2, 4, 5, 6, 7, 8, 3]]),
    ]:
        segments = build_segments(lines, 3, clip_interval=1.5, tokenizer=tokenizer(), context=context)
        assert [segment.tokens.tolist() for segment in segments] == expected
        assert all(segment.tokens.dtype == np.int32 for segment in segments)


def test_silent_videos_are_cut_in_fives() -> None:
    segments = build_segments([], 12, clip_interval=1.5, tokenizer=tokenizer(), context=2)
    assert [segment.frames.tolist() for segment in segments] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    assert [segment.tokens.tolist() for segment in segments] == [[2]] * 3


def test_errors() -> None:
    with pytest.raises(InputError, match="at least one"):
        assign_frames([], 0, 1.5)
    for interval in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="clip interval"):
            assign_frames([], 3, interval)
    with pytest.raises(InputError, match="not sorted"):
        assign_frames(subtitles((2, 3), (1, 2)), 3, 1.5)
    with pytest.raises(InputError, match="context"):
        build_segments([], 3, clip_interval=1.5, tokenizer=tokenizer(), context=-1)
