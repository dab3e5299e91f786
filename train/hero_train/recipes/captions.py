"""Captions of moments (TVC).

Run with ``hero-train run CONFIG.yaml``, ``task: captions``. The output folder gets what ``recipes.retrieval`` lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hero_sdk.sentence_search import BeamConfig
from hero_sdk.tokens import TextTokenizer
from hero_train import submissions
from hero_train.caption_metrics import check_scorers
from hero_train.data.captions import (
    CaptionedMoment,
    CaptionSampler,
    CaptionVideo,
    build_caption_corpus,
    read_captioned_moments,
)
from hero_train.data.features import VideoFeatures
from hero_train.evaluate_captions import evaluate_captions, write_captions
from hero_train.evaluation import Evaluation, evenly
from hero_train.model.captioning import HeroForCaptioning
from hero_train.recipes.setup import Frames, load_judged, make_model, make_tokenizer, start_from
from hero_train.run_config import CaptionRunConfig, Split
from hero_train.tasks.captioning import CaptioningTask
from hero_train.training import RunResult, Session


def run(config: CaptionRunConfig, *, resume: bool = False, console: Console | None = None) -> RunResult:
    """Train and evaluate; arguments and errors as in ``recipes.retrieval``."""
    session = Session(config, resume, console)
    if len(config.data.annotations()) > 1:
        check_scorers()
    moments = {split: read_captioned_moments(path) for split, path in config.data.annotations().items()}
    trained_on = [moment.video_id for moment in moments["train"]]
    texts = [caption for moment in moments["train"] for caption in moment.captions]
    tokenizer_json = make_tokenizer(session, texts, trained_on)
    tokenizer = TextTokenizer(tokenizer_json)
    frames = Frames.of(config, trained_on)
    model = make_model(HeroForCaptioning, session, tokenizer, frames.width)
    session.prepare_output()
    wanted = [moment.video_id for items in moments.values() for moment in items]
    features = frames.read(session, model.config.clip_interval, wanted)
    if config.has_random_frames:
        start_from(model, features, trained_on)
    splits = {split: build(config, items, features, tokenizer, model) for split, items in moments.items()}
    sampler = CaptionSampler(splits["train"], config.sampling, config.rows, config.seed, session.rank, session.world)

    def judge(judged: HeroForCaptioning, split: Split) -> Evaluation:
        return evaluate_captions(judged, splits[split], config.rows, tokenizer, texts, beam=BeamConfig())

    session.train(
        CaptioningTask(model, config.smoothing),
        model,
        batch=lambda step, part: sampler.batch(step * config.optimisation.accumulation + part),
        save=lambda judged: session.save_checkpoint(judged, tokenizer_json),
        evaluate=(
            # METEOR takes half a minute to start, so it waits for the end, and so does the beam.
            (lambda judged: evaluate_captions(judged, splits["validation"], config.rows, tokenizer, (), meteor=False))
            if "validation" in splits
            else None
        ),
    )
    return session.finish(HeroForCaptioning, judge, splits)


def build(
    config: CaptionRunConfig,
    moments: Sequence[CaptionedMoment],
    features: dict[str, VideoFeatures],
    tokenizer: TextTokenizer,
    model: HeroForCaptioning,
) -> list[CaptionVideo]:
    """The videos of a split with their captioned moments."""
    return build_caption_corpus(moments, features, config.data.subtitles, tokenizer, model.config)


def evaluate(config: CaptionRunConfig, checkpoint: Path, split: Split) -> Evaluation:
    """Judge a checkpoint on a split of a run's data."""
    model, tokenizer, _, captioned = load(config, checkpoint, split)
    training = read_captioned_moments(config.data.train)
    texts = [caption for moment in training for caption in moment.captions]
    return evaluate_captions(model, captioned, config.rows, tokenizer, texts, beam=BeamConfig())


def predict(config: CaptionRunConfig, checkpoint: Path, split: Split, out: Path) -> None:
    """Write the captions of a split by beam search, in TVC's form (see ``hero_train.submissions``)."""
    model, tokenizer, moments, captioned = load(config, checkpoint, split)
    submissions.write_captions(
        out, write_captions(model, captioned, config.rows, tokenizer, beam=BeamConfig()), moments
    )


def load(
    config: CaptionRunConfig, checkpoint: Path, split: Split, most: int | None = None, console: Console | None = None
) -> tuple[HeroForCaptioning, TextTokenizer, list[CaptionedMoment], list[CaptionVideo]]:
    """A checkpoint and a split of a run's data to judge it on: the model, its tokenizer, its moments, and its videos.

    Arguments and errors as in ``recipes.retrieval``.
    """
    # A split that is to be captioned has no captions.
    moments = evenly(read_captioned_moments(config.data.annotations()[split], captioned=False), most)
    ids = [moment.video_id for moment in moments]
    model, tokenizer, features = load_judged(HeroForCaptioning, config, checkpoint, ids, console)
    return model, tokenizer, moments, build(config, moments, features, tokenizer, model)
