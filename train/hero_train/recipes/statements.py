"""Statements about videos, true or false (VIOLIN).

Run with ``hero-train run CONFIG.yaml``, ``task: statements``. The output folder gets what ``recipes.retrieval`` lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hero_sdk.tokens import TextTokenizer
from hero_train.data.answer_annotations import Statement, read_statements
from hero_train.data.answer_sampling import AnswerSampler
from hero_train.data.answers import EncodedStatement, collate_statements, encode_statements
from hero_train.data.features import VideoFeatures
from hero_train.evaluate_answers import evaluate_statements, judge_statements
from hero_train.evaluation import Evaluation, evenly
from hero_train.model.answers import HeroForStatements
from hero_train.recipes.setup import Frames, load_judged, make_model, make_tokenizer, start_from, tell_cuts
from hero_train.run_config import Split, StatementRunConfig
from hero_train.submissions import write_answers
from hero_train.tasks.answers import StatementTask
from hero_train.training import RunResult, Session


def run(config: StatementRunConfig, *, resume: bool = False, console: Console | None = None) -> RunResult:
    """Train and evaluate; arguments and errors as in ``recipes.retrieval``."""
    session = Session(config, resume, console)
    statements = {split: read_statements(path) for split, path in config.data.annotations().items()}
    trained_on = [statement.video_id for statement in statements["train"]]
    tokenizer_json = make_tokenizer(session, [statement.text for statement in statements["train"]], trained_on)
    tokenizer = TextTokenizer(tokenizer_json)
    frames = Frames.of(config, trained_on)
    model = make_model(HeroForStatements, session, tokenizer, frames.width)
    session.prepare_output()
    wanted = [statement.video_id for items in statements.values() for statement in items]
    features = frames.read(session, model.config.clip_interval, wanted)
    if config.has_random_frames:
        start_from(model, features, trained_on)
    splits = {split: build(config, items, features, tokenizer, model) for split, items in statements.items()}
    tell_cuts(session, "statements", [len(one.tokens) for one in splits["train"]])
    sampler = AnswerSampler(splits["train"], config.sampling, config.seed, session.rank, session.world)

    def judge(judged: HeroForStatements, split: Split) -> Evaluation:
        return evaluate_statements(judged, splits[split], config.rows)

    session.train(
        StatementTask(model),
        model,
        batch=lambda step, part: collate_statements(
            sampler.batch(step * config.optimisation.accumulation + part), config.rows
        ),
        save=lambda judged: session.save_checkpoint(judged, tokenizer_json),
        evaluate=(lambda judged: judge(judged, "validation")) if "validation" in splits else None,
    )
    return session.finish(HeroForStatements, judge, splits)


def build(
    config: StatementRunConfig,
    statements: Sequence[Statement],
    features: dict[str, VideoFeatures],
    tokenizer: TextTokenizer,
    model: HeroForStatements,
) -> list[EncodedStatement]:
    """The statements of a split as the model reads them."""
    data = config.data
    return encode_statements(statements, features, data.subtitles, tokenizer, model.config, data.rounding)


def evaluate(config: StatementRunConfig, checkpoint: Path, split: Split) -> Evaluation:
    """Judge a checkpoint on a split of a run's data."""
    model, _, encoded = load(config, checkpoint, split)
    return evaluate_statements(model, encoded, config.rows)


def predict(config: StatementRunConfig, checkpoint: Path, split: Split, out: Path) -> None:
    """Write what a checkpoint says about a split, in VALUE's form (see ``hero_train.submissions``)."""
    model, statements, encoded = load(config, checkpoint, split)
    said = judge_statements(model, encoded, config.rows).tolist()
    write_answers(out, dict(zip([one.statement_id for one in encoded], said, strict=True)), statements)


def load(
    config: StatementRunConfig, checkpoint: Path, split: Split, most: int | None = None, console: Console | None = None
) -> tuple[HeroForStatements, list[Statement], list[EncodedStatement]]:
    """A checkpoint and a split of a run's data to judge it on: the model, its statements, and these as the model reads them.

    Arguments and errors as in ``recipes.retrieval``.
    """
    statements = evenly(read_statements(config.data.annotations()[split]), most)
    ids = [statement.video_id for statement in statements]
    model, tokenizer, features = load_judged(HeroForStatements, config, checkpoint, ids, console)
    return model, statements, build(config, statements, features, tokenizer, model)
