"""One loop for all recipes: steps, precision, processes, logs, states to resume from, the best checkpoint.

A recipe says what its model, its batches and its evaluation are; everything between is here. Batches and dropout are functions
of the seed and the step, so that a run that was killed ends, once resumed, where an uninterrupted one does, bit for bit.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import broadcast_object_list
from rich.console import Console
from torch import Tensor, nn

from hero_train.checkpoint import FRAME_ENCODER_FOLDER, TOKENIZER_FILE
from hero_train.compilation import compile_layers
from hero_train.data.prefetch import Prefetcher
from hero_train.distribution import make_accelerator
from hero_train.errors import ConfigError, DataError
from hero_train.evaluation import ALL, Evaluation
from hero_train.model.hero import HeroEncoders
from hero_train.optimisation import build_optimiser, learning_rate, set_learning_rate
from hero_train.precision import attention_kernels, precision_name
from hero_train.progress import progress_bar
from hero_train.run_config import BaseRunConfig, FineTuningConfig, Split
from hero_train.run_log import add_line, cut_log
from hero_train.sharding import WholeModel
from hero_train.trackers import check_trackers, flatten, start_trackers
from hero_train.training_state import latest_state, load_state, prune_states, save_state

LOG_EVERY = 20
KEPT_STATES = 2


Model = TypeVar("Model", bound=HeroEncoders)


@dataclass(frozen=True)
class RunResult:
    """The best checkpoint of a run and, in the main process, its evaluation on each split but the training split."""

    checkpoint: Path
    evaluations: dict[Split, Evaluation]


class Session:
    """One run: its processes, its output folder, its logs.

    Args:
        config: the run.
        resume: go on from the newest state in the output folder; without one, begin.
        console: where to show progress.
    """

    def __init__(self, config: BaseRunConfig, resume: bool = False, console: Console | None = None) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config, self.resume = config, resume
        self.accelerator = make_accelerator(config)
        self.console = console or Console(stderr=True, quiet=not self.is_main)

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return bool(self.accelerator.is_main_process)

    @property
    def rank(self) -> int:
        """Which of the processes this is."""
        return int(self.accelerator.process_index)

    @property
    def world(self) -> int:
        """How many processes there are."""
        return int(self.accelerator.num_processes)

    def prepare_output(self) -> None:
        """Make the output folder and record the configuration in it.

        Raises:
            ConfigError: it holds checkpoints of an earlier run, and this one does not resume; it cannot be written; or a tracker is
                not installed.
        """
        if not self.is_main:
            return
        check_trackers(self.config.trackers)
        output = self.config.output
        if not self.resume:
            _check_unused(output)
        try:
            output.mkdir(parents=True, exist_ok=True)
            (output / "config.yaml").write_text(self.config.dump(), encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"The run cannot write to its folder {output} ({error}). Choose another output folder."
            ) from error

    def log(self, kind: str, values: Any, step: int, **more: Any) -> None:
        """Add a line to the run's ``log.jsonl``, and its numbers to the trackers."""
        add_line(self.config.output, {"step": step, kind: values, **more})
        self.accelerator.log(flatten({kind: values, **more}), step=step)

    def save_checkpoint(self, model: HeroEncoders, tokenizer_json: str) -> Path:
        """Write the run's ``checkpoint/``: the model, its tokenizer and its frame encoder."""
        folder = self.config.output / "checkpoint"
        model.save_pretrained(folder)
        (folder / TOKENIZER_FILE).write_text(tokenizer_json, encoding="utf-8")
        if self.config.frame_encoder is not None:
            shutil.copytree(self.config.frame_encoder, folder / FRAME_ENCODER_FOLDER, dirs_exist_ok=True)
        return folder

    def train(
        self,
        task: nn.Module,
        model: Model,
        *,
        batch: Callable[[int, int], Any],
        save: Callable[[Model], object],
        evaluate: Callable[[Model], Evaluation] | None = None,
        before_step: Callable[[nn.Module, int], None] | None = None,
        name_step: Callable[[int], str] | None = None,
    ) -> None:
        """Train to the last step, or until patience ends.

        Args:
            task: the model with its loss; what it returns for a batch is a scalar, or a dataclass of scalars with their ``total``.
            model: inside ``task``; its parameters are trained.
            batch: of an optimiser step and its part, both from 0: a function of the two, which is called in another thread.
            save: writes the checkpoint of a model, which is ``model`` or a copy of it: at each evaluation that is at least as good
                as the best before, or, without ``evaluate``, at each time for one, and at the end.
            evaluate: judges such a model on the validation split.
            before_step: called with ``task`` and the step, to change what depends on it.
            name_step: what the loss of a step is logged as; None logs the parts of the loss.

        Raises:
            DataError: the loss or a gradient is no number.
        """
        config, settings, accelerator = self.config, self.config.optimisation, self.accelerator
        steps_folder = config.output / "steps"
        whole = WholeModel(model, accelerator)
        model.set_activation_checkpointing(config.activation_checkpointing)
        if config.compile:
            compile_layers(model)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        self.console.print(
            f"{parameters:,} parameters, {precision_name(accelerator.mixed_precision)}, {torch.get_num_threads()} threads, "
            f"{self.world} processes"
        )
        wrapped, prepared = accelerator.prepare(task, build_optimiser(model, settings))
        done, numbers = 0, {"best": -1.0, "waited": 0.0}
        if self.resume and (state := latest_state(steps_folder)):
            done, numbers = load_state(state, model, prepared.optimizer, accelerator.scaler)
            self.console.print(f"Resumed {state.name}.")
        if self.is_main:
            cut_log(config.output, done)
        if config.trackers:
            start_trackers(accelerator, config.model_dump(mode="json"), done)
        losses: dict[str, list[Tensor]] = defaultdict(list)
        evaluate_every = config.evaluate_every if isinstance(config, FineTuningConfig) else 0
        parts = settings.accumulation
        with (
            Prefetcher(lambda number: batch(*divmod(number, parts)), done * parts, settings.steps * parts) as batches,
            progress_bar(self.console) as progress,
            attention_kernels(accelerator.device),
        ):
            bar = progress.add_task("training", total=settings.steps, completed=done)
            began, first = time.monotonic(), done
            wrapped.train()
            for step in range(done, settings.steps):
                if self._has_waited(numbers):
                    self.console.print(
                        f"Ended after step {step}: the last {numbers['waited']:.0f} evaluations were no better."
                    )
                    break
                seed_dropout(config.seed, step, self.rank)
                if before_step is not None:
                    before_step(accelerator.unwrap_model(wrapped), step)
                set_learning_rate(prepared, learning_rate(step, settings))
                for _ in range(parts):
                    loss = self._learn(wrapped, prepared, next(batches), step)
                    if name_step is not None:
                        losses[name_step(step)].append(loss["total"])
                    else:
                        for name, value in loss.items():
                            losses[name].append(value)
                finished, is_last = step + 1, step + 1 == settings.steps
                progress.update(bar, completed=finished)
                if self.is_main and (finished % LOG_EVERY == 0 or is_last):
                    means = {name: float(torch.stack(values).mean()) for name, values in sorted(losses.items())}
                    speed = (finished - first) / (time.monotonic() - began)
                    self.log("loss", means, finished, steps_per_second=round(speed, 2))
                    losses.clear()
                if is_last or (evaluate_every and finished % evaluate_every == 0):
                    with whole.gathered() as judged:
                        self._judge(judged, evaluate, save, numbers, finished)
                if config.checkpoint_every and finished % config.checkpoint_every == 0:
                    save_state(
                        steps_folder,
                        model,
                        prepared.optimizer,
                        finished,
                        numbers,
                        accelerator.scaler,
                        write=self.is_main,
                    )
                    if self.is_main:
                        prune_states(steps_folder, KEPT_STATES)
        accelerator.wait_for_everyone()

    def _learn(self, task: nn.Module, optimiser: AcceleratedOptimizer, batch: Any, step: int) -> dict[str, Tensor]:
        """One batch, forward and backward; the parts of its loss, detached."""
        accelerator = self.accelerator
        with accelerator.accumulate(task):
            with accelerator.autocast():
                loss = task(batch)
            total = loss if isinstance(loss, Tensor) else loss.total
            check_finite("loss", total, step)
            accelerator.backward(total)
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(task.parameters(), self.config.optimisation.max_gradient_norm)
                # In fp16 a gradient may be infinite: the scaler then leaves the step out.
                if accelerator.scaler is None:
                    check_finite("gradient", norm, step)
            optimiser.step()
            optimiser.zero_grad()
        parts = (
            {}
            if isinstance(loss, Tensor)
            else {part.name: getattr(loss, part.name) for part in dataclasses.fields(loss)}
        )
        return {name: value.detach() for name, value in {"total": total, **parts}.items()}

    def _judge(
        self,
        model: Model | None,
        evaluate: Callable[[Model], Evaluation] | None,
        save: Callable[[Model], object],
        numbers: dict[str, float],
        step: int,
    ) -> None:
        """Evaluate on the main process, keep the model if it is the best so far, and tell all processes how long none was."""
        if model is not None:
            score = float(step)
            if evaluate is not None:
                assert isinstance(self.config, FineTuningConfig)
                metrics = evaluate(model).metrics
                score = metrics[ALL][self.config.best_metric]
                self.log("validation", metrics, step)
            numbers["waited"] = 0.0 if score > numbers["best"] else numbers["waited"] + 1
            # At equal scores the later model is kept: it has seen more.
            if score >= numbers["best"]:
                numbers["best"] = score
                save(model)
        (numbers["waited"],) = broadcast_object_list([numbers["waited"]])

    def _has_waited(self, numbers: Mapping[str, float]) -> bool:
        patience = self.config.patience if isinstance(self.config, FineTuningConfig) else None
        return patience is not None and numbers["waited"] >= patience

    def finish(
        self, kind: type[Model], judge: Callable[[Model, Split], Evaluation], splits: Collection[Split]
    ) -> RunResult:
        """Judge the best model on every split but the training split, and write ``results.json``."""
        checkpoint = self.config.output / "checkpoint"
        evaluations: dict[Split, Evaluation] = {}
        if self.is_main:
            best = kind.from_pretrained(checkpoint).to(self.accelerator.device)
            evaluations = {split: judge(best, split) for split in splits if split != "train"}
            results = {split: evaluation.as_dict() for split, evaluation in evaluations.items()}
            (self.config.output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        self.close()
        return RunResult(checkpoint, evaluations)

    def close(self) -> None:
        """End the run in all processes, and its trackers."""
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Make dropout a function of seed, step and process, so that a resumed run drops the same."""
    torch.manual_seed((seed * 1_000_003 + step) * 65_537 + rank)


def check_finite(what: str, value: Tensor, step: int) -> None:
    """Refuse to go on from a loss or a gradient that is no number, while the weights are still whole.

    Args:
        what: "loss" or "gradient".
        value: the loss, or the norm of the gradient.
        step: counted from 0.

    Raises:
        DataError: it is infinite or not a number.
    """
    if not torch.isfinite(value):
        raise DataError(
            f"The {what} of step {step + 1} is {float(value.detach())}. Lower optimisation.learning_rate, use precision: fp32, "
            "or look for NaN in the features."
        )


def _check_unused(output: Path) -> None:
    """Refuse an output folder that holds what a run would overwrite.

    Raises:
        ConfigError: states or the checkpoint of an earlier run.
    """
    if latest_state(output / "steps"):
        raise ConfigError(
            f"{output} holds checkpoints of an earlier run. Pass --resume to go on with it, or choose another output folder."
        )
    if (output / "checkpoint").exists():
        raise ConfigError(
            f"{output} holds the checkpoint of an earlier run, and no state to go on from. Choose another output folder, or move "
            "this one away."
        )
