"""Pre-training (MLM, MFM, FOM, VSM) on a folder of videos with subtitles, without annotations.

Run with ``hero-train pretrain CONFIG.yaml``. The output folder gets

    config.yaml         the configuration, resolved
    log.jsonl           one line per logged step, with the mean loss of each task since the last
    steps/step-N/       checkpoints to resume from, heads of pre-training included
    checkpoint/         the model without them, with its tokenizer and frame encoder: what fine-tuning takes as ``initial``
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from rich.console import Console

from hero_sdk.alignment import build_segments
from hero_sdk.frame_encoder import load_frame_encoder
from hero_sdk.rows import VideoInput
from hero_sdk.tokens import TextTokenizer
from hero_train.config import HeroConfig
from hero_train.data.corpus import read_all_subtitles
from hero_train.data.features import VideoFeatures, find_videos
from hero_train.data.masking import WordIds
from hero_train.data.pretraining import PretrainingSampler
from hero_train.model.pretraining import HeroForPretraining
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
from hero_train.run_config import PretrainingConfig
from hero_train.tasks.pretraining import PretrainingTask
from hero_train.training_state import latest_state, load_state, prune_states, save_state

LOG_EVERY = 20
KEPT_STATES = 2


def run(config: PretrainingConfig, *, resume: bool = False, console: Console | None = None) -> Path:
    """Pre-train.

    An ``initial`` checkpoint gives the encoders and the retrieval head; the heads of pre-training begin anew.

    Args:
        config: the run.
        resume: go on from the newest checkpoint in the output folder; without one, begin.
        console: where to show progress.

    Returns:
        The folder of the checkpoint to fine-tune.

    Raises:
        ConfigError, DataError, CheckpointError: before any training, with what to mend.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    settings = config.optimisation
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision=mixed_precision(config.precision),
        gradient_accumulation_steps=settings.accumulation,
        # A step has one task, and leaves the heads of the others without a gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    console = console or Console(stderr=True, quiet=not accelerator.is_main_process)
    video_ids = list(find_videos(config.data.videos))
    encoder = load_frame_encoder(config.frame_encoder, threads=1)
    tokenizer_json = make_tokenizer(config, [], video_ids)
    tokenizer, ids = TextTokenizer(tokenizer_json), WordIds.of(tokenizer_json)
    torch.manual_seed(config.seed)
    start = make_model(config, tokenizer, encoder, console)
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            prepare_output(config, resume)
        features = read_features(config, encoder, start.config.clip_interval, video_ids, console)
    if config.has_random_frames:
        start_from(start, features, video_ids)
    model = HeroForPretraining(start.config, tokenizer.vocabulary_size)
    model.load_state_dict({**model.state_dict(), **start.state_dict()})
    sampler = PretrainingSampler(
        build_videos(features, config.data.subtitles, tokenizer, model.config),
        ids,
        config.sampling,
        config.rows,
        config.seed,
        settings.accumulation,
        accelerator.process_index,
        accelerator.num_processes,
    )
    optimiser = build_optimiser(model, settings)
    steps_folder = config.output / "steps"
    done, numbers = 0, dict[str, float]()
    if resume and (state := latest_state(steps_folder)):
        done, numbers = load_state(state, model, optimiser)
        console.print(f"Resumed {state.name}.")
    task, prepared = accelerator.prepare(PretrainingTask(model, config.loss), optimiser)

    losses: dict[str, list[float]] = defaultdict(list)
    with progress_bar(console) as progress, attention_kernels(accelerator.device):
        bar = progress.add_task("pre-training", total=settings.steps, completed=done)
        task.train()
        for step in range(done, settings.steps):
            seed_dropout(config.seed, step, accelerator.process_index)
            hard = settings.hard_negatives_after is not None and step >= settings.hard_negatives_after
            accelerator.unwrap_model(task).matching = dataclasses.replace(
                config.loss, hard_negatives=hard or config.loss.hard_negatives
            )
            set_learning_rate(prepared, learning_rate(step, settings))
            for part in range(settings.accumulation):
                with accelerator.accumulate(task):
                    loss = task(sampler.batch(step, part))
                    check_finite(loss, step)
                    losses[sampler.task(step)].append(float(loss.detach()))
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), settings.max_gradient_norm)
                    prepared.step()
                    prepared.zero_grad()
            finished = step + 1
            progress.update(bar, completed=finished)
            if accelerator.is_main_process:
                if finished % LOG_EVERY == 0 or finished == settings.steps:
                    means = {name: sum(values) / len(values) for name, values in sorted(losses.items())}
                    log(config, {"step": finished, "loss": means})
                    losses.clear()
                if config.checkpoint_every and finished % config.checkpoint_every == 0:
                    save_state(steps_folder, model, prepared.optimizer, finished, numbers)
                    prune_states(steps_folder, KEPT_STATES)
    if accelerator.is_main_process:
        save_checkpoint(config, model.retrieval_model(), tokenizer_json)
    accelerator.wait_for_everyone()
    return config.output / "checkpoint"


def build_videos(
    features: dict[str, VideoFeatures], subtitles: Path | None, tokenizer: TextTokenizer, config: HeroConfig
) -> list[VideoInput]:
    """The videos as pre-training reads them: cut to the clip limit, and without subtitle context."""
    spoken = read_all_subtitles(subtitles, features)
    videos = []
    for video_id, extracted in features.items():
        cut = extracted.features[: config.clip_limit]
        segments = build_segments(spoken[video_id], len(cut), clip_interval=config.clip_interval, tokenizer=tokenizer)
        videos.append(VideoInput(cut, segments))
    return videos
