"""Batches: functions of seed, step and rank, that show what their view says and ask what it can answer."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from hero_sdk.errors import InputError
from hero_sdk.rows import RowGeometry, Segment, VideoInput
from hero_sdk.tokens import SEPARATOR_ID
from hero_sdk.types import IntArray
from hero_train.data.annotations import MomentQuery, QueryType
from hero_train.data.augmentation import AugmentationConfig
from hero_train.data.corpus import CorpusVideo, EncodedQuery
from hero_train.data.sampling import RetrievalBatch, RetrievalSampler, SamplingConfig
from hero_train.errors import DataError
from hero_train.losses import IGNORED_TARGET
from tests.unit.batch_contents import contents

GEOMETRY = RowGeometry(slots=32, frames=16, temporal_slots=16, query_tokens=8)
CLIPS = 4


def tokens(*ids: int) -> IntArray:
    return np.array(ids, dtype=np.int32)


def query(video: int, number: int, kind: QueryType) -> EncodedQuery:
    """Its tokens tell whose it is: <s>, 100 + video, number; its length grows with the number."""
    return EncodedQuery(tokens(0, 100 + video, *[number] * (number + 1)), number % CLIPS, CLIPS - 1, kind)


def make_video(number: int, types: tuple[QueryType, ...]) -> CorpusVideo:
    """A video whose features and subtitle say its number, with two spoken lines."""
    segment = Segment(np.arange(CLIPS, dtype=np.int32), tokens(SEPARATOR_ID, 200 + number, 7))
    features = np.full((CLIPS, 3), number + 1, dtype=np.float32)
    spoken = tuple(EncodedQuery(tokens(0, 300 + number, line), line, line, "t") for line in range(2))
    queries = [query(number, index, kind) for index, kind in enumerate(types)]
    return CorpusVideo(f"v{number}", CLIPS * 1.5, VideoInput(features, (segment,)), spoken, queries)


def corpus(count: int = 10, types: tuple[QueryType, ...] = ("v", "t", "vt")) -> list[CorpusVideo]:
    return [make_video(number, types) for number in range(count)]


def sampler(of: list[CorpusVideo] | None = None, *, seed: int = 5, **config: Any) -> RetrievalSampler:
    place = {name: config.pop(name) for name in ("rank", "world") if name in config}
    return RetrievalSampler(of or corpus(), SamplingConfig(**{"videos": 3, **config}), GEOMETRY, seed, **place)


def shown_videos(batch: RetrievalBatch) -> list[int]:
    """The number of each video, from its subtitle or its features."""
    numbers = []
    for spans in batch.packed.segments:
        (span,) = spans
        assert span is not None
        ids = batch.packed.cross_modal.token_ids[span.row, span.start : span.start + span.length]
        texts = [int(token) - 200 for token in ids if token >= 200]
        span = batch.packed.videos[len(numbers)]
        features = batch.packed.temporal.frame_features[span.row, span.start]
        numbers.append(texts[0] if texts else int(features[0]) - 1)
    return numbers


def asked(batch: RetrievalBatch) -> list[tuple[int, int]]:
    """Of each query the base of its kind (100 annotated, 300 spoken) and the video that it belongs to."""
    return [(int(row[1]) // 100 * 100, int(row[1]) % 100) for row in batch.token_ids]


def assert_same(one: RetrievalBatch, other: RetrievalBatch) -> None:
    assert one.view == other.view
    for name in ("token_ids", "segment_ids", "targets", "query_video"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for part in ("cross_modal", "temporal"):
        for name, array in getattr(one.packed, part).arrays().items():
            np.testing.assert_array_equal(array, getattr(other.packed, part).arrays()[name])


def test_a_batch_depends_on_seed_and_step_only() -> None:
    config = {"both": 1.0, "picture": 1.0, "text": 1.0, "queries_per_video": 2, "spoken_per_video": 1}
    in_order = sampler(**config)
    batches = [in_order.batch(step) for step in range(12)]
    again = sampler(**config)
    for step in reversed(range(12)):
        assert_same(again.batch(step), batches[step])


def test_another_seed_and_another_step_give_another_batch() -> None:
    drawn = {tuple(shown_videos(sampler(seed=seed).batch(step))) for seed in range(4) for step in range(3)}
    assert len(drawn) > 10


def test_each_pass_shows_every_video_once() -> None:
    """9 videos make 3 batches of 3 per pass, each pass in another order."""
    drawn = sampler(corpus(9))
    passes = [
        [number for step in range(3) for number in shown_videos(drawn.batch(3 * turn + step))] for turn in range(4)
    ]
    assert all(sorted(order) == list(range(9)) for order in passes)
    assert all(one != other for one, other in pairwise(passes))


def test_ranks_draw_the_parts_of_one_batch() -> None:
    """12 videos, 2 processes of 3: each pass has two joint batches, and shows every video once."""
    videos = corpus(12)
    parts = [sampler(videos, rank=rank, world=2) for rank in range(2)]
    for turn in range(3):
        seen = [number for step in (0, 1) for part in parts for number in shown_videos(part.batch(2 * turn + step))]
        assert sorted(seen) == list(range(12))
    single = sampler(videos, videos=6)
    for step in range(4):
        together = [number for part in parts for number in shown_videos(part.batch(step))]
        assert together == shown_videos(single.batch(step))


def test_the_joint_batch_is_that_of_one_process_with_as_many_videos() -> None:
    """Which queries are drawn, and the noise on videos and queries, included."""
    noise = AugmentationConfig(feature_noise=0.5, frame_dropout=0.3, token_dropout=0.3)
    config: dict[str, Any] = {"both": 1.0, "text": 1.0, "queries_per_video": 2, "spoken_per_video": 1}
    parts = [sampler(corpus(12), rank=rank, world=3, videos=2, augmentation=noise, **config) for rank in range(3)]
    single = sampler(corpus(12), videos=6, augmentation=noise, **config)
    for step in range(6):
        assert contents([part.batch(step) for part in parts]) == contents([single.batch(step)])


def test_ranks_show_the_same_view() -> None:
    parts = [sampler(rank=rank, world=3, both=1.0, picture=1.0, text=1.0) for rank in range(3)]
    views = [{part.batch(step).view for part in parts} for step in range(20)]
    assert all(len(view) == 1 for view in views)
    assert len(set.union(*views)) == 3


def test_queries_belong_to_their_videos_and_aim_at_their_moments() -> None:
    batch = sampler(queries_per_video=2).batch(0)
    numbers = shown_videos(batch)
    assert [numbers[owner] for owner in batch.query_video] == [video for _, video in asked(batch)]
    for row, mask, target in zip(batch.token_ids, batch.segment_ids, batch.targets, strict=True):
        number = int(row[2])
        assert mask.sum() == number + 3
        assert target.tolist() == [number % CLIPS, CLIPS - 1]
    assert batch.targets.dtype == batch.query_video.dtype == np.int64
    assert batch.token_ids.dtype == np.int32


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_queries_per_video_is_a_limit_and_none_is_drawn_twice(count: int) -> None:
    drawn = sampler(queries_per_video=count)
    seen = set()
    for step in range(8):
        batch = drawn.batch(step)
        rows = [tuple(row) for row in batch.token_ids]
        assert len(set(rows)) == len(rows) == 3 * min(count, 3)
        assert set(Counter(batch.query_video.tolist()).values()) == {min(count, 3)}
        seen |= {row[2] for row in rows}
    assert seen == {0, 1, 2}


def test_spoken_lines_are_queries_too() -> None:
    batch = sampler(queries_per_video=1, spoken_per_video=1).batch(0)
    numbers = shown_videos(batch)
    kinds = asked(batch)
    assert Counter(kind for kind, _ in kinds) == {100: 3, 300: 3}
    assert [numbers[owner] for owner in batch.query_video] == [video for _, video in kinds]
    for row, target, (kind, _) in zip(batch.token_ids, batch.targets, kinds, strict=True):
        if kind == 300:
            assert target.tolist() == [row[2], row[2]]
    more = sampler(queries_per_video=1, spoken_per_video=5).batch(0)
    assert Counter(kind for kind, _ in asked(more)) == {100: 3, 300: 6}


@pytest.mark.parametrize(
    ("view", "types", "spoken"), [("both", {0, 1, 2}, True), ("picture", {0}, False), ("text", {1}, True)]
)
def test_a_view_shows_what_it_says_and_asks_what_it_can_answer(view: str, types: set[int], spoken: bool) -> None:
    only = {"both": 0.0, "picture": 0.0, "text": 0.0, view: 1.0}
    batch = sampler(queries_per_video=3, spoken_per_video=1, **only).batch(0)
    assert batch.view == view
    features, ids = batch.packed.cross_modal.frame_features, batch.packed.cross_modal.token_ids
    assert bool(features.any()) == bool(batch.packed.temporal.frame_features.any()) == (view != "text")
    assert bool((ids >= 200).any()) == (view != "picture")
    # The separator of each subtitle stays, so that a silenced video looks like one without subtitles.
    assert (ids == SEPARATOR_ID).sum() == 3
    annotated = [int(row[2]) for row, (kind, _) in zip(batch.token_ids, asked(batch), strict=True) if kind == 100]
    assert set(annotated) == types
    assert any(kind == 300 for kind, _ in asked(batch)) == spoken


def test_views_are_drawn_by_their_frequency() -> None:
    drawn = sampler(both=2.0, picture=1.0, text=1.0)
    counts = Counter(drawn.batch(step).view for step in range(400))
    for view, expected in {"both": 200, "picture": 100, "text": 100}.items():
        # Four standard deviations of a binomial.
        assert abs(counts[view] - expected) < 4 * (400 * 0.5 * 0.5) ** 0.5


def test_blanking_leaves_the_corpus_as_it_was() -> None:
    videos = corpus()
    drawn = sampler(videos, both=0.0, picture=1.0, text=1.0)
    for step in range(6):
        drawn.batch(step)
    for number, video in enumerate(videos):
        assert (video.input.features == number + 1).all()
        assert video.input.segments[0].tokens.tolist() == [SEPARATOR_ID, 200 + number, 7]


def test_long_queries_are_cut_to_the_geometry() -> None:
    videos = corpus()
    long = EncodedQuery(tokens(*range(30)), 0, 1, "v")
    videos = [dataclasses.replace(video, queries=[long]) for video in videos]
    batch = sampler(videos).batch(0)
    assert batch.token_ids.tolist() == [list(range(8))] * 3


def test_videos_without_query_are_left_out() -> None:
    videos = corpus(6)
    videos[2] = dataclasses.replace(videos[2], queries=[])
    drawn = sampler(videos, videos=5)
    assert sorted(shown_videos(drawn.batch(0))) == [0, 1, 3, 4, 5]


def test_a_draw_that_no_query_fits_is_drawn_again() -> None:
    """One video of ten has a query about the picture."""
    videos = [make_video(number, ("v",) if number == 7 else ("t",)) for number in range(10)]
    drawn = sampler(videos, both=0.0, picture=1.0)
    for step in range(10):
        batch = drawn.batch(step)
        assert 7 in shown_videos(batch)
        assert asked(batch) == [(100, 7)]


def test_ranks_stay_together_when_a_draw_is_drawn_again() -> None:
    """Where one process finds no fitting query, none may go on with another batch than the others."""
    videos = [make_video(number, ("v",) if number in (2, 7) else ("t",)) for number in range(10)]
    parts = [sampler(videos, videos=2, rank=rank, world=2, both=1.0, picture=1.0) for rank in range(2)]
    for step in range(20):
        batches = [part.batch(step) for part in parts]
        assert len({batch.view for batch in batches}) == 1
        assert len({number for batch in batches for number in shown_videos(batch)}) == 4


def test_too_few_videos_for_a_joint_batch() -> None:
    with pytest.raises(InputError, match=r"has 10 videos with queries and a batch takes 12; lower sampling\.videos"):
        sampler(videos=4, world=3)


@pytest.mark.parametrize(("view", "types"), [("picture", ("t", "vt")), ("text", ("v", "vt"))])
def test_a_view_that_no_query_fits(view: str, types: tuple[QueryType, ...]) -> None:
    with pytest.raises(InputError, match=rf"sampling\.{view} is 0\.5, and no query .* set sampling\.{view} to 0"):
        sampler(corpus(types=types), **{view: 0.5})
    assert sampler(corpus(types=types)).batch(0).view == "both"


def test_a_moment_after_the_last_clip_that_is_read_is_not_trained_on() -> None:
    """It is there for evaluation. A video that has nothing else, and a type that nothing else has, count as absent."""
    beyond = EncodedQuery(tokens(0, 999), IGNORED_TARGET, IGNORED_TARGET, "v")
    videos = [make_video(number, ("t",)) for number in range(3)]
    videos[0].queries.append(beyond)
    only = make_video(3, ())
    only.queries.append(beyond)
    drawn = sampler(videos)
    for step in range(5):
        assert 999 not in drawn.batch(step).token_ids
    with pytest.raises(DataError, match="has 3 videos with queries and a batch takes 4"):
        sampler([*videos, only], videos=4)
    with pytest.raises(DataError, match="no query of the training set has a type of"):
        sampler(videos, picture=1.0)


def test_a_query_about_the_whole_video_marks_no_moment() -> None:
    """Its clips are all of the video's, and the span loss leaves them out."""
    videos = [make_video(number, ()) for number in range(3)]
    for number, video in enumerate(videos):
        video.ask(MomentQuery(str(number), "x", video.video_id, ()), tokens(0, 100 + number), 1.5, "outward")
    batch = sampler(videos).batch(0)
    assert batch.targets.tolist() == [[0, CLIPS - 1]] * 3
    assert not batch.marked.any()


def test_the_span_loss_is_left_out_of_a_share_of_the_batches() -> None:
    """All else of these batches is as it was."""
    whole, some = sampler(), sampler(span_dropout=0.7)
    left_out = 0
    for step in range(100):
        one, other = whole.batch(step), some.batch(step)
        assert_same(one, other)
        assert one.marked.all()
        assert other.marked.all() or not other.marked.any()
        left_out += not other.marked.any()
    assert 55 < left_out < 85
    assert not any(sampler(span_dropout=1.0).batch(step).marked.any() for step in range(10))


def test_processes_leave_the_span_loss_out_of_the_same_batches() -> None:
    parts = [sampler(span_dropout=0.5, videos=3, rank=rank, world=2) for rank in range(2)]
    marks = [[part.batch(step).marked.any() for step in range(20)] for part in parts]
    assert marks[0] == marks[1]
    assert len(set(marks[0])) == 2
