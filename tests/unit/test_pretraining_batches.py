"""Batches of pre-training: functions of seed, step, part and rank, that hide what they ask for and keep the rest."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from hero_sdk.rows import PackedVideos, RowGeometry, Segment, VideoInput, pack_videos
from hero_sdk.tokens import BEGIN_ID, SEPARATOR_ID
from hero_train.data.masking import WordIds
from hero_train.data.pretraining import (
    TASKS,
    FrameBatch,
    OrderBatch,
    PretrainingSampler,
    PretrainingSampling,
    TaskMix,
    WordBatch,
    frame_batch,
    matching_batch,
    order_batch,
    word_batch,
)
from hero_train.data.sampling import RetrievalBatch
from hero_train.errors import ConfigError, DataError
from hero_train.losses import IGNORED_TARGET
from tests.unit.batch_contents import contents

IDS = WordIds(999, np.arange(4, 999, dtype=np.int32))
GEOMETRY = RowGeometry(slots=16, frames=6, temporal_slots=24, query_tokens=4)


def make_video(number: int, frames: int = 10, *, silent: bool = False) -> VideoInput:
    """A video whose features tell its number and each frame's, and whose words tell its number and the subtitle's."""
    features = np.stack([[100 * (number + 1), frame + 1] for frame in range(frames)]).astype(np.float32)
    owned = [[0, 1], [2], [3, 4, 5, 6, 7, 8, 9][: frames - 3], []]
    segments = []
    for index, part in enumerate(owned):
        word = 10 * (number + 1) + index
        words = [] if silent else [word] * (3 + index)
        segments.append(Segment(np.array(part, np.int32), np.array([SEPARATOR_ID, *words], np.int32)))
    return VideoInput(features, tuple(segments))


def videos(count: int = 3) -> list[VideoInput]:
    return [make_video(number, frames=10 - number) for number in range(count)]


def rngs(count: int = 3, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, number]) for number in range(count)]


def assert_same(one: Any, other: Any) -> None:
    """Two batches, compared array by array."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    elif hasattr(one, "__dataclass_fields__"):
        for name in one.__dataclass_fields__:
            assert_same(getattr(one, name), getattr(other, name))
    else:
        assert one == other


def texts(packed: PackedVideos, token_ids: np.ndarray) -> list[list[list[int]]]:
    """The tokens of each segment of each video, read from the rows."""
    frame_index = packed.cross_modal.frame_index
    found = []
    for spans in packed.segments:
        lines = []
        for span in spans:
            assert span is not None
            place = (span.row, slice(span.start, span.start + span.length))
            lines.append(token_ids[place][frame_index[place] < 0].tolist())
        found.append(lines)
    return found


def test_labels_of_words_restore_the_subtitles() -> None:
    batch = word_batch(videos(), IDS, rngs(), GEOMETRY, share=0.4)
    shown = batch.packed.cross_modal.token_ids
    restored = np.where(batch.labels == IGNORED_TARGET, shown, batch.labels)
    assert (shown != restored).any()
    expected = [[[BEGIN_ID, *part.tokens[1:].tolist()] for part in video.segments] for video in videos()]
    assert texts(batch.packed, restored) == expected
    # The longest subtitle owns more frames than a row's table has, and the pieces show the same words.
    assert len(videos()[0].segments[2].frames) > GEOMETRY.frames
    assert batch.labels.dtype == np.int32


def test_every_subtitle_with_words_is_asked_and_those_without_are_left_out() -> None:
    batch = word_batch([make_video(0), make_video(1, silent=True)], IDS, rngs(2), GEOMETRY)
    speaking, silent = texts(batch.packed, batch.labels)
    assert len(speaking) == 4
    assert all(any(label != IGNORED_TARGET for label in line) for line in speaking)
    assert silent == []


def test_labels_of_words_that_were_cut_are_cut() -> None:
    long = Segment(np.arange(3, dtype=np.int32), np.array([SEPARATOR_ID, *range(10, 40)], np.int32))
    batch = word_batch([VideoInput(np.ones((3, 2), np.float32), (long,))], IDS, rngs(1), GEOMETRY, share=1.0)
    assert batch.packed.cut_tokens == 18
    [[line]] = texts(batch.packed, batch.labels)
    assert line == [IGNORED_TARGET, *range(10, 22)]


def test_masked_frames_are_zero_in_both_stages_and_their_features_are_what_was_there() -> None:
    whole = videos()
    batch = frame_batch(whole, rngs(), GEOMETRY, share=0.3)
    truth = pack_videos(whole, GEOMETRY)
    for name, mask in batch.masks.items():
        shown, before = getattr(batch.packed, name).frame_features, getattr(truth, name).frame_features
        assert mask.dtype == bool
        assert mask.any()
        assert not shown[mask].any()
        assert before[mask].all(), "a place without a frame is marked"
        np.testing.assert_array_equal(shown[~mask], before[~mask])
    np.testing.assert_array_equal(batch.features, truth.temporal.frame_features[batch.masks["temporal"]])
    assert batch.features.dtype == np.float32


def test_features_of_masked_frames_follow_the_rows_also_when_videos_do_not() -> None:
    whole = [make_video(number, frames) for number, frames in enumerate((5, 9, 7, 10, 6, 8))]
    batch = frame_batch(whole, rngs(6, 1), RowGeometry(slots=16, frames=6, temporal_slots=18))
    rows = [span.row for span in batch.packed.videos]
    assert rows != sorted(rows), "the videos lie in order, so the test shows nothing"
    truth = pack_videos(whole, RowGeometry(slots=16, frames=6, temporal_slots=18))
    np.testing.assert_array_equal(batch.features, truth.temporal.frame_features[batch.masks["temporal"]])


def test_every_video_has_a_masked_frame() -> None:
    batch = frame_batch(videos(), rngs(), GEOMETRY, share=0.0)
    for span in batch.packed.videos:
        assert batch.masks["temporal"][span.row, span.start : span.start + span.length].sum() == 1


def test_labels_of_the_order_are_the_true_places_of_the_frames_that_are_there() -> None:
    whole = videos()
    batch = order_batch(whole, rngs(), GEOMETRY, share=0.6)
    truth = pack_videos(whole, GEOMETRY)
    for number, span in enumerate(batch.packed.videos):
        place = (span.row, slice(span.start, span.start + span.length))
        there = batch.packed.temporal.frame_features[place]
        labels = batch.labels[place]
        asked = labels != IGNORED_TARGET
        assert (there[:, 0] == 100 * (number + 1)).all()
        np.testing.assert_array_equal(labels[asked], there[asked, 1] - 1)
        np.testing.assert_array_equal(there[~asked, 1] - 1, np.arange(span.length)[~asked])
    outside = batch.packed.temporal.segment_ids == 0
    assert (batch.labels[outside] == IGNORED_TARGET).all()
    # Stage 1 sees what it sees without a shuffle, and its output follows each frame to its new place.
    assert_same(batch.packed.cross_modal, truth.cross_modal)
    source = batch.packed.cross_modal
    way = batch.packed.regrouping
    table = source.frame_index[way.source_row, way.source_slot]
    np.testing.assert_array_equal(
        source.frame_features[way.source_row, table],
        batch.packed.temporal.frame_features[way.target_row, way.target_slot],
    )


def test_subtitles_are_asked_for_and_gone_from_their_video() -> None:
    batch = matching_batch(videos(), rngs(), GEOMETRY, queries_per_video=2)
    assert batch.query_video.tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.marked.all()
    assert batch.token_ids.shape[1] == GEOMETRY.query_tokens
    left = pack_videos(videos(), GEOMETRY)
    for tokens, (first, last), owner in zip(batch.token_ids, batch.targets, batch.query_video, strict=True):
        assert tokens[0] == BEGIN_ID
        number, index = divmod(int(tokens[1]), 10)
        assert number == owner + 1
        frames = videos()[owner].segments[index].frames
        assert (first, last) == (frames[0], max(frames[0] + 1, frames[-1]))
        assert tokens[1] not in batch.packed.cross_modal.token_ids
        assert tokens[1] in left.cross_modal.token_ids
    np.testing.assert_array_equal(batch.packed.temporal.frame_features, left.temporal.frame_features)


def test_a_video_asks_each_of_its_subtitles_once_at_most() -> None:
    batch = matching_batch(
        [make_video(0), make_video(1, silent=True)], rngs(2), GEOMETRY, queries_per_video=5, spans=False
    )
    assert sorted(batch.token_ids[:, 1].tolist()) == [10, 11, 12]
    assert not batch.query_video.any()
    assert not batch.marked.any()


def sampler(count: int = 12, seed: int = 5, accumulation: int = 1, **settings: Any) -> PretrainingSampler:
    place = {name: settings.pop(name) for name in ("rank", "world") if name in settings}
    config = PretrainingSampling(**{"videos": 3, **settings})
    corpus = [make_video(number) for number in range(count)]
    return PretrainingSampler(corpus, IDS, config, GEOMETRY, seed, accumulation, **place)


def shown(batch: Any) -> set[int]:
    """The numbers of a batch's videos, from their features; where all are masked, a video is not named."""
    features = batch.packed.temporal.frame_features[..., 0]
    return {int(value) // 100 - 1 for value in features[features > 0]}


def test_tasks_come_in_the_papers_proportions() -> None:
    drawn = sampler()
    steps = 7000
    counts = Counter(drawn.task(step) for step in range(steps))
    for name, share in (("mlm", 2 / 7), ("mfm_nce", 2 / 7), ("mffr", 0.0), ("fom", 1 / 7), ("vsm", 2 / 7)):
        # Five standard errors.
        assert abs(counts[name] / steps - share) <= 5 * (share * (1 - share) / steps) ** 0.5


def test_a_batch_is_of_the_task_of_its_step_in_every_part_and_process() -> None:
    kinds = {"mlm": WordBatch, "mfm_nce": FrameBatch, "mffr": FrameBatch, "fom": OrderBatch, "vsm": RetrievalBatch}
    mix = TaskMix(1, 1, 1, 1, 1)
    processes = [sampler(accumulation=2, mix=mix, rank=rank, world=2) for rank in range(2)]
    seen = set()
    for step in range(30):
        task = processes[0].task(step)
        seen.add(task)
        for process in processes:
            assert process.task(step) == task
            for part in range(2):
                batch = process.batch(step, part)
                assert type(batch) is kinds[task]
                if isinstance(batch, FrameBatch):
                    assert batch.objective == task
    assert seen == set(TASKS)


def test_a_batch_depends_on_seed_step_part_and_rank_only() -> None:
    one, same, other = sampler(accumulation=2), sampler(accumulation=2), sampler(accumulation=2, seed=6)
    for step in (4, 0, 9):
        assert_same(one.batch(step, 1), same.batch(step, 1))
    assert [shown(one.batch(step)) for step in range(9)] != [shown(other.batch(step)) for step in range(9)]


def test_processes_draw_their_chances_apart() -> None:
    processes = [sampler(mix=TaskMix(0, 0, 0, 1, 0), share=0.5, rank=rank, world=2) for rank in range(2)]
    for step in range(5):
        one, other = (process.batch(step) for process in processes)
        assert isinstance(one, OrderBatch)
        assert isinstance(other, OrderBatch)
        assert not np.array_equal(one.labels, other.labels)


def test_the_joint_batch_is_that_of_one_process_with_as_many_videos() -> None:
    """What is masked, shuffled and asked for included, for every task."""
    settings: dict[str, Any] = {"mix": TaskMix(1, 1, 1, 1, 1), "share": 0.4, "queries_per_video": 2, "accumulation": 2}
    processes = [sampler(videos=2, rank=rank, world=3, **settings) for rank in range(3)]
    single = sampler(videos=6, **settings)
    seen = set()
    for step in range(20):
        seen.add(single.task(step))
        for part in range(2):
            joint = [process.batch(step, part) for process in processes]
            assert contents(joint) == contents([single.batch(step, part)])
    assert seen == set(TASKS)


def test_a_pass_shows_every_video_once_over_all_processes() -> None:
    processes = [sampler(mix=TaskMix(0, 0, 0, 1, 0), accumulation=2, rank=rank, world=2) for rank in range(2)]
    for step in (0, 1):  # 12 videos, 2 processes of 3: a pass is the two parts of a step
        drawn = [shown(process.batch(step, part)) for part in range(2) for process in processes]
        assert [len(part) for part in drawn] == [3] * 4
        assert set.union(*drawn) == set(range(12))


def test_the_span_loss_is_left_out_of_the_asked_share_of_batches() -> None:
    only = TaskMix(0, 0, 0, 0, 1)
    drawn = [sampler(mix=only, span_dropout=0.8).batch(step) for step in range(400)]
    counted = [batch.marked.all() for batch in drawn if isinstance(batch, RetrievalBatch)]
    assert all(batch.marked.all() or not batch.marked.any() for batch in drawn if isinstance(batch, RetrievalBatch))
    assert abs(np.mean(counted) - 0.2) <= 5 * (0.16 / 400) ** 0.5
    assert all(batch.marked.all() for batch in (sampler(mix=only, span_dropout=0.0).batch(step) for step in range(20)))  # type: ignore[union-attr]


def test_words_are_asked_of_videos_with_subtitles_only() -> None:
    corpus = [make_video(number, silent=number >= 4) for number in range(12)]
    for mix, expected in ((TaskMix(0, 0, 0, 0, 1), set(range(4))), (TaskMix(0, 0, 0, 1, 0), set(range(12)))):
        drawn = PretrainingSampler(corpus, IDS, PretrainingSampling(videos=2, mix=mix), GEOMETRY, seed=1)
        assert set.union(*(shown(drawn.batch(step)) for step in range(12))) == expected


@pytest.mark.parametrize(
    ("silent", "mix", "message"),
    [
        (False, TaskMix(), "has 2 videos with subtitles and a batch of mlm takes 3"),
        (True, TaskMix(0, 1, 0, 0, 1), "has 2 videos and a batch of mfm_nce takes 3"),
        (
            True,
            TaskMix(0, 0, 0, 0, 1),
            "has 0 videos with subtitles and a batch of vsm takes 3; .*set sampling.mix.vsm to 0",
        ),
    ],
)
def test_too_few_videos_are_refused(silent: bool, mix: TaskMix, message: str) -> None:
    corpus = [make_video(number, silent=silent) for number in range(2)]
    with pytest.raises(DataError, match=message):
        PretrainingSampler(corpus, IDS, PretrainingSampling(videos=3, mix=mix), GEOMETRY, seed=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"videos": 0}, "sampling.videos is 0; expected at least 1"),
        ({"queries_per_video": 0}, "sampling.queries_per_video is 0"),
        ({"share": 1.5}, "sampling.share is 1.5; expected a share from 0 to 1"),
        ({"span_dropout": -0.1}, "sampling.span_dropout is -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PretrainingSampling(**settings)


@pytest.mark.parametrize("weights", [(0, 0, 0, 0, 0), (1, -1, 0, 0, 0), (float("nan"), 0, 0, 0, 0)])
def test_a_mix_of_no_task_is_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="expected at least 0, and one above"):
        TaskMix(*weights)
