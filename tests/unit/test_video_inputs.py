"""Features and subtitles of a video to encoder inputs."""

from __future__ import annotations

import numpy as np
import pytest

from hero_sdk.errors import InputError
from hero_sdk.manifest import ModelSpec
from hero_sdk.rows import RowGeometry, pack_videos
from hero_sdk.types import Subtitle
from hero_sdk.video_inputs import video_inputs
from hero_sdk.windows import merge_windows
from tests.unit.test_alignment import tokenizer

MODEL = ModelSpec(feature_dim=3, hidden_size=4, clip_interval=1.5, clip_limit=10)


def features(n_frames: int) -> np.ndarray:
    return np.random.default_rng(n_frames).standard_normal((n_frames, 3), dtype=np.float32)


def test_a_short_video_is_one_window() -> None:
    values = features(10)
    subtitles = [Subtitle(0, 4, "w4"), Subtitle(4.5, 4.6, "w5"), Subtitle(4.5, 9, "w6")]
    ((window, video),) = video_inputs(values, subtitles, tokenizer(), MODEL)
    assert window == range(10)
    assert np.array_equal(video.features, values)
    assert [segment.frames.tolist() for segment in video.segments] == [[0, 1, 2], [], [3, 4, 5]]


def test_a_long_video_keeps_its_assignment_in_every_window() -> None:
    values = features(27)
    subtitles = [Subtitle(start, start + 5.0, f"w{4 + index}") for index, start in enumerate(range(0, 40, 4))]
    (_, whole), *_ = video_inputs(values, subtitles, tokenizer(), ModelSpec(3, 4, 1.5, clip_limit=27))
    owner = {frame: segment.tokens[1] for segment in whole.segments for frame in segment.frames.tolist()}
    parts = video_inputs(values, subtitles, tokenizer(), MODEL)
    assert [window for window, _ in parts] == [range(10), range(8, 18), range(16, 26), range(17, 27)]
    for window, video in parts:
        assert np.array_equal(video.features, values[window.start : window.stop])
        found = {frame + window.start: s.tokens[1] for s in video.segments for frame in s.frames.tolist()}
        assert found == {frame: owner[frame] for frame in window if frame in owner}
        assert all(len(segment.frames) for segment in video.segments)
    assert np.array_equal(merge_windows([(window, video.features) for window, video in parts]), values)
    # What the SDK does next with it.
    packed = pack_videos([video for _, video in parts], RowGeometry(slots=32, frames=16, temporal_slots=16))
    assert [len(part) for part in packed.unpack(packed.temporal.frame_features)] == [10] * 4


def test_a_silent_video() -> None:
    ((_, video),) = video_inputs(features(7), (), tokenizer(), MODEL)
    assert [segment.frames.tolist() for segment in video.segments] == [[0, 1, 2, 3, 4], [5, 6]]


def test_float16_features_become_float32() -> None:
    ((_, video),) = video_inputs(features(4).astype(np.float16), (), tokenizer(), MODEL)  # type: ignore[arg-type]
    assert video.features.dtype == np.float32


@pytest.mark.parametrize("shape", [(4,), (0, 3), (4, 5), (1, 4, 3)])
def test_features_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(frames, 3\)"):
        video_inputs(np.zeros(shape, np.float32), (), tokenizer(), MODEL)


def test_features_that_are_no_numbers() -> None:
    values = features(5)
    values[3, 1] = np.nan
    with pytest.raises(InputError, match=r"frames \[3\] are not finite"):
        video_inputs(values, (), tokenizer(), MODEL)
