"""Which questions and statements a training step draws: all in turn, pairs together, the same for the same seed and step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hero_sdk.rows import Segment, VideoInput
from hero_train.data.answer_sampling import AnswerSampler, AnswerSampling, QuestionSampling
from hero_train.data.answers import UNKNOWN_MOMENT, EncodedQuestion, EncodedStatement
from hero_train.data.augmentation import AugmentationConfig
from hero_train.errors import ConfigError, DataError
from hero_train.losses import IGNORED_TARGET

VIDEO = VideoInput(np.ones((3, 4), np.float32), (Segment(np.arange(3, dtype=np.int32), np.array([2, 5], np.int32)),))
TEXT = np.array([2, 6], np.int32)


def questions(count: int) -> list[EncodedQuestion]:
    return [EncodedQuestion(str(number), VIDEO, TEXT, (TEXT, TEXT), 0, (0, 1)) for number in range(count)]


def sampler(count: int, items: int, seed: int = 5, rank: int = 0, world: int = 1) -> AnswerSampler[EncodedQuestion]:
    return AnswerSampler(questions(count), AnswerSampling(items), seed, rank, world)


def drawn(one: AnswerSampler[EncodedQuestion], step: int) -> list[str]:
    return [question.question_id for question in one.batch(step)]


def test_every_question_is_drawn_once_in_each_pass() -> None:
    two = [sampler(7, 2, rank=rank, world=2) for rank in range(2)]
    for step in range(4):
        assert len({name for one in two for name in drawn(one, step)}) == 4
    single = sampler(7, 1)
    passes = [[name for step in steps for name in drawn(single, step)] for steps in (range(7), range(7, 14))]
    assert sorted(passes[0]) == sorted(passes[1]) == [str(number) for number in range(7)]
    assert passes[0] != passes[1], "another pass, another order"


def test_the_seed_and_the_step_decide_what_is_drawn() -> None:
    assert drawn(sampler(50, 8), 3) == drawn(sampler(50, 8), 3)
    assert drawn(sampler(50, 8), 3) != drawn(sampler(50, 8, seed=6), 3)
    assert not set(drawn(sampler(50, 8), 0)) & set(drawn(sampler(50, 8), 1))
    # Two processes share what one would draw.
    halves = [drawn(sampler(50, 4, rank=rank, world=2), 0) for rank in range(2)]
    assert halves[0] + halves[1] == drawn(sampler(50, 8), 0)


def test_statements_that_were_written_together_are_drawn_together() -> None:
    statements = [EncodedStatement(str(number), VIDEO, TEXT, number % 2 == 0, str(number // 2)) for number in range(8)]
    alone = EncodedStatement("alone", VIDEO, TEXT, True)
    one = AnswerSampler([*statements[::2], alone, *statements[1::2]], AnswerSampling(2), 1)
    for step in range(6):
        pairs: dict[str | None, list[bool | None]] = {}
        for statement in one.batch(step):
            pairs.setdefault(statement.pair, []).append(statement.label)
        assert len(pairs) == 2
        assert all(sorted(map(bool, labels)) == [False, True] for pair, labels in pairs.items() if pair is not None)


def test_noise_reaches_the_videos_and_is_the_same_again() -> None:
    noisy = AnswerSampling(2, AugmentationConfig(feature_noise=0.1))
    batches = [AnswerSampler(questions(6), noisy, 1).batch(0) for _ in range(2)]
    features = [question.video.features for question in batches[0]]
    assert not np.array_equal(features[0], VIDEO.features)
    assert not np.array_equal(features[0], features[1])
    assert all(np.array_equal(one, two.video.features) for one, two in zip(features, batches[1], strict=True))


def test_too_few_for_a_batch() -> None:
    with pytest.raises(DataError, match=r"has 3 questions or pairs .* a batch takes 4; lower sampling\.items"):
        sampler(3, 2, world=2)
    with pytest.raises(ConfigError, match=r"sampling\.items is 0"):
        AnswerSampling(0)


def answered(correct: int) -> EncodedQuestion:
    answers = tuple(np.array([2, 10 + place], np.int32) for place in range(5))
    return EncodedQuestion("one", VIDEO, TEXT, answers, correct, (0, 1))


def test_a_question_is_asked_with_the_right_answer_and_some_others() -> None:
    one = AnswerSampler([answered(3)], QuestionSampling(1, answers=3), 1)
    seen = set()
    for step in range(30):
        (question,) = one.batch(step)
        words = [int(answer[1]) - 10 for answer in question.answers]
        assert len(words) == 3
        assert words == sorted(words), "answers keep their order"
        assert words[question.correct] == 3
        seen.update(words)
    assert seen == set(range(5)), "other passes bring other answers"


@pytest.mark.parametrize(("correct", "count"), [(3, None), (3, 5), (IGNORED_TARGET, 2)])
def test_all_answers_are_read_where_none_may_be_left_out(correct: int, count: int | None) -> None:
    (question,) = AnswerSampler([answered(correct)], QuestionSampling(1, answers=count), 1).batch(0)
    assert len(question.answers) == 5
    assert question.correct == correct


def test_one_answer_is_no_choice() -> None:
    with pytest.raises(ConfigError, match=r"sampling\.answers is 1; expected at least 2"):
        QuestionSampling(answers=1)


def spoken(clips: int) -> VideoInput:
    """A video whose features and tokens tell their clips."""
    segments = [
        Segment(np.array([clip, clip + 1], np.int32), np.array([2, clip], np.int32)) for clip in range(0, clips, 2)
    ]
    return VideoInput(np.arange(clips, dtype=np.float32)[:, None], tuple(segments))


def test_a_video_is_cut_to_the_moment_that_answers() -> None:
    question = EncodedQuestion("one", spoken(12), TEXT, (TEXT, TEXT), 0, (5, 7))
    one = AnswerSampler([question], QuestionSampling(1, crop=1.0, margin=2), 1)
    begins, ends = set(), set()
    for step in range(40):
        (cut,) = one.batch(step)
        shown = cut.video.features[:, 0].astype(int).tolist()
        assert shown == list(range(shown[0], shown[-1] + 1))
        assert [shown[place] for place in cut.moment] == [5, 7]
        for part in cut.video.segments:
            # Each segment still has the clips that its words were spoken over.
            assert {shown[frame] - shown[frame] % 2 for frame in part.frames} == {int(part.tokens[1])}
        assert sum(len(part.frames) for part in cut.video.segments) == len(shown)
        begins.add(shown[0])
        ends.add(shown[-1])
    assert begins == {3, 4, 5}
    assert ends == {7, 8, 9}


def test_statements_are_cut_as_questions_are() -> None:
    statement = EncodedStatement("one", spoken(12), TEXT, True, moment=(5, 7))
    one = AnswerSampler([statement], AnswerSampling(1, crop=1.0, margin=2), 1)
    begins = set()
    for step in range(20):
        (cut,) = one.batch(step)
        shown = cut.video.features[:, 0].astype(int).tolist()
        assert [shown[place] for place in cut.moment] == [5, 7]
        begins.add(shown[0])
    assert begins == {3, 4, 5}
    (whole,) = AnswerSampler(
        [dataclasses.replace(statement, moment=UNKNOWN_MOMENT)], AnswerSampling(1, crop=1.0), 1
    ).batch(0)
    assert len(whole.video.features) == 12


def test_a_moment_at_the_edge_and_one_that_nobody_marked() -> None:
    def cut(moment: tuple[int, int]) -> EncodedQuestion:
        question = EncodedQuestion("one", spoken(4), TEXT, (TEXT, TEXT), 0, moment)
        return AnswerSampler([question], QuestionSampling(1, crop=1.0, margin=9), 1).batch(0)[0]

    for moment in ((0, 1), (3, 3)):
        shown = cut(moment).video.features[:, 0]
        assert [shown[place] for place in cut(moment).moment] == list(moment)
    assert len(cut((IGNORED_TARGET, IGNORED_TARGET)).video.features) == 4


@pytest.mark.parametrize(
    ("entries", "name"), [({"crop": 1.5}, "crop"), ({"crop": -0.1}, "crop"), ({"margin": -1}, "margin")]
)
def test_a_cut_that_cannot_be_is_refused(entries: dict[str, float], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"sampling\.{name} is"):
        AnswerSampling(**entries)
