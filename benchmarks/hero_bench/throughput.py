"""``hero-bench throughput``: how many requests a server answers, and how long they take, under more and more clients."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hero_bench.cases import TYPICAL_VIDEO
from hero_bench.latency import Stage
from hero_bench.machine import describe_machine
from hero_bench.results import LoadResult, Run, ThroughputReport, describe_bundle
from hero_bench.serving import require_same_bundle, triton
from hero_bench.workloads import Workloads
from hero_sdk.engines.cores import available_cores
from hero_sdk.engines.triton import TritonEngine
from hero_sdk.errors import HeroError, InputError
from hero_sdk.hero import Hero
from hero_sdk.manifest import read_bundle
from hero_sdk.opening import connect

WARM_UP_CALLS = 2
MOST_CLIENTS = 256
START_SECONDS = 30.0
"""For all clients to be there; a thread that cannot be started must not keep the others waiting."""

PAUSE_AFTER_ERROR = 0.01
"""Seconds, so that clients of a server that is gone do not spin."""


@dataclass(frozen=True)
class ThroughputSettings:
    """What to measure.

    Attributes:
        url: of a Triton server that runs the bundle.
        serve: start such a server instead.
        clients: numbers of clients, one after another.
        seconds: for each workload and number of clients; requests that run then are waited for.
        threads: of one run on a server that is started; None for one per core.
    """

    url: str | None = None
    serve: bool = False
    clients: tuple[int, ...] = (1, 2, 4, 8)
    seconds: float = 5.0
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.url is None and not self.serve:
            raise InputError("There is no server to measure; name one with --url grpc://HOST:8001, or use --serve.")
        if not self.clients or not all(1 <= count <= MOST_CLIENTS for count in self.clients):
            raise InputError(f"The numbers of clients are {self.clients}; expected numbers from 1 to {MOST_CLIENTS}.")
        if not self.seconds > 0:
            raise InputError(f"seconds is {self.seconds:g}; expected more than 0.")


def measure_throughput(bundle: Path, settings: ThroughputSettings, on_stage: Stage | None = None) -> ThroughputReport:
    """Measure a server.

    Args:
        bundle: what the server runs.
        settings: what to measure.
        on_stage: told about each stage as it begins.

    Raises:
        BenchmarkError: the server runs another bundle.
        ServerError: the server cannot be reached, or answers not even the first requests.
        HeroError: the bundle cannot be used, or no server be started.
    """
    begin: Stage = on_stage or (lambda stage: None)
    machine = describe_machine()
    manifest = read_bundle(bundle)
    threads = settings.threads or available_cores()
    with ExitStack() as stack:
        begin("Starting Triton" if settings.serve else "Connecting")
        address = stack.enter_context(triton(bundle, url=settings.url, serve=settings.serve, threads=threads))
        assert address is not None
        with TritonEngine(address) as engine:
            require_same_bundle(engine.manifest, manifest)
            machine = machine.with_version("tritonserver", engine.server_version())
            workloads = Workloads(manifest, engine.tokenizer_json)
        about = {"clients": list(settings.clients), "seconds": settings.seconds, "seed": workloads.seed}
        run = Run(
            "throughput",
            machine,
            describe_bundle(manifest),
            about | ({"server_threads": threads} if settings.serve else {}),
        )
        # One connection per client, as clients of their own would have.
        heroes = [stack.enter_context(connect(address)) for _ in range(max(settings.clients))]
        loads = []
        for name, calls in _workloads(workloads, heroes).items():
            for count in settings.clients:
                begin(f"{name}, {count} {'client' if count == 1 else 'clients'}")
                loads.append(run_load(name, calls[:count], settings.seconds))
    return ThroughputReport(run, tuple(loads))


def _workloads(workloads: Workloads, heroes: Sequence[Hero]) -> dict[str, list[Callable[[], object]]]:
    """What each client calls; every client has inputs of its own."""
    texts = workloads.queries(len(heroes))
    return {
        "encode a query": [partial(hero.encode_query, text) for hero, text in zip(heroes, texts, strict=True)],
        TYPICAL_VIDEO: [
            partial(hero.encode_many, [workloads.typical_video(number)]) for number, hero in enumerate(heroes)
        ],
    }


@dataclass
class _Client:
    """What one client saw."""

    began: float = 0.0
    ended: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)


def run_load(workload: str, calls: Sequence[Callable[[], object]], seconds: float) -> LoadResult:
    """Let clients call in a closed loop: each calls again as soon as it has its answer.

    Args:
        workload: name of what is called.
        calls: one per client, each in a thread of its own. A HeroError is counted, any other exception is raised.
        seconds: no call begins later; those that run then are waited for and count.
    """
    for call in calls:
        for _ in range(WARM_UP_CALLS):
            call()
    barrier = threading.Barrier(len(calls), timeout=START_SECONDS)
    processor = time.process_time()
    with ThreadPoolExecutor(len(calls)) as pool:
        clients = list(pool.map(partial(_run_client, barrier=barrier, seconds=seconds), calls))
    processor = time.process_time() - processor
    elapsed = max(client.ended for client in clients) - min(client.began for client in clients)
    errors: Counter[str] = sum((client.errors for client in clients), Counter())
    return LoadResult(
        workload=workload,
        clients=len(calls),
        seconds=elapsed,
        latencies=tuple(latency for client in clients for latency in client.latencies),
        errors=dict(errors),
        messages={kind: text for client in reversed(clients) for kind, text in client.messages.items()},
        client_cores=processor / elapsed,
    )


def _run_client(call: Callable[[], object], barrier: threading.Barrier, seconds: float) -> _Client:
    barrier.wait()
    seen = _Client(began=time.perf_counter())
    while (start := time.perf_counter()) < seen.began + seconds:
        try:
            call()
        except HeroError as error:
            kind = type(error).__name__
            seen.errors[kind] += 1
            seen.messages.setdefault(kind, str(error))
            time.sleep(PAUSE_AFTER_ERROR)
        else:
            seen.latencies.append(time.perf_counter() - start)
    seen.ended = time.perf_counter()
    return seen
