"""What pre-training hides: the asked shares, never a special token, recoverable from labels, decided by the generator alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hero_sdk.rows import Segment, VideoInput
from hero_sdk.tokens import BEGIN_ID, PAD_ID, SEPARATOR_ID
from hero_sdk.types import IntArray
from hero_train.data.masking import (
    WordIds,
    hide_frames,
    mask_frames,
    mask_words,
    move_frames,
    shuffle_places,
    take_subtitles_out,
)
from hero_train.errors import ConfigError
from hero_train.losses import IGNORED_TARGET
from hero_train.tokenizer import MASK_TOKEN, SPECIAL_TOKENS, train_tokenizer_json

SPECIAL, MASK, VOCABULARY = 4, 50, 51
IDS = WordIds(MASK, np.arange(SPECIAL, MASK, dtype=np.int32))
MANY = 40_000

seeds = st.integers(0, 2**32 - 1)
shares = st.sampled_from([0.0, 0.15, 0.5, 1.0])
token_ids = st.lists(st.integers(0, VOCABULARY - 1), max_size=30).map(lambda ids: np.array(ids, dtype=np.int32))


def within(count: int, of: int, share: float) -> bool:
    """Whether a count of independent draws lies within five standard errors of its share."""
    return abs(count / of - share) <= 5 * (share * (1 - share) / of) ** 0.5


@given(tokens=token_ids, seed=seeds, share=shares)
def test_labels_restore_the_text_and_special_tokens_stay(tokens: IntArray, seed: int, share: float) -> None:
    before = tokens.copy()
    seen, labels = mask_words(tokens, IDS, np.random.default_rng(seed), share)
    assert seen.dtype == labels.dtype == np.int32
    np.testing.assert_array_equal(tokens, before)
    np.testing.assert_array_equal(np.where(labels == IGNORED_TARGET, seen, labels), before)
    special = (before < SPECIAL) | (before == MASK)
    assert (labels[special] == IGNORED_TARGET).all()
    np.testing.assert_array_equal(seen[special], before[special])
    # What stands in the place of a word is the mark or a word.
    assert (seen[~special] >= SPECIAL).all()
    assert (labels != IGNORED_TARGET).any() == (~special).any(), "one word at least is asked, where there is one"
    if share == 1.0:
        np.testing.assert_array_equal(labels[~special], before[~special])


@given(tokens=token_ids, seed=seeds)
def test_masking_is_a_function_of_the_generator(tokens: IntArray, seed: int) -> None:
    one, same = (mask_words(tokens, IDS, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(one, same)


def test_masking_has_the_papers_shares() -> None:
    word = 7
    tokens = np.full(MANY, word, dtype=np.int32)
    seen, labels = mask_words(tokens, IDS, np.random.default_rng(3))
    chosen = labels != IGNORED_TARGET
    assert within(int(chosen.sum()), MANY, 0.15)
    of = int(chosen.sum())
    assert within(int((seen[chosen] == MASK).sum()), of, 0.8)
    others = seen[chosen & (seen != MASK) & (seen != word)]
    # A word that is replaced by any word is replaced by itself now and then.
    assert within(len(others), of, 0.1 * (1 - 1 / len(IDS.words)))
    assert set(others.tolist()) == set(IDS.words.tolist()) - {word}
    assert (seen[~chosen] == word).all()


def test_a_text_where_chance_takes_no_word_loses_any_of_them_alike() -> None:
    tokens = np.array([BEGIN_ID, 5, 6, 7], dtype=np.int32)
    rng = np.random.default_rng(0)
    asked = [mask_words(tokens, IDS, rng, share=0.0)[1] for _ in range(3000)]
    counts = (np.array(asked) != IGNORED_TARGET).sum(axis=0)
    assert counts.sum() == 3000
    assert counts[0] == 0
    assert all(within(int(count), 3000, 1 / 3) for count in counts[1:])


def test_word_ids_are_those_of_the_tokenizer_without_its_special_tokens() -> None:
    json = train_tokenizer_json(["the apple falls", "a bird sings"], 300)
    ids = WordIds.of(json)
    assert ids.mask not in ids.words
    assert not set(range(len(SPECIAL_TOKENS))) & set(ids.words.tolist())
    assert len(ids.words) + len(SPECIAL_TOKENS) + 1 == ids.words.max() + 2, "words fill all ids but the special ones"


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    json = train_tokenizer_json(["the apple falls"], 300).replace(MASK_TOKEN, "<hole>")
    with pytest.raises(ConfigError, match="no <mask>"):
        WordIds.of(json)


@given(count=st.integers(1, 60), seed=seeds, share=shares)
def test_masked_frames_are_at_least_one_and_decided_by_the_generator(count: int, seed: int, share: float) -> None:
    masked = mask_frames(count, np.random.default_rng(seed), share)
    assert masked.shape == (count,)
    assert masked.dtype == bool
    np.testing.assert_array_equal(masked, mask_frames(count, np.random.default_rng(seed), share))
    if share == 0.0:
        assert masked.sum() == 1
    else:
        assert masked.any()
    assert masked.all() or share < 1.0


def test_masked_frames_have_the_papers_share() -> None:
    assert within(int(mask_frames(MANY, np.random.default_rng(1)).sum()), MANY, 0.15)


def example(frames: int = 12) -> VideoInput:
    """A video with its frames' numbers for features; two subtitles own frames, one none, one has no words."""
    features = np.arange(1, frames + 1, dtype=np.float32)[:, None].repeat(3, axis=1)
    segments = (
        Segment(np.array([0, 1, 3], np.int32), np.array([SEPARATOR_ID, 10, 11], np.int32)),
        Segment(np.array([], np.int32), np.array([SEPARATOR_ID, 12], np.int32)),
        Segment(np.array([5], np.int32), np.array([SEPARATOR_ID, 13, 14, 15], np.int32)),
        Segment(np.array([7, 8], np.int32), np.array([SEPARATOR_ID], np.int32)),
        Segment(np.array([frames - 1], np.int32), np.array([SEPARATOR_ID, 16], np.int32)),
    )
    return VideoInput(features, segments)


def test_hidden_frames_are_zero_and_the_others_untouched() -> None:
    video, masked = example(), np.arange(12) % 5 == 2
    hidden = hide_frames(video, masked)
    assert hidden.features.dtype == np.float32
    assert not hidden.features[masked].any()
    np.testing.assert_array_equal(hidden.features[~masked], video.features[~masked])
    np.testing.assert_array_equal(video.features, example().features)


@given(count=st.integers(1, 60), seed=seeds, share=shares)
def test_shuffling_exchanges_the_places_of_the_drawn_frames(count: int, seed: int, share: float) -> None:
    places, origins = shuffle_places(count, np.random.default_rng(seed), share)
    assert places.dtype == origins.dtype == np.int32
    assert sorted(places.tolist()) == list(range(count))
    moved = {frame for frame in range(count) if places[frame] != frame}
    drawn = set(origins[origins != IGNORED_TARGET].tolist())
    assert moved <= drawn
    for place in range(count):
        if origins[place] != IGNORED_TARGET:
            assert places[origins[place]] == place
    if share == 0.0:
        assert not drawn
    if share == 1.0:
        assert drawn == set(range(count))
    for one, same in zip((places, origins), shuffle_places(count, np.random.default_rng(seed), share), strict=True):
        np.testing.assert_array_equal(one, same)


def test_shuffling_draws_the_papers_share() -> None:
    places, origins = shuffle_places(MANY, np.random.default_rng(2))
    drawn = int((origins != IGNORED_TARGET).sum())
    assert within(drawn, MANY, 0.15)
    assert (places != np.arange(MANY)).sum() > 0.99 * drawn


@settings(max_examples=50)
@given(order=st.permutations(range(12)))
def test_moved_frames_are_found_at_their_places_and_subtitles_see_what_they_saw(order: list[int]) -> None:
    video, places = example(), np.array(order, dtype=np.int32)
    moved = move_frames(video, places)
    for frame, place in enumerate(order):
        np.testing.assert_array_equal(moved.features[place], video.features[frame])
    for before, after in zip(video.segments, moved.segments, strict=True):
        np.testing.assert_array_equal(after.tokens, before.tokens)
        np.testing.assert_array_equal(moved.features[after.frames], video.features[before.frames])


def test_subtitles_that_are_taken_out_become_queries_for_their_frames() -> None:
    video, queries = take_subtitles_out(example(), np.random.default_rng(0), count=9)
    asked = [(query.tokens.tolist(), query.first, query.last) for query in queries]
    # One frame gives two, but not beyond the end.
    assert asked == [([BEGIN_ID, 10, 11], 0, 3), ([BEGIN_ID, 13, 14, 15], 5, 6), ([BEGIN_ID, 16], 11, 11)]
    left = [part.tokens.tolist() for part in video.segments]
    assert left == [[SEPARATOR_ID], [SEPARATOR_ID, 12], [SEPARATOR_ID], [SEPARATOR_ID], [SEPARATOR_ID]]
    for before, after in zip(example().segments, video.segments, strict=True):
        np.testing.assert_array_equal(after.frames, before.frames)


@given(seed=seeds, count=st.integers(0, 4))
def test_as_many_subtitles_are_taken_out_as_were_asked_for(seed: int, count: int) -> None:
    video, queries = take_subtitles_out(example(), np.random.default_rng(seed), count)
    assert len(queries) == min(count, 3)
    words = {token for part in video.segments for token in part.tokens.tolist()}
    for query in queries:
        assert not words & set(query.tokens[1:].tolist()), "the answer is still in the video"
    _, again = take_subtitles_out(example(), np.random.default_rng(seed), count)
    assert [query.tokens.tolist() for query in again] == [query.tokens.tolist() for query in queries]


@given(
    tokens=arrays.arrays(np.int32, 8, elements=st.sampled_from([BEGIN_ID, PAD_ID, SEPARATOR_ID, 3, MASK])), seed=seeds
)
def test_a_text_of_special_tokens_asks_nothing(tokens: IntArray, seed: int) -> None:
    seen, labels = mask_words(tokens, IDS, np.random.default_rng(seed), share=1.0)
    np.testing.assert_array_equal(seen, tokens)
    assert (labels == IGNORED_TARGET).all()
