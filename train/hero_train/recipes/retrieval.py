"""Moment retrieval (VCMR, SVMR, VR) on videos, subtitles and queries.

Run with ``hero-train run CONFIG.yaml``, ``task: retrieval``. The output folder gets

    config.yaml         the configuration, resolved
    log.jsonl           one line per logged step and per evaluation
    steps/step-N/       states to resume from
    checkpoint/         the best model with its tokenizer and frame encoder: what ``hero-export`` takes
    results.json        metrics of the best model on every split that is there, beside baselines
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from torch import nn

from hero_sdk.tokens import TextTokenizer
from hero_train.data.annotations import MomentQuery, read_moment_queries
from hero_train.data.corpus import CorpusVideo, build_corpus
from hero_train.data.features import VideoFeatures
from hero_train.data.sampling import RetrievalSampler
from hero_train.evaluate import evaluate_retrieval, search_corpus
from hero_train.evaluation import Evaluation, evenly
from hero_train.model.hero import HeroModel
from hero_train.recipes.setup import (
    Frames,
    load_judged,
    loss_of_step,
    make_model,
    make_tokenizer,
    start_from,
    tell_cuts,
)
from hero_train.run_config import RetrievalRunConfig, Split
from hero_train.submissions import write_retrieval
from hero_train.tasks.retrieval import RetrievalTask
from hero_train.training import RunResult, Session


def run(config: RetrievalRunConfig, *, resume: bool = False, console: Console | None = None) -> RunResult:
    """Train and evaluate.

    Args:
        config: the run.
        resume: go on from the newest state in the output folder; without one, begin.
        console: where to show progress.

    Raises:
        ConfigError, DataError, CheckpointError: before any training, with what to mend.
    """
    session = Session(config, resume, console)
    queries = {split: read_moment_queries(path) for split, path in config.data.annotations().items()}
    trained_on = [query.video_id for query in queries["train"]]
    tokenizer_json = make_tokenizer(session, [query.text for query in queries["train"]], trained_on)
    tokenizer = TextTokenizer(tokenizer_json)
    frames = Frames.of(config, trained_on)
    model = make_model(HeroModel, session, tokenizer, frames.width)
    session.prepare_output()
    wanted = [query.video_id for items in queries.values() for query in items]
    features = frames.read(session, model.config.clip_interval, wanted)
    if config.has_random_frames:
        start_from(model, features, trained_on)
    splits = {split: build(config, items, features, tokenizer, model) for split, items in queries.items()}
    tell_cuts(session, "queries", [len(query.tokens) for video in splits["train"] for query in video.queries])
    sampler = RetrievalSampler(splits["train"], config.sampling, config.rows, config.seed, session.rank, session.world)

    def before_step(task: nn.Module, step: int) -> None:
        assert isinstance(task, RetrievalTask)
        task.loss = loss_of_step(config.loss, config.optimisation, step)

    def judge(judged: HeroModel, split: Split) -> Evaluation:
        return evaluate_retrieval(judged, splits[split], config.rows)

    session.train(
        RetrievalTask(model, config.loss),
        model,
        batch=lambda step, part: sampler.batch(step * config.optimisation.accumulation + part),
        save=lambda judged: session.save_checkpoint(judged, tokenizer_json),
        evaluate=(lambda judged: judge(judged, "validation")) if "validation" in splits else None,
        before_step=before_step,
    )
    return session.finish(HeroModel, judge, splits)


def build(
    config: RetrievalRunConfig,
    queries: Sequence[MomentQuery],
    features: dict[str, VideoFeatures],
    tokenizer: TextTokenizer,
    model: HeroModel,
) -> list[CorpusVideo]:
    """The videos of a split with their queries."""
    data = config.data
    return build_corpus(queries, features, data.subtitles, tokenizer, model.config, data.rounding)


def evaluate(config: RetrievalRunConfig, checkpoint: Path, split: Split) -> Evaluation:
    """Judge a checkpoint on a split of a run's data."""
    model, _, corpus = load(config, checkpoint, split)
    return evaluate_retrieval(model, corpus, config.rows)


def predict(config: RetrievalRunConfig, checkpoint: Path, split: Split, out: Path) -> None:
    """Write what a checkpoint says about a split, in the form of TVR's starter kit (see ``hero_train.submissions``)."""
    model, queries, corpus = load(config, checkpoint, split)
    found = search_corpus(model, corpus, config.rows)
    write_retrieval(out, found.results, queries, found.video_ids)


def load(
    config: RetrievalRunConfig, checkpoint: Path, split: Split, most: int | None = None, console: Console | None = None
) -> tuple[HeroModel, list[MomentQuery], list[CorpusVideo]]:
    """A checkpoint and a split of a run's data to judge it on: the model, its queries, and its videos.

    Args:
        config: of the run.
        checkpoint: its folder.
        split: of the data.
        most: annotations to take, evenly over the file; None takes all.
        console: where to show progress.

    Raises:
        CheckpointError: no such checkpoint, of another task, or one without its tokenizer.
        DataError: annotations or videos that cannot be read.
    """
    queries = evenly(read_moment_queries(config.data.annotations()[split]), most)
    ids = [query.video_id for query in queries]
    model, tokenizer, features = load_judged(HeroModel, config, checkpoint, ids, console)
    return model, queries, build(config, queries, features, tokenizer, model)
