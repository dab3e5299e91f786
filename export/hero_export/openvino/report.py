"""What is told about a variant for OpenVINO: what its graphs are, what this machine makes of them, how far they are from ONNX."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hero_export.report import CaseResult, rich_table

if TYPE_CHECKING:
    from rich.table import Table

REPORT_FILE = "openvino.json"

COLUMNS = ("graph", "MB", "products in the file", "computed here", "fused operators", "worst error", "cosine")


@dataclass(frozen=True)
class GraphResult:
    """A graph of a variant.

    Attributes:
        graph: its name.
        file: path in the bundle; the weights lie beside it.
        bytes: of both files.
        precision: that it was made in; the frame encoder stays in float32.
        products: matrix products per precision, read from the file.
        shares: the part of the multiply-adds per precision, read from the file.
        executed: products per precision that they are computed in on the machine that made it.
        not_executed: why the precision was seen in the file alone; None where it was executed.
        fused: fused operators, each of which is one operation in the file, and each attention when it runs.
        kept: products that were kept in float32.
        smoothing: how much of the outliers of activations went into the weights, see ``quantise.SMOOTHINGS``.
    """

    graph: str
    file: str
    bytes: int
    precision: str
    products: dict[str, int]
    shares: dict[str, float]
    executed: dict[str, int]
    not_executed: str | None
    fused: dict[str, int]
    kept: tuple[str, ...]
    smoothing: float | None = None


@dataclass(frozen=True)
class VariantReport:
    """A variant.

    Attributes:
        variant: its name.
        precision: that was asked for.
        tolerance: that the comparisons had to keep.
        capabilities: what OpenVINO says that the CPU computes in.
        tools: versions.
        graphs: in the order of the bundle.
        cases: every comparison with the ONNX graphs.
    """

    variant: str
    precision: str
    tolerance: dict[str, float]
    capabilities: tuple[str, ...]
    tools: dict[str, str]
    graphs: tuple[GraphResult, ...]
    cases: tuple[CaseResult, ...]

    def to_json(self) -> str:
        """As the text of the report's file."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def to_rich(self) -> Table:
        """As a table for a terminal."""
        return rich_table(self.variant, COLUMNS, [self._cells(graph) for graph in self.graphs])

    def notes(self) -> list[str]:
        """What was not seen running, as sentences."""
        return [f"{self.variant}, {graph.graph}: {graph.not_executed}." for graph in self.graphs if graph.not_executed]

    def _cells(self, graph: GraphResult) -> list[str]:
        cases = [case for case in self.cases if case.graph == graph.graph]
        return [
            graph.graph,
            f"{graph.bytes / 1e6:.1f}",
            _counted(graph.products),
            _counted(graph.executed),
            _counted(graph.fused),
            f"{max(case.relative_error for case in cases):.1e}",
            f"{min(case.cosine for case in cases):.6f}",
        ]


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
