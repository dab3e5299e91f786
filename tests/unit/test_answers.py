"""Question answering and statements: how checkpoints are kept, what depends on what, and what the losses count.

That the models compute what the authors' do is shown in tests/parity.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hero_sdk.errors import InputError
from hero_sdk.rows import RowGeometry, Segment, VideoInput, pack_videos
from hero_train.config import CONFIG_FILE, CaptioningConfig, HeroConfig
from hero_train.errors import CheckpointError, ConfigError
from hero_train.geometry import check_text_geometry
from hero_train.losses_answers import question_loss, statement_loss
from hero_train.model.answers import (
    AnswerOutput,
    HeroForQuestionAnswering,
    HeroForStatements,
    HeroWithText,
    QuestionAnsweringConfig,
)
from hero_train.model.hero import HeroModel
from hero_train.model.layers import initialise
from tests.tiny_training import tiny_config

GEOMETRY = RowGeometry(32, 16, 24)
Model = TypeVar("Model", bound=HeroWithText)

QUESTION = [2, 11, 12]
ANSWERS = [[2, 21], [2, 22, 23], [2, 24], [2, 25, 26, 27], [2, 28]]


def int32(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def make_video(seed: int, frames: int) -> VideoInput:
    """A video with a subtitle over its first three frames and one that owns the fifth."""
    features = np.random.default_rng(seed).standard_normal((frames, 6), dtype=np.float32)
    return VideoInput(features, (Segment(int32([0, 1, 2]), int32([2, 5, 6])), Segment(int32([4]), int32([2, 7]))))


def answer(model: HeroForQuestionAnswering, videos: list[VideoInput], answers: list[list[int]]) -> AnswerOutput:
    """The same question and answers to each of the videos."""
    texts = [int32(QUESTION + one) for _ in videos for one in answers]
    copies = [video for video in videos for _ in answers]
    return model(pack_videos(copies, GEOMETRY, texts=texts), len(answers))


@pytest.fixture
def questions() -> HeroForQuestionAnswering:
    return large_weights(HeroForQuestionAnswering)


@pytest.fixture
def statements() -> HeroForStatements:
    return large_weights(HeroForStatements)


def large_weights(kind: type[Model]) -> Model:
    """A model whose weights are large enough for everything in it to show in its output."""
    torch.manual_seed(0)
    model = kind(tiny_config())
    initialise(model, 0.3)
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "task"), [(HeroForQuestionAnswering, "question answering"), (HeroForStatements, "statements")]
)
def test_a_checkpoint_says_its_task_and_comes_back_bit_for_bit(
    kind: type[HeroWithText], task: str, tmp_path: Path
) -> None:
    model = large_weights(kind)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / CONFIG_FILE).read_text(encoding="utf-8"))["task"] == task
    loaded = kind.from_pretrained(tmp_path)
    assert type(loaded) is kind
    assert loaded.config == model.config
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_a_checkpoint_is_loaded_by_the_class_of_its_task_only(
    questions: HeroForQuestionAnswering, tmp_path: Path
) -> None:
    questions.save_pretrained(tmp_path / "questions")
    HeroModel(tiny_config()).save_pretrained(tmp_path / "retrieval")
    with pytest.raises(ConfigError, match="is of a model for question answering; expected one for retrieval"):
        HeroModel.from_pretrained(tmp_path / "questions")
    with pytest.raises(ConfigError, match="is of a model for question answering; expected one for statements"):
        HeroForStatements.from_pretrained(tmp_path / "questions")
    with pytest.raises(ConfigError, match="is of a model for retrieval; expected one for question answering"):
        HeroForQuestionAnswering.from_pretrained(tmp_path / "retrieval")


def test_a_checkpoint_of_retrieval_says_no_task(tmp_path: Path) -> None:
    tiny_config().save(tmp_path)
    assert "task" not in json.loads((tmp_path / CONFIG_FILE).read_text(encoding="utf-8"))


def test_weights_of_another_task_under_its_name_are_refused(
    questions: HeroForQuestionAnswering, tmp_path: Path
) -> None:
    HeroModel(tiny_config()).save_pretrained(tmp_path)
    questions.config.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"missing \['answer.inner.bias'"):
        HeroForQuestionAnswering.from_pretrained(tmp_path)


def test_a_configuration_of_another_task_gives_its_sizes() -> None:
    config = QuestionAnsweringConfig.of(tiny_config(clip_limit=7))
    assert config.clip_limit == 7
    assert HeroConfig.of(config) == tiny_config(clip_limit=7)
    captions = CaptioningConfig(hidden_size=24, decoder_layers=5)
    assert QuestionAnsweringConfig.of(captions) == QuestionAnsweringConfig(hidden_size=24)
    assert CaptioningConfig.of(tiny_config()).decoder_layers == CaptioningConfig().decoder_layers


def test_the_order_of_the_answers_is_the_order_of_the_logits(questions: HeroForQuestionAnswering) -> None:
    order = [3, 0, 4, 2, 1]
    video = make_video(0, 7)
    straight = answer(questions, [video], ANSWERS)
    mixed = answer(questions, [video], [ANSWERS[place] for place in order])
    assert straight.answer.std() > 0.01, "all answers look alike, so the order would not show"
    torch.testing.assert_close(mixed.answer[0], straight.answer[0, order], atol=1e-5, rtol=0)
    # The moment is pooled over the answers, whichever comes first.
    torch.testing.assert_close(mixed.start, straight.start, atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed.end, straight.end, atol=1e-5, rtol=0)


def test_an_answer_takes_no_notice_of_the_others_but_the_moment_does(questions: HeroForQuestionAnswering) -> None:
    video = make_video(0, 7)
    five, four = answer(questions, [video], ANSWERS), answer(questions, [video], ANSWERS[:4])
    assert four.answer.shape == (1, 4)
    torch.testing.assert_close(four.answer, five.answer[:, :4], atol=1e-5, rtol=0)
    assert (four.start - five.start).abs().max() > 1e-3


def test_logits_of_moments_end_where_the_video_ends(questions: HeroForQuestionAnswering) -> None:
    output = answer(questions, [make_video(0, 6), make_video(1, 9)], ANSWERS)
    assert output.start.shape == output.end.shape == (2, 9)
    for logits in (output.start, output.end):
        assert (logits[0, 6:] == -1e4).all()
        assert (logits[0, :6] > -100).all()
        assert (logits[1] > -100).all()


@pytest.mark.parametrize("what", ["a frame", "a subtitle", "the statement", "a frame without subtitle"])
def test_a_statement_is_judged_by_all_that_the_video_holds(statements: HeroForStatements, what: str) -> None:
    video, text = make_video(0, 7), [2, 11, 12]
    features, (first, second) = video.features.copy(), video.segments
    if what == "a frame":
        features[1] += np.arange(6)
    elif what == "a frame without subtitle":
        features[5] += np.arange(6)
    elif what == "a subtitle":
        first = Segment(first.frames, int32([2, 5, 8]))
    else:
        text = [2, 11, 13]
    changed = VideoInput(features, (first, second))
    before = statements(pack_videos([video], GEOMETRY, texts=[int32([2, 11, 12])]))
    after = statements(pack_videos([changed], GEOMETRY, texts=[int32(text)]))
    assert before.shape == (1,)
    assert (after - before).abs() > 1e-4


def test_a_text_may_be_longer_than_there_are_clip_positions() -> None:
    torch.manual_seed(0)
    model = HeroForStatements(tiny_config(temporal_positions=8, clip_limit=8)).eval()
    geometry = RowGeometry(32, 16, 32)
    texts = [int32([2, *range(10, 30)])]
    logits = model(pack_videos([make_video(0, 6)], geometry, texts=texts))
    wider = HeroForStatements(tiny_config(temporal_positions=32, clip_limit=8)).eval()
    state = model.state_dict()
    rows = wider.temporal.position.weight.detach().clone()
    rows[:8] = state["temporal.position.weight"]
    wider.load_state_dict({**state, "temporal.position.weight": rows})
    assert torch.equal(wider(pack_videos([make_video(0, 6)], geometry, texts=texts)), logits)


def test_videos_without_texts_are_refused(questions: HeroForQuestionAnswering, statements: HeroForStatements) -> None:
    packed = pack_videos([make_video(0, 6)], GEOMETRY)
    with pytest.raises(InputError, match="packed without texts; pass texts to pack_videos"):
        statements(packed)
    with pytest.raises(InputError, match="packed without texts; pass texts to pack_videos"):
        questions(packed, 1)


def test_answers_that_do_not_belong_together_are_refused(questions: HeroForQuestionAnswering) -> None:
    texts = [int32([2, 11])] * 4
    packed = pack_videos(
        [make_video(0, 6), make_video(0, 6), make_video(0, 6), make_video(1, 7)], GEOMETRY, texts=texts
    )
    for answers in (3, 0):
        with pytest.raises(InputError, match=f"4 videos were packed for questions of {answers} answers"):
            questions(packed, answers)
    with pytest.raises(InputError, match=r"answers of question 1 have videos of \[6, 7\] frames"):
        questions(packed, 2)


def logits(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_question_loss_is_that_of_the_paper() -> None:
    output = AnswerOutput(logits(3, 5), logits(3, 8), logits(3, 9))
    correct, moments = torch.tensor([4, 0, 2]), torch.tensor([[1, 2], [0, 7], [3, 3]])
    loss = question_loss(output, correct, moments)
    answers = -output.answer.log_softmax(1)[torch.arange(3), correct].mean()
    start = -output.start.log_softmax(1)[torch.arange(3), moments[:, 0]].mean()
    end = -output.end.log_softmax(1)[torch.arange(3), moments[:, 1]].mean()
    torch.testing.assert_close(loss.total, answers + 0.4 * (start + end) / 2)
    assert question_loss(output, correct, moments, span_weight=0.0).total == loss.answer


def test_what_is_not_known_does_not_count() -> None:
    output = AnswerOutput(logits(2, 4), logits(2, 6), logits(2, 6))
    correct, moments = torch.tensor([-1, 3]), torch.tensor([[2, 4], [-1, -1]])
    loss = question_loss(output, correct, moments)
    answered = question_loss(AnswerOutput(*(part[1:] for part in vars(output).values())), correct[1:], moments[1:])
    marked = question_loss(AnswerOutput(*(part[:1] for part in vars(output).values())), correct[:1], moments[:1])
    torch.testing.assert_close(loss.answer, answered.answer)
    torch.testing.assert_close(loss.span, marked.span)
    assert answered.span == marked.answer == 0


def test_the_statement_loss_is_the_mean_over_known_labels() -> None:
    scores = logits(4)
    expected = F.binary_cross_entropy(scores[[0, 1, 3]].sigmoid(), torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(statement_loss(scores, torch.tensor([1, 0, -1, 1])), expected)
    assert statement_loss(scores, torch.full((4,), -1)) == 0


def test_a_sure_and_wrong_statement_has_a_finite_loss() -> None:
    assert statement_loss(torch.tensor([200.0]), torch.tensor([0])) == 200


def test_training_finds_the_right_answer_and_its_moment() -> None:
    """Two questions on one video, which differ in their words only: all of the video, text and heads must work together."""
    torch.manual_seed(0)
    model = HeroForQuestionAnswering(tiny_config())
    video = make_video(0, 8)
    texts = [int32([2, question, *one]) for question in (11, 12) for one in ANSWERS]
    packed = pack_videos([video] * len(texts), GEOMETRY, texts=texts)
    correct, moments = torch.tensor([3, 1]), torch.tensor([[1, 2], [5, 6]])
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimiser.zero_grad()
        output = model(packed, len(ANSWERS))
        question_loss(output, correct, moments).total.backward()
        optimiser.step()
    assert output.answer.argmax(dim=1).tolist() == correct.tolist()
    assert torch.stack([output.start.argmax(dim=1), output.end.argmax(dim=1)], dim=1).tolist() == moments.tolist()


def test_rows_that_hold_every_video_beside_every_text_pass_and_shorter_ones_do_not() -> None:
    config = tiny_config(clip_limit=10)
    fits = RowGeometry(slots=12, frames=8, temporal_slots=20, query_tokens=10)
    check_text_geometry(fits, config)
    video = VideoInput(np.zeros((10, 6), np.float32), (Segment(int32(list(range(10))), int32([2, 5])),))
    pack_videos([video], fits, texts=[int32([2] * 10)])
    with pytest.raises(
        ConfigError, match=r"Rows of 11 slots .* rows.slots 12 or more, or rows.query_tokens 9 or fewer"
    ):
        check_text_geometry(dataclasses.replace(fits, slots=11), config)
    with pytest.raises(
        ConfigError, match=r"Rows of 19 slots .* rows.temporal_slots 20 or more, or .*_tokens 9 or fewer"
    ):
        check_text_geometry(dataclasses.replace(fits, temporal_slots=19), config)
    with pytest.raises(ConfigError, match=r"Choose rows.temporal_slots 10 or more"):
        check_text_geometry(dataclasses.replace(fits, temporal_slots=9), config)
