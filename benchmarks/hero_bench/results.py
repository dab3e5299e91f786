"""Results: a JSON file of a known schema, and tables for a terminal. All derived numbers come from the durations kept here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hero_bench.machine import Machine
from hero_bench.rounds import Case, Deviation
from hero_bench.statistics import Comparison, Rounds, Summary, compare, summarise
from hero_sdk.errors import InputError
from hero_sdk.manifest import Manifest
from hero_sdk.terminal import make_table, printable

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA_VERSION = 1
LATENCY_COLUMNS = (
    "case",
    "variant",
    "n",
    "p50 ms",
    "p95 ms",
    "mean ms",
    "per item",
    "ratio",
    "95 % interval",
    "verdict",
)
THROUGHPUT_COLUMNS = (
    "workload",
    "clients",
    "requests",
    "errors",
    "per s",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "client cores",
)
BASELINE = "baseline"


@dataclass(frozen=True)
class Run:
    """What a run measured and where.

    Attributes:
        kind: "latency", "throughput" or "training".
        machine: of the client, with the server's version among its versions.
        bundle: fingerprint, sizes, row shapes and precisions; None where no bundle was measured.
        settings: what was asked for.
        created: when the run began, ISO 8601, UTC.
    """

    kind: str
    machine: Machine
    bundle: dict[str, Any] | None
    settings: dict[str, Any]
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    def to_dict(self) -> dict[str, Any]:
        """The head of the JSON file."""
        return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}

    def to_table(self) -> Table:
        """What was measured and where."""
        machine = self.machine
        table = make_table()
        if self.bundle is not None:
            made = f"{str(self.bundle['fingerprint'])[:12]}, {_pairs(self.bundle['precision'])}"
            table.add_row("bundle", printable(made))
        for name, value in (
            ("machine", f"{machine.cpu}, {machine.cores} cores, load {machine.load:g} before the run"),
            ("instructions", ", ".join(machine.flags) or "none of those that matter"),
            ("versions", _pairs(machine.versions)),
            ("settings", _pairs(self.settings)),
        ):
            table.add_row(name, printable(value))
        return table


def describe_bundle(manifest: Manifest) -> dict[str, Any]:
    """What of a bundle decides how long a call takes."""
    return {
        "fingerprint": manifest.fingerprint,
        "model": dataclasses.asdict(manifest.model),
        "geometry": dataclasses.asdict(manifest.geometry),
        "frame_encoder": manifest.frame_encoder.name,
        "precision": {name: graph.precision for name, graph in manifest.graphs.items()},
    }


@dataclass(frozen=True)
class CaseResult:
    """A case with its durations.

    Attributes:
        case: what was called.
        deviations: of the variants from the baseline, where results are compared.
        durations: seconds, by variant.
    """

    case: Case
    deviations: dict[str, Deviation]
    durations: dict[str, Rounds]

    def summary(self, variant: str) -> Summary:
        """All calls of a variant together, in milliseconds."""
        return summarise([1000 * duration for duration in chain.from_iterable(self.durations[variant])])

    def comparison(self, variant: str) -> Comparison | None:
        """A variant against the baseline; None for the baseline itself."""
        baseline = self.case.baseline
        return None if variant == baseline else compare(self.durations[variant], self.durations[baseline])

    def to_dict(self) -> dict[str, Any]:
        """The case in the JSON file."""
        return {
            "name": self.case.name,
            "unit": self.case.unit,
            "items": self.case.items,
            "facts": dict(self.case.facts),
            "baseline": self.case.baseline,
            "variants": {variant: self._variant(variant) for variant in self.durations},
        }

    def rows(self) -> list[list[str]]:
        """The case as lines of a table with ``LATENCY_COLUMNS``."""
        lines: list[list[str]] = []
        for variant in self.durations:
            summary, against = self.summary(variant), self.comparison(variant)
            timing = [milliseconds(value) for value in (summary.p50, summary.p95, summary.mean)]
            per_item = f"{milliseconds(summary.p50 / self.case.items)} / {self.case.unit}"
            verdict = (
                ["", "", BASELINE]
                if against is None
                else [f"{against.ratio:.2f}", f"{against.low:.2f} - {against.high:.2f}", against.verdict]
            )
            lines.append(["", variant, str(summary.n), *timing, per_item, *verdict])
        lines[0][0] = self.case.name
        if len(lines) > 1:
            lines[1][0] = _pairs(self.case.facts)
        return lines

    def _variant(self, variant: str) -> dict[str, Any]:
        against, deviation = self.comparison(variant), self.deviations.get(variant)
        summary = self.summary(variant)
        return {
            "n": summary.n,
            "mean_ms": summary.mean,
            "p50_ms": summary.p50,
            "p95_ms": summary.p95,
            "against_baseline": None if against is None else dataclasses.asdict(against),
            "deviation": None if deviation is None else dataclasses.asdict(deviation),
            "rounds_ms": [[round(1000 * call, 4) for call in calls] for calls in self.durations[variant]],
        }


@dataclass(frozen=True)
class LatencyReport:
    """``hero-bench latency``: the cases that were measured, and those for which no time was left."""

    run: Run
    cases: tuple[CaseResult, ...]
    skipped: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As the text of the results file."""
        cases = [case.to_dict() for case in self.cases]
        return to_json({**self.run.to_dict(), "cases": cases, "skipped": list(self.skipped)})

    def to_table(self) -> Table:
        """One line per case and variant."""
        return filled_table(LATENCY_COLUMNS, list(chain.from_iterable(case.rows() for case in self.cases)))


@dataclass(frozen=True)
class LoadResult:
    """One workload under one number of clients.

    Attributes:
        workload: what each request asks for.
        clients: each sends its next request when its last one is answered.
        seconds: from the first request to the last answer.
        latencies: seconds, of every answered request.
        errors: how many requests failed, by kind of error.
        messages: of the first error of each kind.
        client_cores: processor time of this process by ``seconds``: how many cores the clients kept busy.
    """

    workload: str
    clients: int
    seconds: float
    latencies: tuple[float, ...]
    errors: dict[str, int]
    messages: dict[str, str]
    client_cores: float

    @property
    def per_second(self) -> float:
        """Answered requests per second."""
        return len(self.latencies) / self.seconds

    @property
    def summary(self) -> Summary | None:
        """Of the latencies, in milliseconds; None where no request was answered."""
        return summarise([1000 * latency for latency in self.latencies]) if self.latencies else None

    def to_dict(self) -> dict[str, Any]:
        """The result in the JSON file."""
        summary = self.summary
        return {
            "workload": self.workload,
            "clients": self.clients,
            "seconds": self.seconds,
            "requests": len(self.latencies),
            "errors": self.errors,
            "messages": self.messages,
            "per_second": self.per_second,
            "mean_ms": summary and summary.mean,
            "p50_ms": summary and summary.p50,
            "p95_ms": summary and summary.p95,
            "p99_ms": summary and summary.p99,
            "client_cores": self.client_cores,
        }

    def row(self) -> list[str]:
        """The result as a line of a table with ``THROUGHPUT_COLUMNS``."""
        summary = self.summary
        values = (summary.p50, summary.p95, summary.p99) if summary else ()
        timing = [milliseconds(value) for value in values] or ["-"] * 3
        counts = [str(self.clients), str(len(self.latencies)), str(sum(self.errors.values()))]
        return [self.workload, *counts, f"{self.per_second:.1f}", *timing, f"{self.client_cores:.2f}"]


@dataclass(frozen=True)
class ThroughputReport:
    """``hero-bench throughput``."""

    run: Run
    loads: tuple[LoadResult, ...]

    @property
    def failed(self) -> int:
        """Requests that failed, of all loads."""
        return sum(sum(load.errors.values()) for load in self.loads)

    def to_json(self) -> str:
        """As the text of the results file."""
        return to_json({**self.run.to_dict(), "loads": [load.to_dict() for load in self.loads]})

    def to_table(self) -> Table:
        """One line per workload and number of clients."""
        return filled_table(THROUGHPUT_COLUMNS, [load.row() for load in self.loads])


def check_results_file(path: Path) -> None:
    """Refuse a place for results before the measuring, not after it.

    Raises:
        InputError: a folder, or in a folder that does not exist.
    """
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"lies in {path.parent}, which is no folder"
        raise InputError(f"{path} {what}; expected the name of a JSON file in a folder that exists.")


def to_json(value: Any) -> str:
    """The text of a results file."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def filled_table(columns: tuple[str, ...], rows: list[list[str]]) -> Table:
    """A table of these lines, safe to print."""
    table = make_table(*columns)
    for row in rows:
        table.add_row(*map(printable, row))
    return table


def milliseconds(value: float) -> str:
    """With three digits, or more before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
