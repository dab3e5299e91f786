"""``hero-bench latency``: how long one user waits, in each variant."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hero_bench.cases import GROUPS, Variant, make_cases
from hero_bench.errors import BenchmarkError
from hero_bench.machine import describe_machine
from hero_bench.results import CaseResult, LatencyReport, Run, describe_bundle
from hero_bench.rounds import Case, check_equal, measure
from hero_bench.serving import require_same_bundle, triton
from hero_bench.workloads import Workloads
from hero_sdk.engines.cores import available_cores
from hero_sdk.engines.local import LocalEngine
from hero_sdk.engines.triton import TritonEngine
from hero_sdk.errors import InputError
from hero_sdk.hero import Hero

TORCH_PADDED, TORCH_PACKED, IN_PROCESS, TRITON = "torch, padded", "torch, packed", "in process", "Triton"

Stage = Callable[[str], None]
"""Told what begins, in words for a person."""


@dataclass(frozen=True)
class LatencySettings:
    """What to measure and how long.

    Attributes:
        url: of a Triton server that runs the bundle; None leaves Triton out.
        serve: start such a server.
        checkpoint: that the bundle was exported from; None leaves PyTorch out.
        rounds: how often each case goes through its variants.
        max_seconds: for warm-up and rounds of all cases together; each case gets an equal share of what is left. A round that would
            end later does not begin, but for the first of a case, nor does a case, but for the first.
        threads: of every engine; None for one per core.
        corpus_sizes: videos of each corpus to search.
        groups: which cases.
    """

    url: str | None = None
    serve: bool = False
    checkpoint: str | None = None
    rounds: int = 10
    max_seconds: float = 300.0
    threads: int | None = None
    corpus_sizes: tuple[int, ...] = (1000,)
    groups: tuple[str, ...] = GROUPS

    def __post_init__(self) -> None:
        if self.rounds < 1 or not self.max_seconds > 0 or (self.threads is not None and self.threads < 1):
            raise InputError(
                f"rounds is {self.rounds}, max_seconds {self.max_seconds:g} and threads {self.threads}; "
                "expected at least 1 round, more than 0 s and at least 1 thread."
            )
        if unknown := [group for group in self.groups if group not in GROUPS]:
            raise InputError(f"There are no cases {unknown}; expected some of {', '.join(GROUPS)}.")


def measure_latency(bundle: Path, settings: LatencySettings, on_stage: Stage | None = None) -> LatencyReport:
    """Measure a bundle.

    Args:
        bundle: what ``hero-export onnx`` wrote.
        settings: what to measure and how long.
        on_stage: told about each stage as it begins.

    Raises:
        UnequalResultsError: two variants do not compute the same. Nothing was timed.
        BenchmarkError: the checkpoint or the server is not that of the bundle.
        InputError: settings that contradict one another.
        HeroError: the bundle, the checkpoint or the server cannot be used.
    """
    begin: Stage = on_stage or (lambda stage: None)
    machine = describe_machine()
    threads = settings.threads or available_cores()
    with ExitStack() as stack:
        begin("Opening the bundle")
        local = stack.enter_context(LocalEngine(bundle, threads=threads))
        hero = Hero(local)
        variants = [*stack.enter_context(_eager(settings.checkpoint, local, threads)), Variant(IN_PROCESS, hero, local)]
        if settings.serve:
            begin("Starting Triton")
        address = stack.enter_context(triton(bundle, url=settings.url, serve=settings.serve, threads=threads))
        if address is not None:
            served = stack.enter_context(TritonEngine(address))
            require_same_bundle(served.manifest, local.manifest)
            machine = machine.with_version("tritonserver", served.server_version())
            variants.append(Variant(TRITON, Hero(served), served))

        begin("Making the inputs")
        workloads = Workloads(local.manifest, local.tokenizer_json)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hero-bench-")))
        cases = make_cases(
            variants,
            workloads,
            groups=settings.groups,
            hero=hero,
            folder=folder,
            corpus_sizes=settings.corpus_sizes,
        )
        run = Run(
            "latency",
            machine,
            describe_bundle(local.manifest),
            {
                "rounds": settings.rounds,
                "max_seconds": settings.max_seconds,
                "threads": threads,
                "seed": workloads.seed,
            },
        )
        results, skipped = _measure_cases(cases, settings.rounds, settings.max_seconds, begin)
    return LatencyReport(run, tuple(results), tuple(skipped))


def _measure_cases(
    cases: Sequence[Case], rounds: int, max_seconds: float, begin: Stage
) -> tuple[list[CaseResult], list[str]]:
    """Compare the results of all cases, then time them. Returns what was timed, and the names of what was not."""
    if not cases:
        raise BenchmarkError("There is no case to measure; name at least one with --only.")
    deviations = []
    for case in cases:
        begin(f"Comparing results: {case.name}")
        deviations.append(check_equal(case))
    end = time.perf_counter() + max_seconds
    results: list[CaseResult] = []
    for number, case in enumerate(cases):
        left = end - time.perf_counter()
        if left <= 0 and results:
            break
        begin(f"Measuring: {case.name}")
        durations = measure(case, rounds=rounds, seconds=left / (len(cases) - number))
        results.append(CaseResult(case, deviations[number], durations))
    return results, [case.name for case in cases[len(results) :]]


@contextmanager
def _eager(checkpoint: str | None, local: LocalEngine, threads: int) -> Iterator[list[Variant]]:
    """The two variants of PyTorch, when there is a checkpoint."""
    if checkpoint is None:
        yield []
        return
    from hero_bench.eager import PaddedModel, TorchEngine, load_model, torch_threads

    manifest, tokenizer = local.manifest, local.tokenizer_json
    model = load_model(checkpoint, manifest, tokenizer)
    with torch_threads(threads):
        yield [
            Variant(TORCH_PADDED, PaddedModel(model, manifest, tokenizer), None),
            Variant(TORCH_PACKED, Hero(TorchEngine(model, manifest, tokenizer)), None),
        ]
