"""Questions and statements through the SDK, on the graphs' modules: equal to the model's own forward pass, windows and all."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from hero_sdk import BundleError, Hero, InputError, VideoFeatures
from hero_sdk.answering import PACKED_TOGETHER, QuestionInput, question_text, score_answers, score_statements
from hero_sdk.manifest import QUESTION_ANSWERING, STATEMENTS
from hero_sdk.rows import pack_videos
from hero_sdk.tokens import TextTokenizer, separated
from hero_sdk.types import IntArray
from hero_sdk.video_inputs import video_inputs
from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements
from tests.tiny_checkpoint import ANSWERS, CONFIG, SENTENCES, TEXT_GEOMETRY, make_task_model
from tests.tiny_videos_in_memory import odd_videos
from tests.torch_engine import TorchEngine, torch_hero

LIMIT = TEXT_GEOMETRY.query_tokens


@pytest.fixture(scope="module")
def answerer() -> HeroForQuestionAnswering:
    model = make_task_model(QUESTION_ANSWERING)
    assert isinstance(model, HeroForQuestionAnswering)
    return model


@pytest.fixture(scope="module")
def judge() -> HeroForStatements:
    model = make_task_model(STATEMENTS)
    assert isinstance(model, HeroForStatements)
    return model


def tokens(*numbers: int) -> IntArray:
    return np.array(numbers, dtype=np.int32)


@pytest.mark.parametrize(
    ("question", "answer", "limit", "expected"),
    [
        ([2, 10, 11], [2, 20], 9, [2, 10, 11, 2, 20]),
        ([2, 10, 11], [2, 20], 5, [2, 10, 11, 2, 20]),
        ([2, 10, 11], [2, 20], 4, [2, 10, 2, 20]),
        ([2, 10, 11], [2, 20, 21, 22], 3, [2, 20, 21]),
    ],
)
def test_a_question_is_cut_at_its_end_and_its_answer_only_when_it_is_too_long_alone(
    question: list[int], answer: list[int], limit: int, expected: list[int]
) -> None:
    assert question_text(tokens(*question), tokens(*answer), limit).tolist() == expected


def inputs_of(hero: Hero, engine: TorchEngine, video: VideoFeatures) -> list:
    tokenizer = TextTokenizer(engine.tokenizer_json)
    return [window for _, window in video_inputs(video.features, video.subtitles, tokenizer, hero.manifest.model)]


@pytest.mark.parametrize("answers", [2, ANSWERS])
def test_logits_of_questions_are_the_models(answerer: HeroForQuestionAnswering, answers: int) -> None:
    hero, engine = torch_hero(answerer)
    windows = [window for video in odd_videos() for window in inputs_of(hero, engine, video)]
    rng = np.random.default_rng(0)
    questions = [
        QuestionInput(window, tuple(rng.integers(3, 90, 1 + number % LIMIT).astype(np.int32) for _ in range(answers)))
        for number, window in enumerate(windows)
    ]
    assert len(questions) > PACKED_TOGETHER
    found = score_answers(engine, questions)
    copies = [question.video for question in questions for _ in range(answers)]
    texts = [text for question in questions for text in question.texts]
    with torch.no_grad():
        expected = answerer(pack_videos(copies, TEXT_GEOMETRY, texts=texts), answers)
    np.testing.assert_allclose(found.answer[:, :answers], expected.answer, rtol=0, atol=1e-5)
    assert (found.answer[:, answers:] < -1e3).all()
    for edges, reference in ((found.start, expected.start), (found.end, expected.end)):
        np.testing.assert_allclose(edges, reference[:, : edges.shape[1]], rtol=0, atol=1e-5)


def test_logits_of_statements_are_the_models(judge: HeroForStatements) -> None:
    hero, engine = torch_hero(judge)
    windows = [window for video in odd_videos() for window in inputs_of(hero, engine, video)]
    texts = [np.arange(2, 3 + number % LIMIT, dtype=np.int32) for number in range(len(windows))]
    found = score_statements(engine, list(zip(windows, texts, strict=True)))
    with torch.no_grad():
        expected = judge(pack_videos(windows, TEXT_GEOMETRY, texts=texts))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_an_answer_says_which_how_probable_and_when(answerer: HeroForQuestionAnswering) -> None:
    hero, engine = torch_hero(answerer)
    offered = SENTENCES[:ANSWERS]
    for video in odd_videos():
        answer = hero.answer(video, " where is the gem ", offered)
        assert answer.text == offered[answer.index]
        assert answer.probabilities[answer.index] == max(answer.probabilities)
        assert sum(answer.probabilities) == pytest.approx(1)
        assert 0 <= answer.start < answer.end <= video.seconds(CONFIG.clip_interval)
        tokenizer = TextTokenizer(engine.tokenizer_json)
        texts = [
            question_text(separated(tokenizer, "where is the gem"), separated(tokenizer, one), LIMIT) for one in offered
        ]
        windows = inputs_of(hero, engine, video)
        logits = score_answers(engine, [QuestionInput(window, tuple(texts)) for window in windows])
        best = logits.answer.max(axis=0)
        assert answer.index == best.argmax()
        # Its moment lies in the window that speaks most for it, and no other span there is more probable.
        window = int(logits.answer[:, answer.index].argmax())
        shift = video_inputs(video.features, video.subtitles, tokenizer, hero.manifest.model)[window][0].start
        length = len(windows[window].features)
        pairs = [(first, last) for first in range(length) for last in range(first, length)]
        first, last = max(pairs, key=lambda pair: logits.start[window, pair[0]] + logits.end[window, pair[1]])
        assert answer.start == pytest.approx((shift + first) * CONFIG.clip_interval)
        assert answer.end == pytest.approx((shift + last + 1) * CONFIG.clip_interval)


def test_the_answer_that_stands_first_is_no_better_for_it(answerer: HeroForQuestionAnswering) -> None:
    hero, _ = torch_hero(answerer)
    video, offered = odd_videos()[2], SENTENCES[:ANSWERS]
    forward, backward = (hero.answer(video, "who are you", answers) for answers in (offered, offered[::-1]))
    assert forward.text == backward.text
    np.testing.assert_allclose(forward.probabilities, backward.probabilities[::-1], rtol=0, atol=1e-5)


def test_a_moment_ends_with_its_video(answerer: HeroForQuestionAnswering) -> None:
    hero, _ = torch_hero(answerer)
    features = odd_videos()[0].features
    answer = hero.answer(VideoFeatures(features, duration=0.9), "who are you", ["a", "b"])
    assert (answer.start, answer.end) == (0, 0.9)


def test_many_questions_are_answered_as_each_alone(answerer: HeroForQuestionAnswering) -> None:
    hero, engine = torch_hero(answerer)
    video = odd_videos()[4]
    questions = [(sentence, SENTENCES[: 2 + number % 2]) for number, sentence in enumerate(SENTENCES * 3)]
    engine.calls.clear()
    together = hero.answer_many(video, questions)
    assert [batch for graph, batch in engine.calls if graph == "answer"] == [4, 4, 4]
    for found, question in zip(together, questions, strict=True):
        alone = hero.answer(video, *question)
        assert (found.index, found.start, found.end) == (alone.index, alone.start, alone.end)
        np.testing.assert_allclose(found.probabilities, alone.probabilities, rtol=0, atol=1e-5)
    assert hero.answer_many(video, []) == []


def test_a_judgement_is_true_above_even_odds(judge: HeroForStatements) -> None:
    hero, engine = torch_hero(judge)
    tokenizer = TextTokenizer(engine.tokenizer_json)
    seen = set()
    for video in odd_videos():
        windows = inputs_of(hero, engine, video)
        for statement, found in zip(SENTENCES, hero.judge_many(video, SENTENCES), strict=True):
            text = separated(tokenizer, statement)[:LIMIT]
            logit = score_statements(engine, [(window, text) for window in windows]).max()
            assert found.probability == pytest.approx(1 / (1 + np.exp(-float(logit))), abs=1e-6)
            assert found.true == (found.probability > 0.5)
            assert hero.judge(video, f" {statement} ").probability == pytest.approx(found.probability, abs=1e-5)
            seen.add(found.true)
    assert seen == {True, False}
    assert hero.judge_many(odd_videos()[0], []) == []


def test_texts_that_are_too_long_are_cut_with_a_log_message(
    judge: HeroForStatements, answerer: HeroForQuestionAnswering, caplog: pytest.LogCaptureFixture
) -> None:
    video, long = odd_videos()[2], "the robot takes a red gem " * 5
    with caplog.at_level(logging.WARNING, "hero_sdk"):
        torch_hero(judge)[0].judge(video, long)
        torch_hero(answerer)[0].answer(video, long, ["a", "b"])
    assert f"tokens and the model reads {LIMIT}; the rest is cut: the robot takes" in caplog.text
    assert f"A question and its answer have more than {LIMIT} tokens" in caplog.text


def test_what_cannot_be_asked(answerer: HeroForQuestionAnswering, judge: HeroForStatements, tmp_path: Path) -> None:
    hero, video = torch_hero(answerer)[0], odd_videos()[0]
    for question, answers, message in (
        ("", ["a", "b"], "question is ''"),
        ("who", ["a", " "], "answer is ' '"),
        ("who", ["a"], "has 1 answers; expected at least two"),
        ("who", ["a"] * (ANSWERS + 1), f"takes 1 to {ANSWERS}. Export it again with more --answers"),
    ):
        with pytest.raises(InputError, match=message):
            hero.answer(video, question, answers)
    with pytest.raises(InputError, match="features of shape"):
        hero.answer(VideoFeatures(np.zeros((3, 5), np.float32)), "who", ["a", "b"])
    with pytest.raises(InputError, match="statement is 3"):
        torch_hero(judge)[0].judge(video, 3)  # type: ignore[arg-type]


def test_a_bundle_of_another_task_says_which_one_is_needed(
    answerer: HeroForQuestionAnswering, judge: HeroForStatements, tmp_path: Path
) -> None:
    hero, video = torch_hero(answerer)[0], odd_videos()[0]
    for call, task in (
        (lambda: hero.judge(video, "a"), "Hero.judge needs one for statements"),
        (lambda: hero.caption(video, 0, 1), "Hero.caption needs one for captioning"),
        (lambda: hero.encode_query("a"), "Hero.encode_query needs one for retrieval"),
        (lambda: hero.encode_features(video.features), "Hero.encode_video needs one for retrieval or captioning"),
        (lambda: hero.corpus(tmp_path / "corpus"), "Hero.corpus needs one for retrieval"),
    ):
        with pytest.raises(BundleError, match=rf"bundle is for question answering, and {task}"):
            call()
    assert not (tmp_path / "corpus").exists()
    with pytest.raises(
        BundleError, match=r"bundle is for statements, and Hero\.answer needs one for question answering"
    ):
        torch_hero(judge)[0].answer(video, "who", ["a", "b"])
