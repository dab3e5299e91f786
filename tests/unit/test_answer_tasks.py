"""Questions and statements from batches to losses and accuracies, and from official checkpoints to models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hero_sdk.rows import RowGeometry, Segment, VideoInput, pack_videos
from hero_train.data.answers import EncodedQuestion, EncodedStatement, collate_questions, collate_statements
from hero_train.errors import CheckpointError, DataError
from hero_train.evaluate_answers import (
    BATCH,
    answer_questions,
    evaluate_questions,
    evaluate_statements,
    judge_statements,
)
from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements
from hero_train.model.layers import initialise
from hero_train.official_models import task_model_from_official
from hero_train.tasks import answers as tasks
from hero_train.tasks.answers import QuestionTask, StatementTask
from tests.parity.oracle import read_dump
from tests.tiny_training import tiny_config

GEOMETRY = RowGeometry(32, 16, 32)
COUNT = BATCH + 3
HEADS = 4


def int32(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def make_video(number: int) -> VideoInput:
    features = np.random.default_rng(number).standard_normal((4 + number % 3, 6), dtype=np.float32)
    return VideoInput(features, (Segment(int32(0, 1), int32(2, 5 + number)), Segment(int32(3), int32(2, 7))))


QUESTIONS = [
    EncodedQuestion(
        f"q{number}",
        make_video(number),
        int32(2, 20 + number),
        (int32(2, 8), int32(2, 9, 10), int32(2, 11), int32(2, 12)),
        number % 5 - 1,
        (1, 2) if number % 2 else (-1, -1),
    )
    for number in range(COUNT)
]
STATEMENTS = [
    EncodedStatement(f"s{number}", make_video(number), int32(2, 20 + number), [None, True, False, True][number % 4])
    for number in range(COUNT)
]


@pytest.fixture
def questions() -> HeroForQuestionAnswering:
    torch.manual_seed(0)
    model = HeroForQuestionAnswering(tiny_config())
    initialise(model, 0.3)
    return model


@pytest.fixture
def statements() -> HeroForStatements:
    torch.manual_seed(1)
    model = HeroForStatements(tiny_config())
    initialise(model, 0.3)
    return model


def chosen_one_by_one(model: HeroForQuestionAnswering) -> list[int]:
    """The answers of each question, alone."""
    found = []
    for question in QUESTIONS:
        texts = [np.concatenate([question.tokens, answer]) for answer in question.answers]
        packed = pack_videos([question.video] * len(texts), GEOMETRY, texts=texts)
        found.append(int(model.eval()(packed, len(texts)).answer.argmax()))
    return found


def judged_one_by_one(model: HeroForStatements) -> list[bool]:
    packed = [pack_videos([one.video], GEOMETRY, texts=[one.tokens]) for one in STATEMENTS]
    return [bool(model.eval()(one) > 0) for one in packed]


def test_questions_are_answered_as_each_alone(questions: HeroForQuestionAnswering) -> None:
    expected = chosen_one_by_one(questions)
    assert len(set(expected)) > 1, "the model always says the same"
    assert answer_questions(questions, QUESTIONS, GEOMETRY).tolist() == expected
    assert answer_questions(questions, [], GEOMETRY).tolist() == []


def test_statements_are_judged_as_each_alone(statements: HeroForStatements) -> None:
    expected = judged_one_by_one(statements)
    assert len(set(expected)) == 2, "the model always says the same"
    assert judge_statements(statements, STATEMENTS, GEOMETRY).tolist() == [int(one) for one in expected]


def test_accuracy_counts_the_questions_whose_answer_is_known(questions: HeroForQuestionAnswering) -> None:
    chosen = chosen_one_by_one(questions)
    known = [number for number in range(COUNT) if QUESTIONS[number].correct >= 0]
    right = sum(chosen[number] == QUESTIONS[number].correct for number in known)
    assert 0 < right < len(known) < COUNT
    found = evaluate_questions(questions, QUESTIONS, GEOMETRY)
    assert found.metrics == {"all": {"accuracy": right / len(known)}}
    assert found.baselines["chance"] == {"accuracy": 0.25}
    assert found.counts == {"questions": len(known)}


def test_the_majority_of_statements_is_to_say_what_is_true_more_often(statements: HeroForStatements) -> None:
    judged = judged_one_by_one(statements)
    known = [number for number in range(COUNT) if STATEMENTS[number].label is not None]
    right = sum(judged[number] == STATEMENTS[number].label for number in known)
    true = sum(STATEMENTS[number].label is True for number in known)
    assert true > len(known) / 2
    found = evaluate_statements(statements, STATEMENTS, GEOMETRY)
    assert found.metrics == {"all": {"accuracy": right / len(known)}}
    assert found.baselines == {"chance": {"accuracy": 0.5}, "majority": {"accuracy": true / len(known)}}
    assert found.counts == {"statements": len(known)}
    falsehoods = [one for one in STATEMENTS if one.label is False]
    assert evaluate_statements(statements, falsehoods, GEOMETRY).baselines["majority"] == {"accuracy": 1}


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_drops_nothing_and_leaves_the_mode_as_it_was(training: bool) -> None:
    torch.manual_seed(0)
    model = HeroForQuestionAnswering(tiny_config(hidden_dropout=0.5)).train(training)
    answers = [answer_questions(model, QUESTIONS, GEOMETRY).tolist() for _ in range(2)]
    assert answers[0] == answers[1] == chosen_one_by_one(model)
    assert answer_questions(model.train(training), QUESTIONS[:1], GEOMETRY).shape == (1,)
    assert model.training is training


def test_nothing_to_evaluate_is_refused(questions: HeroForQuestionAnswering, statements: HeroForStatements) -> None:
    with pytest.raises(DataError, match="The split has no questions whose answer is known"):
        evaluate_questions(questions, [one for one in QUESTIONS if one.correct < 0], GEOMETRY)
    with pytest.raises(DataError, match="The split has no statements whose answer is known"):
        evaluate_statements(statements, [one for one in STATEMENTS if one.label is None], GEOMETRY)


def test_the_loss_of_a_batch_of_questions(questions: HeroForQuestionAnswering) -> None:
    part = [one for one in QUESTIONS if one.correct >= 0 and one.moment[0] >= 0][:3]
    batch = collate_questions(part, GEOMETRY)
    output = questions(batch.packed, batch.answers)
    first, last = torch.ones(len(part), dtype=torch.long), torch.full((len(part),), 2)
    moments = F.cross_entropy(output.start, first) + F.cross_entropy(output.end, last)
    loss = QuestionTask(questions, span_weight=3.0)(batch)
    torch.testing.assert_close(loss.answer, F.cross_entropy(output.answer, torch.tensor([one.correct for one in part])))
    torch.testing.assert_close(loss.span, 3.0 * moments / 2)


def test_losses_are_taken_in_full_precision(
    questions: HeroForQuestionAnswering, statements: HeroForStatements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "question_loss", lambda output, *_: output)
    monkeypatch.setattr(tasks, "statement_loss", lambda logits, *_: logits)
    asked, stated = collate_questions(QUESTIONS, GEOMETRY), collate_statements(STATEMENTS, GEOMETRY)
    with torch.autocast("cpu", torch.bfloat16):
        assert statements(stated.packed).dtype == torch.bfloat16
        assert StatementTask(statements)(stated).dtype == torch.float32
        seen = vars(QuestionTask(questions)(asked)).values()
        assert [part.dtype for part in seen] == [torch.float32] * 3


def test_a_few_steps_learn_which_statements_are_true() -> None:
    torch.manual_seed(0)
    model = HeroForStatements(tiny_config())
    part = [one for one in STATEMENTS if one.label is not None][:6]
    task, batch = StatementTask(model), collate_statements(part, GEOMETRY)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(100):
        optimiser.zero_grad()
        task(batch).backward()
        optimiser.step()
    assert evaluate_statements(model, part, GEOMETRY).metrics["all"]["accuracy"] == 1


def test_an_official_head_of_another_shape_is_named() -> None:
    state = dict(read_dump("videoQA_state_dict")["state_dict"])
    state["qa_pred_head.linear_2.weight"] = torch.zeros(3, state["qa_pred_head.linear_2.weight"].shape[1])
    with pytest.raises(CheckpointError, match=r"qa_pred_head.linear_2.weight is \(3, .*answer.output.weight"):
        task_model_from_official(state, num_heads=HEADS)
