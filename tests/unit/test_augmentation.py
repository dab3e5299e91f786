"""Noise on training inputs: as much as was asked for, none when none was, and never in the corpus itself."""

from __future__ import annotations

import numpy as np
import pytest

from hero_sdk.rows import Segment, VideoInput
from hero_sdk.tokens import SEPARATOR_ID
from hero_train.data.augmentation import AugmentationConfig, augment_video, drop_tokens

FRAMES, WIDTH, WORDS = 500, 8, 2000


@pytest.fixture
def video() -> VideoInput:
    rng = np.random.default_rng(0)
    words = np.concatenate([[SEPARATOR_ID], rng.integers(4, 99, WORDS)]).astype(np.int32)
    features = rng.uniform(1, 2, (FRAMES, WIDTH)).astype(np.float32)
    return VideoInput(features, (Segment(np.arange(9, dtype=np.int32), words),))


def augmented(video: VideoInput, seed: int = 1, **config: float) -> VideoInput:
    return augment_video(video, AugmentationConfig(**config), np.random.default_rng(seed))


def test_no_noise_changes_nothing(video: VideoInput) -> None:
    same = augmented(video)
    np.testing.assert_array_equal(same.features, video.features)
    np.testing.assert_array_equal(same.segments[0].tokens, video.segments[0].tokens)


def test_feature_noise_is_a_factor_of_the_asked_deviation(video: VideoInput) -> None:
    noisy = augmented(video, feature_noise=0.1)
    factor = noisy.features / video.features
    assert noisy.features.dtype == np.float32
    # 4000 values: five standard errors.
    assert factor.mean() == pytest.approx(1.0, abs=5 * 0.1 / 4000**0.5)
    assert factor.std() == pytest.approx(0.1, rel=5 / 8000**0.5)


def test_dropped_frames_are_zero_and_the_others_untouched(video: VideoInput) -> None:
    dropped = augmented(video, frame_dropout=0.2).features
    gone = (dropped == 0).all(axis=1)
    assert gone.mean() == pytest.approx(0.2, abs=5 * (0.2 * 0.8 / FRAMES) ** 0.5)
    np.testing.assert_array_equal(dropped[~gone], video.features[~gone])


def test_dropped_words_leave_the_others_in_order_behind_the_separator(video: VideoInput) -> None:
    before = video.segments[0].tokens.tolist()
    after = augmented(video, token_dropout=0.3).segments[0].tokens
    assert after.dtype == np.int32
    assert after[0] == SEPARATOR_ID
    rest = iter(before)
    assert all(token in rest for token in after.tolist()), "not a subsequence"
    assert 1 - len(after) / len(before) == pytest.approx(0.3, abs=5 * (0.3 * 0.7 / WORDS) ** 0.5)


def test_the_first_token_always_stays() -> None:
    config = AugmentationConfig(token_dropout=0.99)
    for seed in range(50):
        left = drop_tokens(np.array([0, 5, 6], np.int32), config, np.random.default_rng(seed))
        assert left[0] == 0


def test_noise_is_a_function_of_the_generator(video: VideoInput) -> None:
    noise = {"feature_noise": 0.1, "frame_dropout": 0.1, "token_dropout": 0.1}
    one, same, other = (augmented(video, seed, **noise) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.features, same.features)
    np.testing.assert_array_equal(one.segments[0].tokens, same.segments[0].tokens)
    assert not np.array_equal(one.features, other.features)


def test_the_corpus_stays_as_it_was(video: VideoInput) -> None:
    features, tokens = video.features.copy(), video.segments[0].tokens.copy()
    augmented(video, feature_noise=0.5, frame_dropout=0.5, token_dropout=0.5)
    np.testing.assert_array_equal(video.features, features)
    np.testing.assert_array_equal(video.segments[0].tokens, tokens)
