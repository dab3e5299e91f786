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
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hero_sdk.frame_encoder import load_frame_encoder
from hero_sdk.tokens import TextTokenizer
from hero_train.checkpoint import FRAME_ENCODER_FOLDER, TOKENIZER_FILE
from hero_train.config import HeroConfig
from hero_train.data.annotations import MomentQuery, read_moment_queries
from hero_train.data.corpus import build_corpus, find_subtitles
from hero_train.data.features import VideoFeatures, extract_features, find_videos, missing_videos
from hero_train.data.sampling import RetrievalSampler
from hero_train.errors import ConfigError, DataError
from hero_train.evaluate import RetrievalEvaluation, evaluate_retrieval
from hero_train.model.hero import HeroModel
from hero_train.official import model_from_official, read_official
from hero_train.optimisation import build_optimiser, learning_rate, set_learning_rate
from hero_train.precision import mixed_precision
from hero_train.run_config import RunConfig, dump_run_config
from hero_train.tasks.retrieval import RetrievalTask
from hero_train.tokenizer import load_tokenizer_json, train_tokenizer_json
from hero_train.training_state import latest_state, load_state, prune_states, save_state

SPLITS = ("train", "validation", "test")
LOG_EVERY = 20
KEPT_STATES = 2


@dataclass(frozen=True)
class RunResult:
    """The best checkpoint of a run and its evaluation on each split but the training split."""

    checkpoint: Path
    evaluations: dict[str, RetrievalEvaluation]


def run(config: RunConfig, *, resume: bool = False, console: Console | None = None) -> RunResult:
    """Train and evaluate.

    Args:
        config: the run.
        resume: go on from the newest checkpoint in the output folder; without one, begin.
        console: where to show progress.

    Raises:
        ConfigError, DataError, CheckpointError: before any training, with what to mend.
    """
    console = console or Console(stderr=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    accelerator = Accelerator(
        mixed_precision=mixed_precision(config.precision), gradient_accumulation_steps=config.optimisation.accumulation
    )
    _prepare_output(config, resume)

    queries = {
        split: read_moment_queries(path) for split in SPLITS if (path := getattr(config.data, split)) is not None
    }
    features = _features(config, queries, console)
    tokenizer_json = _tokenizer(config, queries["train"])
    tokenizer = TextTokenizer(tokenizer_json)
    torch.manual_seed(config.seed)
    model = _model(config, tokenizer, features, console)
    splits = {
        split: build_corpus(items, features, config.data.subtitles, tokenizer, model.config)
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
            if config.best_metric not in found.metrics["all"]:
                raise ConfigError(
                    f"best_metric is {config.best_metric!r}; expected one of {sorted(found.metrics['all'])}."
                )
            score = found.metrics["all"][config.best_metric]
            _log(config, {"step": step, "validation": found.metrics})
        # At equal scores the later model is kept: it has seen more.
        if score >= numbers["best"]:
            numbers["best"] = score
            _save_checkpoint(config, model, tokenizer_json)

    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )
    settings = config.optimisation
    with progress:
        bar = progress.add_task("training", total=settings.steps, completed=done)
        began = time.monotonic()
        task.train()
        for step in range(done, settings.steps):
            _seed_dropout(config.seed, step, accelerator.process_index)
            hard = settings.hard_negatives_after is not None and step >= settings.hard_negatives_after
            accelerator.unwrap_model(task).loss = dataclasses.replace(
                config.loss, hard_negatives=hard or config.loss.hard_negatives
            )
            set_learning_rate(prepared, learning_rate(step, settings))
            for part in range(settings.accumulation):
                with accelerator.accumulate(task):
                    batch = sampler.batch(step * settings.accumulation + part)
                    loss = task(batch)
                    _check_finite(loss.total, step)
                    accelerator.backward(loss.total)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), settings.max_gradient_norm)
                    prepared.step()
                    prepared.zero_grad()
            finished = step + 1
            if finished % LOG_EVERY == 0 or finished == settings.steps:
                parts = {name: float(getattr(loss, name)) for name in ("total", "span", "video", "query")}
                speed = (finished - done) * config.sampling.videos * settings.accumulation / (time.monotonic() - began)
                _log(
                    config, {"step": finished, "loss": parts, "view": batch.view, "videos_per_second": round(speed, 1)}
                )
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
        results = {split: dataclasses.asdict(evaluation) for split, evaluation in evaluations.items()}
        (config.output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return RunResult(config.output / "checkpoint", evaluations)


def _prepare_output(config: RunConfig, resume: bool) -> None:
    if latest_state(config.output / "steps") and not resume:
        raise ConfigError(
            f"{config.output} holds checkpoints of an earlier run. Pass --resume to go on with it, or choose another output folder."
        )
    config.output.mkdir(parents=True, exist_ok=True)
    (config.output / "config.yaml").write_text(dump_run_config(config), encoding="utf-8")


def _features(config: RunConfig, queries: dict[str, list[MomentQuery]], console: Console) -> dict[str, VideoFeatures]:
    """Features of every video that a query is about; one that cannot be read ends the run before it begins."""
    encoder = load_frame_encoder(config.frame_encoder)
    wanted = [query.video_id for items in queries.values() for query in items]
    there = find_videos(config.data.videos)
    if absent := [video_id for video_id in dict.fromkeys(wanted) if video_id not in there]:
        raise DataError(
            f"{len(absent)} videos that the annotations name are not in {config.data.videos}, such as {', '.join(absent[:5])}. "
            "Add the files, or take their lines out of the annotations."
        )
    videos = {video_id: there[video_id] for video_id in dict.fromkeys(wanted)}
    interval = HeroConfig.from_dict(config.model, "model").clip_interval
    with _counter("features", len(videos), console) as advance:
        found, dropped = extract_features(videos, encoder, interval, config.data.features, lambda _: advance())
    if missing := missing_videos(wanted, found):
        raise DataError(
            f"{len(missing)} videos cannot be read, such as {missing[0]}: {dropped[missing[0]]} "
            "Replace the files, or take their lines out of the annotations."
        )
    return found


class _counter:
    """A progress bar over a known number of things, as a context manager that gives the function to call after each."""

    def __init__(self, name: str, total: int, console: Console) -> None:
        self._progress = Progress(
            TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        self._total = total

    def __enter__(self) -> Callable[[], None]:
        self._progress.start()
        bar = self._progress.add_task("", total=self._total)
        return lambda: self._progress.advance(bar)

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()


def _tokenizer(config: RunConfig, queries: list[MomentQuery]) -> str:
    if config.tokenizer.source:
        return load_tokenizer_json(config.tokenizer.source)
    texts = [query.text for query in queries]
    for video_id in dict.fromkeys(query.video_id for query in queries):
        texts += [subtitle.text for subtitle in find_subtitles(config.data.subtitles, video_id)]
    return train_tokenizer_json(texts, config.tokenizer.vocabulary)


def _model(
    config: RunConfig, tokenizer: TextTokenizer, features: dict[str, VideoFeatures], console: Console
) -> HeroModel:
    width = next(iter(features.values())).features.shape[1]
    # A multiple of 8 keeps the matrix products aligned.
    vocabulary = -(-tokenizer.vocabulary_size // 8) * 8
    if config.initial is None:
        return HeroModel(
            HeroConfig.from_dict({**config.model, "vocab_size": vocabulary, "feature_dim": width}, "model")
        )
    if config.initial.endswith(".pt"):
        model, report = model_from_official(read_official(Path(config.initial)))
        console.print(
            f"Imported {len(report.loaded)} official parameters; left out {len(report.left_out)}, new {len(report.fresh)}."
        )
    else:
        model = HeroModel.from_pretrained(config.initial)
    if model.config.feature_dim != width or model.config.vocab_size < tokenizer.vocabulary_size:
        raise ConfigError(
            f"{config.initial} reads features of width {model.config.feature_dim} and {model.config.vocab_size} token ids; "
            f"the frame encoder gives {width} and the tokenizer has {tokenizer.vocabulary_size}. Use those that belong to it."
        )
    return model


def _seed_dropout(seed: int, step: int, rank: int) -> None:
    """Make dropout a function of seed, step and process, so that a resumed run drops the same."""
    torch.manual_seed((seed * 1_000_003 + step) * 65_537 + rank)


def _check_finite(loss: torch.Tensor, step: int) -> None:
    if not torch.isfinite(loss):
        raise DataError(
            f"The loss of step {step} is {float(loss)}. Lower optimisation.learning_rate, use precision: fp32, "
            "or look for NaN in the features."
        )


def _save_checkpoint(config: RunConfig, model: HeroModel, tokenizer_json: str) -> None:
    folder = config.output / "checkpoint"
    model.save_pretrained(folder)
    (folder / TOKENIZER_FILE).write_text(tokenizer_json, encoding="utf-8")
    shutil.copytree(config.frame_encoder, folder / FRAME_ENCODER_FOLDER, dirs_exist_ok=True)


def _log(config: RunConfig, entry: dict[str, Any]) -> None:
    with (config.output / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
