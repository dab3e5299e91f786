"""The shipped configurations of the data sets have the settings of the paper, and those of VALUE for its data sets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hero_train.config import CaptioningConfig, HeroConfig
from hero_train.losses import RetrievalLossConfig
from hero_train.run_config import (
    BaseRunConfig,
    CaptionRunConfig,
    OptimisationSection,
    PretrainingRunConfig,
    QuestionRunConfig,
    RetrievalRunConfig,
    load_config,
)

CONFIGS = Path(__file__).parents[2] / "train" / "configs"

# Processes, videos or items of each, batches per step; steps, of which warm-up; learning rate, factor for heads; seconds per clip,
# subtitles that are read before each.
SCHEDULES: dict[str, tuple[int, int, int, int, int, float, float, float, int]] = {
    "tv-pretraining": (16, 32, 2, 100_000, 10_000, 3e-5, 1, 1.5, 0),
    "tvr": (8, 32, 2, 5000, 500, 1e-4, 1, 1.5, 0),
    "didemo": (4, 32, 1, 5000, 500, 7e-5, 1, 1.5, 0),
    "msrvtt": (4, 96, 2, 4000, 400, 7e-5, 1, 2.0, 1),
    "how2r": (8, 32, 2, 3000, 300, 1e-4, 1, 1.5, 0),
    "tvqa": (8, 4, 2, 10_000, 1000, 5e-5, 10, 1.5, 0),
    "how2qa": (8, 4, 2, 2000, 200, 5e-5, 10, 1.5, 0),
    "violin": (8, 4, 2, 6000, 600, 3e-5, 8, 1.5, 2),
    "tvc": (8, 4, 1, 7000, 700, 1e-4, 10, 1.5, 1),
}

# Weights of a query against videos, of a video against queries, of start and end; negatives that count more, how much more, and
# from which step on (None: not published); share of batches without the span loss.
RETRIEVAL: dict[str, tuple[float, float, float, int, float, int | None, float]] = {
    "tv-pretraining": (8, 8, 0.01, 20, 10, 20_000, 0.8),
    "tvr": (8, 8, 0.01, 20, 10, 2000, 0.0),
    "didemo": (10, 10, 0.01, 80, 10, None, 0.0),
    "msrvtt": (10, 10, 0.0, 80, 10, None, 0.0),
    "how2r": (8, 8, 0.01, 20, 10, 1000, 0.9),
}

# Shortest and longest moment in clips, most clips of a video, overlap from which on a worse moment is left out (1: none is).
# The paper's bounds are on last minus first clip, the upper one exclusive: 2-16 are 3 to 16 clips.
SPANS = {"tvr": (3, 16, 100, 0.5), "didemo": (4, 6, 20, 1.0), "how2r": (4, 20, 100, 1.0)}


def load(name: str) -> Any:
    return load_config(CONFIGS / f"{name}.yaml")


def model(config: BaseRunConfig) -> HeroConfig:
    return (CaptioningConfig if isinstance(config, CaptionRunConfig) else HeroConfig)(**config.model)


def test_every_configuration_is_held_to_the_paper() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(SCHEDULES)
    assert {name for name in SCHEDULES if isinstance(load(name), RetrievalRunConfig | PretrainingRunConfig)} == set(
        RETRIEVAL
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_batches_and_schedule(name: str) -> None:
    config = load(name)
    settings, sampling = config.optimisation, config.sampling
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    (processes,) = re.findall(r"torchrun --nproc_per_node (\d+) ", text)
    size = sampling.videos if hasattr(sampling, "videos") else sampling.items
    assert SCHEDULES[name] == (
        *(int(processes), size, settings.accumulation, settings.steps, settings.warmup),
        *(settings.learning_rate, settings.head_rate, model(config).clip_interval, model(config).subtitle_context),
    )
    assert f"the paper's {processes} GPUs" in text or "of VALUE" in text


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_all_have_in_common(name: str) -> None:
    config = load(name)
    settings, common = config.optimisation, OptimisationSection()
    assert (common.weight_decay, common.betas, common.epsilon, common.max_gradient_norm) == (0.01, (0.9, 0.98), 1e-6, 1)
    for entry in ("weight_decay", "betas", "epsilon", "max_gradient_norm"):
        assert getattr(settings, entry) == getattr(common, entry), entry
    assert (model(config).hidden_dropout, model(config).attention_dropout, config.seed) == (0.1, 0.1, 77)
    own = ("clip_interval", "clip_limit", "subtitle_context", "min_span_clips", "max_span_clips", "nms_iou")
    assert set(config.model) <= set(own), "sizes are the checkpoint's"


@pytest.mark.parametrize("name", RETRIEVAL)
def test_the_loss_of_retrieval(name: str) -> None:
    config = load(name)
    loss = config.loss
    found = (loss.video_weight, loss.query_weight, loss.span_weight, loss.hard_pool, loss.hard_weight)
    after, dropped = config.optimisation.hard_negatives_after, config.sampling.span_dropout
    expected = RETRIEVAL[name]
    assert (*found, after if expected[5] is not None else None, dropped) == expected
    assert (loss.ranking, loss.margin, loss.clip_weight) == ("hinge", 0.1, 0.0)
    assert loss == RetrievalLossConfig(
        video_weight=expected[0], query_weight=expected[1], span_weight=expected[2], hard_pool=expected[3]
    )
    if isinstance(config, RetrievalRunConfig):
        sampling = config.sampling
        assert (sampling.queries_per_video, sampling.spoken_per_video, sampling.picture, sampling.text) == (1, 0, 0, 0)
        assert config.data.rounding == "outward"


@pytest.mark.parametrize("name", SPANS)
def test_which_moments_are_searched(name: str) -> None:
    sizes = model(load(name))
    assert SPANS[name] == (sizes.min_span_clips, sizes.max_span_clips, sizes.clip_limit, sizes.nms_iou)


def test_pretraining_has_the_papers_mix_and_masks() -> None:
    sampling = load("tv-pretraining").sampling
    mix = sampling.mix
    assert (mix.mlm, mix.mfm_nce, mix.mffr, mix.fom, mix.vsm) == (2, 2, 0, 1, 2)
    assert (sampling.share, sampling.queries_per_video) == (0.15, 5)
    assert load("tv-pretraining").initial == "roberta:roberta-base"


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "tv-pretraining"])
def test_fine_tuning_starts_from_the_pretrained_checkpoint(name: str) -> None:
    config = load(name)
    assert config.initial == "../../checkpoints/hero-tv-ht100.pt"
    assert config.tokenizer.source == "roberta-base"


@pytest.mark.parametrize("name", ["tvqa", "how2qa"])
def test_questions_weigh_their_moment_and_have_the_papers_length(name: str) -> None:
    config = load(name)
    assert isinstance(config, QuestionRunConfig)
    # The paper halves the sum of start and end, as our loss does.
    assert config.span_weight == 0.4
    assert config.rows.query_tokens == 120
    assert (config.sampling.answers, config.sampling.crop) == (None, 0)


def test_captions_are_smoothed() -> None:
    assert load("tvc").smoothing == 0.1


def test_queries_are_cut_where_the_papers_are_or_later() -> None:
    assert load("tvr").rows.query_tokens >= 60


def test_video_retrieval_is_judged_as_such() -> None:
    assert load("msrvtt").best_metric == "VR/R@1"
