"""``hero-bench training``: optimiser steps per second on packed rows and on the authors' padded layout, side by side."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hero_bench.eager import torch_threads
from hero_bench.errors import UnequalResultsError
from hero_bench.lengths import VideoLengths, draw_lengths, measure_lengths, read_lengths
from hero_bench.machine import describe_machine
from hero_bench.padded_encoding import encode_padded
from hero_bench.padding import pad_videos
from hero_bench.results import CaseResult, Run
from hero_bench.rounds import Case, Deviation, measure
from hero_bench.training_results import TrainingReport, count_packed, count_padded
from hero_bench.training_workload import SIZES, TrainingInput, make_input
from hero_sdk.engines.cores import available_cores
from hero_sdk.errors import InputError
from hero_sdk.rows import RowGeometry, pack_videos
from hero_sdk.tokens import TextTokenizer
from hero_train.config import HeroConfig
from hero_train.gathering import ALONE
from hero_train.geometry import check_geometry
from hero_train.losses import RetrievalLossConfig
from hero_train.model.hero import HeroModel
from hero_train.optimisation import build_optimiser
from hero_train.precision import attention_kernels
from hero_train.run_config import OptimisationSection
from hero_train.tasks.retrieval import clips_loss
from hero_train.tokenizer import load_tokenizer_json

PADDED, POOLED = "padded", "padded, unread pooler"
PRECISIONS = ("fp32", "bf16")

MAX_RELATIVE_ERROR = 1e-3
"""Of the loss and of every weight's gradient between the layouts, in fp32."""

MIN_COSINE_REDUCED = 0.99
"""Of all gradients together between the layouts, in bf16, which rounds each layout's sums in its own order."""

NOISE = 1e-4
"""A gradient smaller than this share of all gradients is measured against that share: keys' biases have none but rounding."""

Encode = Callable[[TrainingInput], tuple[Tensor, Tensor]]
"""From a batch to clips (V, L, hidden) and their mask (V, L)."""

Stage = Callable[[str], None]


@dataclass(frozen=True)
class TrainingSettings:
    """What to measure and how long.

    Attributes:
        size: of the model, see ``hero_bench.training_workload.SIZES``.
        videos: per batch.
        batches: different ones; the rounds go through them in turn.
        slots: of the packed rows; each number is a variant.
        precisions: some of ``PRECISIONS``.
        rounds: how often each precision goes through its variants.
        max_seconds: for warm-up and rounds of everything; a round that would end later does not begin, but for the first.
        threads: None for one per core.
        processor_time: time by the processor time of this process, on one thread: for a machine that others use, too, where the
            time on the clock says how long they let one wait.
        lengths: file of measured lengths; None draws them, see ``hero_bench.lengths``.
        lengths_of: subtitles to measure, with the ``tokenizer`` to do it by; see ``hero_bench.lengths.measure_lengths``.
        tokenizer: file, folder or hub id.
        seed: of everything that is drawn.
    """

    size: str = "reduced"
    videos: int = 32
    batches: int = 4
    slots: tuple[int, ...] = (128,)
    precisions: tuple[str, ...] = PRECISIONS
    rounds: int = 8
    max_seconds: float = 600.0
    threads: int | None = None
    processor_time: bool = False
    lengths: Path | None = None
    lengths_of: Path | None = None
    tokenizer: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise InputError(f"There is no size {self.size!r}; expected one of {', '.join(sorted(SIZES))}.")
        for name, least in (("videos", 2), ("batches", 1), ("rounds", 1), ("threads", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise InputError(f"{name} is {value}; expected at least {least}.")
        if not self.max_seconds > 0:
            raise InputError(f"max_seconds is {self.max_seconds:g}; expected more than 0.")
        if unknown := [name for name in self.precisions if name not in PRECISIONS]:
            raise InputError(f"There are no precisions {unknown}; expected some of {', '.join(PRECISIONS)}.")
        if self.processor_time and self.threads != 1:
            raise InputError(
                "Processor time adds up over threads, their waiting for one another included; expected 1 thread with it."
            )
        if self.lengths is not None and self.lengths_of is not None:
            raise InputError(
                "Both lengths and lengths_of are given; expected measured lengths or subtitles to measure."
            )
        if (self.lengths_of is None) != (self.tokenizer is None):
            raise InputError(
                "Subtitles are measured by a tokenizer; expected both lengths_of and tokenizer, or neither."
            )

    @property
    def geometries(self) -> dict[str, RowGeometry]:
        """The packed variants."""
        default = RowGeometry()
        return {
            f"packed, {slots} slots": dataclasses.replace(default, slots=slots, frames=min(default.frames, slots))
            for slots in self.slots
        }


class Learner:
    """A model in training: the loss of retrieval on clips that any layout gave, and the step that follows from it."""

    def __init__(self, config: HeroConfig, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = HeroModel(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self._settings = OptimisationSection()
        self._optimiser = build_optimiser(self.model, self._settings)
        self._loss = RetrievalLossConfig()

    def loss(self, encode: Encode, batch: TrainingInput, precision: str) -> Tensor:
        """The loss of a batch, a scalar."""
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return clips_loss(self.model, *encode(batch), batch.queries, self._loss, ALONE).total

    def step(self, encode: Encode, batch: TrainingInput, precision: str) -> None:
        """Forward, backward, clipping of gradients, AdamW."""
        self.model.train()
        self.loss(encode, batch, precision).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self._settings.max_gradient_norm)
        self._optimiser.step()
        self._optimiser.zero_grad()

    def gradients(self, encode: Encode, batch: TrainingInput, precision: str) -> list[Tensor]:
        """The loss without dropout and the gradient of every weight that has one; the weights stay as they are."""
        self.model.eval()
        loss = self.loss(encode, batch, precision)
        loss.backward()
        found = [loss.detach(), *(weight.grad for weight in self.model.parameters() if weight.grad is not None)]
        self._optimiser.zero_grad()
        return found


def layouts(learner: Learner, settings: TrainingSettings) -> dict[str, Encode]:
    """The variants; the first is the baseline. All encode by the same model."""
    model = learner.model

    def packed(geometry: RowGeometry) -> Encode:
        def encode(batch: TrainingInput) -> tuple[Tensor, Tensor]:
            rows = batch.packed[geometry]
            return model.unpack(rows, model.encode_videos(rows))

        return encode

    return {
        PADDED: lambda batch: encode_padded(model, batch.padded),
        POOLED: lambda batch: encode_padded(model, batch.padded, learner.pooler),
        **{name: packed(geometry) for name, geometry in settings.geometries.items()},
    }


def check_same_step(
    learner: Learner, variants: dict[str, Encode], batch: TrainingInput, precision: str
) -> dict[str, Deviation]:
    """Compare the loss and every gradient of a batch with the baseline's.

    Returns:
        The deviations of the variants but the baseline: the worst error of the loss and of a weight's gradient, by its norm, and
        the cosine of all gradients together.

    Raises:
        UnequalResultsError: a variant learns something else than the baseline.
    """
    vectors = {name: learner.gradients(encode, batch, precision) for name, encode in variants.items()}
    expected = vectors.pop(next(iter(variants)))
    everything = torch.cat([part.flatten() for part in expected[1:]])
    deviations = {}
    for name, found in vectors.items():
        least = float(NOISE * everything.norm())
        errors = [
            float((ours - theirs).norm() / max(float(theirs.norm()), least))
            for ours, theirs in zip(found, expected, strict=True)
        ]
        cosine = torch.cosine_similarity(torch.cat([part.flatten() for part in found[1:]]), everything, dim=0)
        deviation = Deviation(max(errors), float(cosine))
        # Written so that a NaN fails.
        is_same = (
            deviation.relative_error <= MAX_RELATIVE_ERROR
            if precision == "fp32"
            else deviation.cosine >= MIN_COSINE_REDUCED
        )
        if not is_same:
            raise UnequalResultsError(
                f"In {precision} a step on '{name}' differs from one on '{PADDED}': largest error {max(errors):.1e} of a gradient, "
                f"cosine {deviation.cosine:.6f}; expected at most {MAX_RELATIVE_ERROR:g} in fp32, and at least "
                f"{MIN_COSINE_REDUCED} in bf16. Nothing was timed. Were subtitles cut that are longer than a row? Try more slots."
            )
        deviations[name] = deviation
    return deviations


def measure_training(settings: TrainingSettings, on_stage: Stage | None = None) -> TrainingReport:
    """Measure.

    Args:
        settings: what and how long.
        on_stage: told about each stage as it begins.

    Raises:
        UnequalResultsError: two layouts do not compute the same. Nothing was timed.
        InputError: lengths that cannot be read, or fewer videos than a batch takes.
        HeroError: row shapes that the model cannot read, subtitles or a tokenizer that cannot be read.
    """
    begin: Stage = on_stage or (lambda stage: None)
    machine, threads, config = describe_machine(), settings.threads or available_cores(), SIZES[settings.size]
    for geometry in settings.geometries.values():
        check_geometry(geometry, config, InputError, "--{}".format)
    begin("Making the batches")
    batches = list(_batches(settings, config))
    with torch_threads(threads):
        learner = Learner(config, settings.seed)
        variants = layouts(learner, settings)
        cases = [_laying_out(settings, batches)]
        deviations: list[dict[str, Deviation]] = [{}]
        with attention_kernels(learner.model.device):
            for precision in settings.precisions:
                begin(f"Comparing losses and gradients: {precision}")
                deviations.append(check_same_step(learner, variants, batches[0], precision))
                cases.append(_steps(learner, variants, batches, precision))
            results = list(_measure(cases, deviations, settings, begin))
    run = Run(
        "training",
        machine,
        None,
        {
            "size": settings.size,
            "videos": settings.videos,
            "batches": settings.batches,
            "rounds": settings.rounds,
            "threads": threads,
            "time": "processor" if settings.processor_time else "clock",
            "lengths": "drawn" if settings.lengths is None and settings.lengths_of is None else "measured",
            "seed": settings.seed,
        },
    )
    counts = [count_padded(PADDED, [batch.padded for batch in batches])]
    for name, geometry in settings.geometries.items():
        counts.append(count_packed(name, [batch.packed[geometry] for batch in batches]))
    return TrainingReport(run, tuple(counts), tuple(results))


def _batches(settings: TrainingSettings, config: HeroConfig) -> Iterator[TrainingInput]:
    wanted = settings.videos * settings.batches
    rng = np.random.default_rng((settings.seed, 1))
    lengths = _lengths(settings, wanted)
    if len(lengths) < wanted:
        raise InputError(
            f"There are lengths of {len(lengths)} videos, and {settings.batches} batches take {wanted}. "
            "Lower --videos or --batches."
        )
    order = rng.permutation(len(lengths))[:wanted]
    for part in np.split(order, settings.batches):
        yield make_input([lengths[index] for index in part], config, list(settings.geometries.values()), rng)


def _lengths(settings: TrainingSettings, wanted: int) -> list[VideoLengths]:
    if settings.lengths is not None:
        return read_lengths(settings.lengths)
    if settings.lengths_of is not None and settings.tokenizer is not None:
        return measure_lengths(settings.lengths_of, TextTokenizer(load_tokenizer_json(settings.tokenizer)))
    return draw_lengths(wanted, settings.seed)


def _laying_out(settings: TrainingSettings, batches: Sequence[TrainingInput]) -> Case:
    """Making a batch of its videos, which happens beside the steps: in a thread, or in the workers of a loader."""

    def calls(lay_out: Callable[[TrainingInput], object]) -> Callable[[], object]:
        given = itertools.cycle(batches)
        return lambda: lay_out(next(given))

    return Case(
        "lay out a batch",
        "video",
        settings.videos,
        {
            PADDED: calls(lambda batch: pad_videos(batch.videos)),
            **{
                name: calls(lambda batch, geometry=geometry: pack_videos(batch.videos, geometry))  # type: ignore[misc]
                for name, geometry in settings.geometries.items()
            },
        },
    )


def _steps(learner: Learner, variants: dict[str, Encode], batches: Sequence[TrainingInput], precision: str) -> Case:
    """A step of each variant, on the same batch in the same round."""

    def calls(encode: Encode) -> Callable[[], object]:
        given = itertools.cycle(batches)
        return lambda: learner.step(encode, next(given), precision)

    videos = len(batches[0].videos)
    return Case(f"a step, {precision}", "video", videos, {name: calls(encode) for name, encode in variants.items()})


def _measure(
    cases: Sequence[Case], deviations: Sequence[dict[str, Deviation]], settings: TrainingSettings, begin: Stage
) -> Iterator[CaseResult]:
    clock = time.process_time if settings.processor_time else time.perf_counter
    end = clock() + settings.max_seconds
    for number, (case, deviation) in enumerate(zip(cases, deviations, strict=True)):
        begin(f"Measuring: {case.name}")
        left = max(0.0, end - clock()) / (len(cases) - number)
        durations = measure(case, rounds=settings.rounds, seconds=left, round_seconds=0.0, clock=clock)
        yield CaseResult(case, deviation, durations)
