"""The report says what was compared, in JSON for programs and in Markdown and tables for people."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import io
import json

import pytest
from rich.console import Console

from hero_export.onnx.speed import SpeedComparison
from hero_export.report import CaseResult, ExportReport, GraphReport, tool_versions


def case(name: str, max_error: float, scale: float) -> CaseResult:
    return CaseResult(
        *("query", "query_vector", name, 2, 2, max_error, max_error / 2, {"0.5": max_error / 4}, max_error / 8, scale),
        *(0.99999999, True, True),
    )


@pytest.fixture
def report() -> ExportReport:
    operators = {"LayerNormalization": 4, "MatMul": 7, "Attention": 1, "Gelu": 1}
    fused = {"Attention": 1, "LayerNormalization": 4, "Gelu": 1}
    return ExportReport(
        fingerprint="ab" * 32,
        tolerances={"max_relative_error": 1e-4, "min_cosine": 0.999999},
        graphs=(
            GraphReport("temporal", "graphs/temporal.onnx", 2_500_000, "fp32", 32, fused, fused, operators),
            GraphReport("frames", "frame_encoder/frame_encoder.onnx", 40, "fp32", 32, {}, {}, {"Conv": 9}),
        ),
        cases=(case("small", 1e-6, 0.1), case("large", 2e-6, 5.0), case("silent", 0.0, 0.0)),
        tools={"python": "3.11", "torch": "2"},
    )


def test_the_worst_case_is_worst_relative_to_its_scale(report: ExportReport) -> None:
    assert report.worst.case == "small"
    assert report.worst.relative_error == pytest.approx(1e-5)


def test_an_error_where_all_should_be_zero_counts_whole() -> None:
    assert case("silent", 0.5, 0.0).relative_error == 0.5


def test_the_verdict_changes_nothing_else() -> None:
    passed = case("small", 1.0, 1.0)
    assert passed.judged(False) == dataclasses.replace(passed, passed=False)


def test_json_has_all_numbers(report: ExportReport) -> None:
    content = json.loads(report.to_json())
    assert set(content) == {"fingerprint", "tolerances", "graphs", "cases", "tools", "speed", "stages"}
    assert [(item["case"], item["max_error"], item["mean_error"]) for item in content["cases"]] == [
        ("small", 1e-6, 5e-7),
        ("large", 2e-6, 1e-6),
        ("silent", 0.0, 0.0),
    ]
    assert content["graphs"][0]["expected"] == {"Attention": 1, "LayerNormalization": 4, "Gelu": 1}


def test_markdown_has_a_line_per_graph_and_case(report: ExportReport) -> None:
    tables = [line for line in report.to_markdown().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables]
    assert cells[2] == [
        "temporal",
        "graphs/temporal.onnx",
        "2.5",
        "fp32",
        "32",
        "1 Attention of 1, 4 LayerNormalization of 4, 1 Gelu of 1",
        "7 MatMul",
    ]
    assert cells[3][5:] == ["none", "9 Conv"]
    errors = ["2.5e-07", "1.2e-07"]  # the median, and the tolerance that is required
    assert cells[6] == ["query", "query_vector", "small", "2", "1.0e-06", "5.0e-07", *errors, "0.10", "1.0000000", "ok"]
    assert {len(line) for line in cells[:4]} == {7}
    assert {len(line) for line in cells[4:9]} == {11}
    assert cells[-2:] == [["python", "3.11"], ["torch", "2"]]
    assert "max relative error 0.0001, min cosine 0.999999" in report.to_markdown()


def test_what_was_timed_has_a_table_of_its_own(report: ExportReport) -> None:
    assert "onnxruntime's operators" not in report.to_markdown()
    timed = dataclasses.replace(report, speed=(SpeedComparison("query", 8, 50, 12.345, 10.5, 0.8512),))
    assert "| query | 8 | 50 | 12.35 | 10.50 | 0.851 |" in timed.to_markdown()
    assert json.loads(timed.to_json())["speed"][0]["ratio"] == 0.8512
    output = io.StringIO()
    Console(width=200, file=output).print(timed.to_rich())
    assert "0.851" in output.getvalue()


def test_a_failed_case_is_called_so(report: ExportReport) -> None:
    failed = ExportReport(report.fingerprint, {}, (), (report.cases[0].judged(False),), {})
    assert "| FAILED |" in failed.to_markdown()


def test_tables_for_a_terminal(report: ExportReport) -> None:
    output = io.StringIO()
    Console(width=200, file=output).print(report.to_rich())
    text = output.getvalue()
    assert "4 LayerNormalization of 4" in text
    assert text.count(" ok ") == 3


def test_versions_of_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tool_versions()["torch"] == importlib.metadata.version("torch")
    real = importlib.metadata.version

    def without_onnxscript(name: str) -> str:
        if name == "onnxscript":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", without_onnxscript)
    assert "onnxscript" not in tool_versions()
