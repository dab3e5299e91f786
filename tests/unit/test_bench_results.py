"""The results file and the tables say what was measured, and nothing about where on the disk."""

from __future__ import annotations

import io
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from hero_bench.machine import describe_machine
from hero_bench.results import (
    SCHEMA_VERSION,
    CaseResult,
    LatencyReport,
    LoadResult,
    Run,
    ThroughputReport,
    check_results_file,
    describe_bundle,
)
from hero_bench.rounds import Case, Deviation
from hero_bench.statistics import Rounds
from hero_sdk import InputError
from tests.unit.numpy_engine import make_manifest

X86 = """processor\t: 0
model name\t: A Processor 9000
flags\t\t: fpu sse avx2 avx512f avx512_vnni amx_tile amx_int8 hypervisor

processor\t: 1
model name\t: Another
flags\t\t: avx512_bf16
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp bf16 i8mm\nCPU part\t: 0xd0c\n"


def run(kind: str = "latency") -> Run:
    return Run(kind, describe_machine(), describe_bundle(make_manifest()), {"rounds": 6, "max_seconds": 9.5})


def result(**variants: Rounds) -> CaseResult:
    def nothing() -> None:
        raise AssertionError("results are not measured again")

    case = Case("encode 8 queries", "query", 8, dict.fromkeys(variants, nothing), facts={"words": 12})
    return CaseResult(case, {name: Deviation(1e-6, 0.999999) for name in list(variants)[1:]}, dict(variants))


@pytest.fixture
def latency() -> LatencyReport:
    slow: Rounds = tuple((0.200 + 0.001 * n, 0.210, 0.190) for n in range(6))
    fast: Rounds = tuple((0.0500 + 0.0002 * n,) for n in range(6))
    return LatencyReport(run(), (result(padded=slow, packed=fast), result(alone=fast)), ("search 9 videos",))


def shown(table: Table) -> str:
    console = Console(width=300, file=io.StringIO())
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def lines_of(text: str, word: str) -> list[list[str]]:
    return [[cell for cell in line.split("  ") if cell] for line in text.splitlines() if word in line]


def test_latency_as_json_can_be_computed_again_from_its_rounds(latency: LatencyReport) -> None:
    found = json.loads(latency.to_json())
    assert (found["schema_version"], found["kind"]) == (SCHEMA_VERSION, "latency") == (1, "latency")
    assert found["skipped"] == ["search 9 videos"]
    case = found["cases"][0]
    assert (case["name"], case["unit"], case["items"]) == ("encode 8 queries", "query", 8)
    assert (case["baseline"], case["facts"]) == ("padded", {"words": 12})
    assert list(case["variants"]) == ["padded", "packed"]
    for variant in case["variants"].values():
        calls = [call for calls in variant["rounds_ms"] for call in calls]
        assert variant["n"] == len(calls)
        assert variant["mean_ms"] == pytest.approx(statistics.fmean(calls))
        assert variant["p50_ms"] == pytest.approx(statistics.median(calls))
        assert variant["p95_ms"] == pytest.approx(statistics.quantiles(calls, n=20, method="inclusive")[-1])
    padded, packed = case["variants"].values()
    assert padded["against_baseline"] is None
    medians = [[statistics.median(calls) for calls in one["rounds_ms"]] for one in (packed, padded)]
    expected = statistics.median(a / b for a, b in zip(*medians, strict=True))
    assert packed["against_baseline"]["ratio"] == pytest.approx(expected)
    assert packed["against_baseline"]["verdict"] == "faster"
    assert packed["deviation"] == {"relative_error": 1e-6, "cosine": 0.999999}
    assert packed["rounds_ms"][1] == [50.2]


def test_results_name_the_bundle_and_the_machine(latency: LatencyReport) -> None:
    found = json.loads(latency.to_json())
    manifest = make_manifest()
    assert found["bundle"]["fingerprint"] == manifest.fingerprint
    assert found["bundle"]["precision"] == dict.fromkeys(manifest.graphs, "fp32")
    assert found["bundle"]["geometry"]["slots"] == 48
    machine = found["machine"]
    assert machine["cores"] >= 1
    assert {"python", "onnxruntime", "numpy", "torch"} <= set(machine["versions"])
    assert found["settings"] == {"rounds": 6, "max_seconds": 9.5}
    assert found["created"].endswith("+00:00")


def test_the_latency_table(latency: LatencyReport) -> None:
    text = shown(latency.to_table())
    (padded,), (packed,) = lines_of(text, "padded"), lines_of(text, "packed")
    assert [cell.strip() for cell in padded] == [
        "encode 8 queries",
        "padded",
        "18",
        "202",
        "210",
        "201",
        "25.3 / query",
        "baseline",
    ]
    assert [cell.strip() for cell in packed[:4]] == ["words 12", "packed", "6", "50.5"]
    assert packed[-1].strip() == "faster"
    assert "skipped" not in text


@pytest.fixture
def loads() -> tuple[LoadResult, ...]:
    good = LoadResult("encode a query", 2, 2.0, tuple(0.001 * n for n in range(1, 101)), {}, {}, 0.5)
    gone = LoadResult("encode a query", 4, 3.0, (), {"ServerError": 7}, {"ServerError": "gone"}, 0.1)
    return good, gone


def test_throughput_as_json(loads: tuple[LoadResult, ...]) -> None:
    found = json.loads(ThroughputReport(run("throughput"), loads).to_json())
    good, gone = found["loads"]
    assert (good["clients"], good["requests"], good["per_second"]) == (2, 100, 50.0)
    quantiles = statistics.quantiles(range(1, 101), n=100, method="inclusive")
    assert [good[name] for name in ("p50_ms", "p95_ms", "p99_ms")] == pytest.approx(
        [quantiles[n] for n in (49, 94, 98)]
    )
    assert (gone["requests"], gone["per_second"], gone["p50_ms"]) == (0, 0.0, None)
    assert gone["errors"] == {"ServerError": 7}
    assert gone["messages"] == {"ServerError": "gone"}


def test_the_throughput_table_and_the_failures(loads: tuple[LoadResult, ...]) -> None:
    report = ThroughputReport(run("throughput"), loads)
    assert report.failed == 7
    rows = [[cell.strip() for cell in line] for line in lines_of(shown(report.to_table()), "encode a query")]
    assert rows == [
        ["encode a query", "2", "100", "0", "50.0", "50.5", "95.0", "99.0", "0.50"],
        ["encode a query", "4", "0", "7", "0.0", "-", "-", "-", "0.10"],
    ]


def test_no_number_that_json_does_not_have_is_written() -> None:
    report = LatencyReport(run(), (result(alone=((math.nan,),)),))
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.to_json()


@pytest.mark.parametrize("name", ["folder", "none/results.json"])
def test_a_results_file_that_cannot_be_written_is_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="expected the name of a JSON file in a folder that exists"):
        check_results_file(tmp_path / name)
    check_results_file(tmp_path / "results.json")


def test_the_processor_is_described_from_the_kernels_file(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"

    def described(text: str) -> Any:
        file.write_text(text)
        return describe_machine(file)

    machine = described(X86)
    assert machine.cpu == "A Processor 9000"
    assert machine.flags == ("avx2", "avx512f", "avx512_vnni", "amx_tile", "amx_int8")
    assert described(ARM).flags == ("asimd", "asimddp", "i8mm", "bf16")
    assert described(ARM).cpu != ""
    missing = describe_machine(tmp_path / "none")
    assert missing.flags == ()
    assert missing.cpu != ""
    assert missing.with_version("tritonserver", "2.51.0").versions == {**missing.versions, "tritonserver": "2.51.0"}
    assert "tritonserver" not in missing.versions
