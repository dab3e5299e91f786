"""Moment retrieval (VCMR, SVMR, VR) on a folder of videos, subtitles and queries.

Run with ``hero-train run CONFIG.yaml``. The output folder gets

    config.yaml         the configuration, resolved
    log.jsonl           one line per logged step and per evaluation
    steps/step-N/       checkpoints to resume from
    checkpoint/         the best model with its tokenizer and frame encoder: what ``hero-export`` takes
    results.json        metrics of the best model on every split that is there, beside chance
"""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console

from hero_sdk.frame_encoder import load_frame_encoder
from hero_sdk.tokens import TextTokenizer
from hero_train.data.annotations import read_moment_queries
from hero_train.data.corpus import build_corpus
from hero_train.data.sampling import RetrievalSampler
from hero_train.evaluate import evaluate_retrieval
from hero_train.evaluation import Evaluation
from hero_train.model.hero import HeroModel
from hero_train.optimisation import build_optimiser, learning_rate, set_learning_rate
from hero_train.precision import attention_kernels, mixed_precision
from hero_train.recipes.setup import (
    make_model,
    make_tokenizer,
    prepare_output,
    progress_bar,
    read_features,
    start_from,
)
from hero_train.recipes.steps import check_finite, log, save_checkpoint, seed_dropout
from hero_train.run_config import RunConfig
from hero_train.tasks.retrieval import RetrievalTask
from hero_train.training_state import latest_state, load_state, prune_states, save_state

SPLITS = ("train", "validation", "test")
LOG_EVERY = 20
KEPT_STATES = 2


@dataclass(frozen=True)
class RunResult:
    """The best checkpoint of a run and its evaluation on each split but the training split."""

    checkpoint: Path
    evaluations: dict[str, Evaluation]


def run(config: RunConfig, *, resume: bool = False, console: Console | None = None) -> RunResult:
    """Train and evaluate.

    Args:
        config: the run.
        resume: go on from the newest checkpoint in the output folder; without one, begin.
        console: where to show progress.

    Raises:
        ConfigError, DataError, CheckpointError: before any training, with what to mend.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    accelerator = Accelerator(
        # Without this, several processes on CPUs would each train a model of their own.
        cpu=not torch.accelerator.is_available(),
        mixed_precision=mixed_precision(config.precision),
        gradient_accumulation_steps=config.optimisation.accumulation,
    )
    console = console or Console(stderr=True, quiet=not accelerator.is_main_process)
    queries = {
        split: read_moment_queries(path) for split in SPLITS if (path := getattr(config.data, split)) is not None
    }
    encoder = load_frame_encoder(config.frame_encoder, threads=1)
    trained_on = [query.video_id for query in queries["train"]]
    tokenizer_json = make_tokenizer(config, [query.text for query in queries["train"]], trained_on)
    tokenizer = TextTokenizer(tokenizer_json)
    torch.manual_seed(config.seed)
    model = make_model(config, tokenizer, encoder, console)
    # The first process fills the cache and writes the record; the others find both.
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            prepare_output(config, resume)
        wanted = [query.video_id for items in queries.values() for query in items]
        features = read_features(config, encoder, model.config.clip_interval, wanted, console)
    if config.has_random_frames:
        start_from(model, features, trained_on)
    splits = {
        split: build_corpus(items, features, config.data.subtitles, tokenizer, model.config, config.data.rounding)
        for split, items in queries.items()
    }
    sampler = RetrievalSampler(
        splits["train"], config.sampling, config.rows, config.seed, accelerator.process_index, accelerator.num_processes
    )
    console.print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, {accelerator.mixed_precision} precision, "
        f"{torch.get_num_threads()} threads; "
        + ", ".join(f"{name}: {len(videos)} videos" for name, videos in splits.items())
    )

    optimiser = build_optimiser(model, config.optimisation)
    steps_folder = config.output / "steps"
    done, numbers = 0, {"best": -1.0}
    if resume and (state := latest_state(steps_folder)):
        done, numbers = load_state(state, model, optimiser)
        console.print(f"Resumed {state.name}.")
    task, prepared = accelerator.prepare(RetrievalTask(model, config.loss), optimiser)

    def evaluate(step: int) -> None:
        """Judge the model on the validation split and keep it if it is the best so far."""
        score = float(step)
        if "validation" in splits:
            found = evaluate_retrieval(model, splits["validation"], config.rows)
            score = found.metrics["all"][config.best_metric]
            log(config, {"step": step, "validation": found.metrics})
        # At equal scores the later model is kept: it has seen more.
        if score >= numbers["best"]:
            numbers["best"] = score
            save_checkpoint(config, model, tokenizer_json)

    settings = config.optimisation
    with progress_bar(console) as progress, attention_kernels(accelerator.device):
        bar = progress.add_task("training", total=settings.steps, completed=done)
        began = time.monotonic()
        task.train()
        for step in range(done, settings.steps):
            seed_dropout(config.seed, step, accelerator.process_index)
            hard = settings.hard_negatives_after is not None and step >= settings.hard_negatives_after
            accelerator.unwrap_model(task).loss = dataclasses.replace(
                config.loss, hard_negatives=hard or config.loss.hard_negatives
            )
            set_learning_rate(prepared, learning_rate(step, settings))
            for part in range(settings.accumulation):
                with accelerator.accumulate(task):
                    batch = sampler.batch(step * settings.accumulation + part)
                    loss = task(batch)
                    check_finite(loss.total, step)
                    accelerator.backward(loss.total)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), settings.max_gradient_norm)
                    prepared.step()
                    prepared.zero_grad()
            finished = step + 1
            if accelerator.is_main_process and (finished % LOG_EVERY == 0 or finished == settings.steps):
                parts = {
                    name: float(getattr(loss, name).detach()) for name in ("total", "span", "video", "query", "clip")
                }
                speed = (finished - done) * config.sampling.videos * settings.accumulation / (time.monotonic() - began)
                log(config, {"step": finished, "loss": parts, "view": batch.view, "videos_per_second": round(speed, 1)})
                progress.update(bar, description=f"training, loss {parts['total']:.3f}, {speed:.0f} videos/s")
            progress.update(bar, completed=finished)
            if accelerator.is_main_process:
                if finished == settings.steps or (config.evaluate_every and finished % config.evaluate_every == 0):
                    evaluate(finished)
                if config.checkpoint_every and finished % config.checkpoint_every == 0:
                    save_state(steps_folder, model, prepared.optimizer, finished, numbers)
                    prune_states(steps_folder, KEPT_STATES)

    accelerator.wait_for_everyone()
    best = HeroModel.from_pretrained(config.output / "checkpoint").to(model.device)
    evaluations = {
        split: evaluate_retrieval(best, splits[split], config.rows) for split in SPLITS[1:] if split in splits
    }
    if accelerator.is_main_process:
        results = {split: evaluation.as_dict() for split, evaluation in evaluations.items()}
        (config.output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return RunResult(config.output / "checkpoint", evaluations)
