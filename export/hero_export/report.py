"""The report of an export: what was compared, how far apart, which operators, how large, with which versions."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from hero_export.onnx.speed import SpeedComparison
    from hero_export.stage_costs import StageCost

REPORT_JSON = "reports/export.json"
REPORT_TEXT = "reports/export.md"

TOOLS = ("hero-video-sdk", "torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True)
class CaseResult:
    """One output of one graph on one input, compared with the model.

    Attributes:
        graph, output, case: names.
        batch: rows that went in.
        vectors: output vectors compared.
        max_error, mean_error: absolute, over all elements of the compared vectors.
        quantiles: of the absolute error, by the share of elements that lie below: "0.5" is the median.
        required_tolerance: the smallest t with ``|found - expected| <= t + t |expected|`` for every element, which is what a
            comparison with rtol = atol = t asks.
        scale: the largest absolute value of the model's output, and for logits at least 1.
        cosine: the smallest cosine between a vector and the model's.
        finite: no NaN or infinity anywhere in the output, empty slots included.
        passed: within the tolerances.
        stray: vectors whose cosine is below the tolerance.
    """

    graph: str
    output: str
    case: str
    batch: int
    vectors: int
    max_error: float
    mean_error: float
    quantiles: dict[str, float]
    required_tolerance: float
    scale: float
    cosine: float
    finite: bool
    passed: bool
    stray: int = 0

    @property
    def relative_error(self) -> float:
        """``max_error`` as a share of ``scale``."""
        return self.max_error / self.scale if self.scale else self.max_error

    def judged(self, passed: bool) -> CaseResult:
        """The same numbers with a verdict."""
        return dataclasses.replace(self, passed=passed)


@dataclass(frozen=True)
class GraphReport:
    """One graph of the bundle.

    Attributes:
        file: path in the bundle.
        bytes: size of the file and of its external weights.
        precision: of the matrix products.
        max_batch: the largest verified batch.
        fused: how many of each fused operator.
        expected: how many the architecture implies; empty for the frame encoder, which may be any network.
        operators: how many of every operator.
    """

    name: str
    file: str
    bytes: int
    precision: str
    max_batch: int
    fused: dict[str, int]
    expected: dict[str, int]
    operators: dict[str, int]


@dataclass(frozen=True)
class ExportReport:
    """The whole report.

    Attributes:
        fingerprint: of the embedding space.
        tolerances: that the comparisons had to keep.
        graphs: in the order of the bundle.
        cases: every comparison.
        tools: versions.
        speed: both forms of graphs against each other, where they were measured.
        stages: what the export cost, of a report that is not in a bundle.
    """

    fingerprint: str
    tolerances: dict[str, float]
    graphs: tuple[GraphReport, ...]
    cases: tuple[CaseResult, ...]
    tools: dict[str, str]
    speed: tuple[SpeedComparison, ...] = ()
    stages: tuple[StageCost, ...] = ()

    @property
    def worst(self) -> CaseResult:
        """The comparison with the largest relative error."""
        return max(self.cases, key=lambda case: case.relative_error)

    def to_json(self) -> str:
        """As the text of ``reports/export.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def to_markdown(self) -> str:
        """As the text of ``reports/export.md``."""
        limits = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in self.tolerances.items())
        sections = [
            "# Export report",
            f"Bundle fingerprint `{self.fingerprint}`.",
            "## Graphs",
            markdown_table(GRAPH_COLUMNS, [graph_cells(graph) for graph in self.graphs]),
            "## Comparison with the model",
            "onnxruntime on the CPU against PyTorch (float32, eager), on the slots that hold something. The error is absolute; the "
            f"cosine is the smallest of all vectors. Tolerances: {limits} (the error as a share of the scale).",
            markdown_table(CASE_COLUMNS, [_case_cells(case) for case in self.cases]),
            *self._speed_sections(),
            "## Versions",
            markdown_table(("tool", "version"), [list(item) for item in self.tools.items()]),
        ]
        return "\n\n".join(sections) + "\n"

    def _speed_sections(self) -> list[str]:
        if not self.speed:
            return []
        table = markdown_table(SPEED_COLUMNS, [_speed_cells(one) for one in self.speed])
        return [
            "## Standard and onnxruntime's operators",
            "Medians in onnxruntime on the CPU of the machine that exported, the two forms in turn; the ratio is the median over "
            "the rounds.",
            table,
        ]

    def to_rich(self) -> Group:
        """As tables for a terminal."""
        from rich.console import Group

        speed = rich_table(
            "Standard and onnxruntime's operators", SPEED_COLUMNS, [_speed_cells(one) for one in self.speed]
        )
        return Group(
            rich_table("Graphs", GRAPH_COLUMNS, [graph_cells(graph) for graph in self.graphs]),
            rich_table("Comparison with the model", CASE_COLUMNS, [_case_cells(case) for case in self.cases]),
            *([speed] if self.speed else []),
            *(
                [rich_table("Stages", STAGE_COLUMNS, [stage_cells(cost) for cost in self.stages])]
                if self.stages
                else []
            ),
        )


GRAPH_COLUMNS = ("graph", "file", "MB", "precision", "max batch", "fused operators", "other operators")
CASE_COLUMNS = (
    *("graph", "output", "case", "batch", "max error", "mean error", "median", "required tolerance", "scale", "cosine"),
    "result",
)

SPEED_COLUMNS = ("graph", "batch", "rounds", "standard, ms", "onnxruntime, ms", "ratio")


STAGE_COLUMNS = ("stage", "seconds", "peak memory so far, MB")


def stage_cells(cost: StageCost) -> list[str]:
    """A stage as a line of a table."""
    return [cost.stage, f"{cost.seconds:.1f}", f"{cost.peak_bytes / 1e6:.0f}"]


def graph_cells(graph: GraphReport) -> list[str]:
    """A graph as a line of a table."""
    fused = [
        f"{count} {name}" + (f" of {graph.expected[name]}" if name in graph.expected else "")
        for name, count in graph.fused.items()
    ]
    others = [f"{count} {name}" for name, count in graph.operators.items() if name not in graph.fused]
    return [
        graph.name,
        graph.file,
        f"{graph.bytes / 1e6:.1f}",
        graph.precision,
        str(graph.max_batch),
        ", ".join(fused) or "none",
        ", ".join(others),
    ]


def _case_cells(case: CaseResult) -> list[str]:
    return [
        case.graph,
        case.output,
        case.case,
        str(case.batch),
        f"{case.max_error:.1e}",
        f"{case.mean_error:.1e}",
        f"{case.quantiles['0.5']:.1e}",
        f"{case.required_tolerance:.1e}",
        f"{case.scale:.2f}",
        f"{case.cosine:.7f}",
        "ok" if case.passed else "FAILED",
    ]


def _speed_cells(one: SpeedComparison) -> list[str]:
    return [
        one.graph,
        str(one.batch),
        str(one.rounds),
        f"{one.standard_ms:.2f}",
        f"{one.onnxruntime_ms:.2f}",
        f"{one.ratio:.3f}",
    ]


def markdown_table(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    """A table for Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rich_table(title: str, columns: tuple[str, ...], rows: list[list[str]]) -> Table:
    """A table for a terminal."""
    from rich.table import Table

    from hero_sdk.terminal import printable

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))  # names from a bundle are no markup
    return table


def tool_versions(*more: str) -> dict[str, str]:
    """Versions of what made the bundle; a package that is not installed as a distribution is left out.

    Args:
        more: distributions beside those that every export uses.
    """
    versions = {"python": platform.python_version()}
    for name in (*TOOLS, *more):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
