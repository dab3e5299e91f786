"""Multiple-choice questions about videos (TVQA, How2QA), with the moment that answers where it is known.

Run with ``hero-train run CONFIG.yaml``, ``task: questions``. The output folder gets what ``recipes.retrieval`` lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hero_sdk.tokens import TextTokenizer
from hero_train.data.answer_annotations import Question, read_questions
from hero_train.data.answer_sampling import AnswerSampler
from hero_train.data.answers import EncodedQuestion, collate_questions, encode_questions
from hero_train.data.features import VideoFeatures
from hero_train.evaluate_answers import answer_questions, evaluate_questions
from hero_train.evaluation import Evaluation, evenly
from hero_train.model.answers import HeroForQuestionAnswering
from hero_train.recipes.setup import Frames, load_judged, make_model, make_tokenizer, start_from, tell_cuts
from hero_train.run_config import QuestionRunConfig, Split
from hero_train.submissions import write_answers
from hero_train.tasks.answers import QuestionTask
from hero_train.training import RunResult, Session


def run(config: QuestionRunConfig, *, resume: bool = False, console: Console | None = None) -> RunResult:
    """Train and evaluate; arguments and errors as in ``recipes.retrieval``."""
    session = Session(config, resume, console)
    questions = {split: read_questions(path) for split, path in config.data.annotations().items()}
    trained_on = [question.video_id for question in questions["train"]]
    texts = [text for question in questions["train"] for text in (question.text, *question.answers)]
    tokenizer_json = make_tokenizer(session, texts, trained_on)
    tokenizer = TextTokenizer(tokenizer_json)
    frames = Frames.of(config, trained_on)
    model = make_model(HeroForQuestionAnswering, session, tokenizer, frames.width)
    session.prepare_output()
    wanted = [question.video_id for items in questions.values() for question in items]
    features = frames.read(session, model.config.clip_interval, wanted)
    if config.has_random_frames:
        start_from(model, features, trained_on)
    splits = {split: build(config, items, features, tokenizer, model) for split, items in questions.items()}
    tell_cuts(
        session,
        "questions with an answer",
        [len(one.tokens) + len(answer) for one in splits["train"] for answer in one.answers],
    )
    sampler = AnswerSampler(splits["train"], config.sampling, config.seed, session.rank, session.world)

    def judge(judged: HeroForQuestionAnswering, split: Split) -> Evaluation:
        return evaluate_questions(judged, splits[split], config.rows)

    session.train(
        QuestionTask(model, config.span_weight),
        model,
        batch=lambda step, part: collate_questions(
            sampler.batch(step * config.optimisation.accumulation + part), config.rows
        ),
        save=lambda judged: session.save_checkpoint(judged, tokenizer_json),
        evaluate=(lambda judged: judge(judged, "validation")) if "validation" in splits else None,
    )
    return session.finish(HeroForQuestionAnswering, judge, splits)


def build(
    config: QuestionRunConfig,
    questions: Sequence[Question],
    features: dict[str, VideoFeatures],
    tokenizer: TextTokenizer,
    model: HeroForQuestionAnswering,
) -> list[EncodedQuestion]:
    """The questions of a split as the model reads them."""
    data = config.data
    return encode_questions(questions, features, data.subtitles, tokenizer, model.config, data.rounding)


def evaluate(config: QuestionRunConfig, checkpoint: Path, split: Split) -> Evaluation:
    """Judge a checkpoint on a split of a run's data."""
    model, _, encoded = load(config, checkpoint, split)
    return evaluate_questions(model, encoded, config.rows)


def predict(config: QuestionRunConfig, checkpoint: Path, split: Split, out: Path) -> None:
    """Write what a checkpoint says about a split, in VALUE's form (see ``hero_train.submissions``)."""
    model, questions, encoded = load(config, checkpoint, split)
    said = answer_questions(model, encoded, config.rows).tolist()
    write_answers(out, dict(zip([one.question_id for one in encoded], said, strict=True)), questions)


def load(
    config: QuestionRunConfig, checkpoint: Path, split: Split, most: int | None = None, console: Console | None = None
) -> tuple[HeroForQuestionAnswering, list[Question], list[EncodedQuestion]]:
    """A checkpoint and a split of a run's data to judge it on: the model, its questions, and these as the model reads them.

    Arguments and errors as in ``recipes.retrieval``.
    """
    questions = evenly(read_questions(config.data.annotations()[split]), most)
    ids = [question.video_id for question in questions]
    model, tokenizer, features = load_judged(HeroForQuestionAnswering, config, checkpoint, ids, console)
    return model, questions, build(config, questions, features, tokenizer, model)
