"""The report of a variant in another precision: what came out, how far it is from fp32, and what this machine makes of it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hero_export.report import rich_table

if TYPE_CHECKING:
    from rich.table import Table

PRECISION_JSON = "precision.json"


@dataclass(frozen=True)
class OutputError:
    """How far an output is from that of the fp32 graph, on the same rows.

    Attributes:
        output: its name.
        largest: the largest error as a share of the largest value.
        mean: the mean error as a share of the mean absolute value.
    """

    output: str
    largest: float
    mean: float


@dataclass(frozen=True)
class GraphPrecision:
    """A graph of a variant.

    Attributes:
        graph: its name.
        bytes: of the file and its weights.
        precision: of most multiply-adds, as read back.
        products: matrix products per precision.
        shares: of the multiply-adds, per precision.
        kept: layers with a weight that stayed in float32, because they were to or because they are narrow.
        errors: against the fp32 graph.
        rows: inputs that were compared.
        executed: matrix products per precision as onnxruntime runs them on the CPU of this machine; empty where it can't.
        obstacle: why it can't; empty where it can.
    """

    graph: str
    bytes: int
    precision: str
    products: dict[str, int]
    shares: dict[str, float]
    kept: tuple[str, ...]
    errors: tuple[OutputError, ...]
    rows: int
    executed: dict[str, int]
    obstacle: str = ""


@dataclass(frozen=True)
class PrecisionReport:
    """A variant.

    Attributes:
        variant: its name in the bundle.
        precision: that was asked for.
        inputs: what the errors were measured on, "calibration rows" or "noise".
        graphs: those that it has.
        left: graphs that run as the bundle's own, in float32, with the reason.
        tools: versions.
    """

    variant: str
    precision: str
    inputs: str
    graphs: tuple[GraphPrecision, ...]
    left: dict[str, str]
    tools: dict[str, str]

    def to_json(self) -> str:
        """As the text of ``precision.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def to_rich(self) -> Table:
        """As a table for a terminal."""
        return rich_table(f"{self.variant} (errors on {self.inputs})", COLUMNS, [_cells(one) for one in self.graphs])

    def sentences(self) -> list[str]:
        """What a table cannot say."""
        said = [f"{graph} stays in fp32: {reason}." for graph, reason in self.left.items()]
        obstacles = {one.obstacle for one in self.graphs if one.obstacle}
        said += [f"{self.variant} does not run on this machine: {obstacle}" for obstacle in sorted(obstacles)[:1]]
        lost = sum(one.products.get(self.precision, 0) - one.executed.get(self.precision, 0) for one in self._running())
        if lost > 0:
            total = sum(one.products.get(self.precision, 0) for one in self._running())
            others = {kind for one in self._running() for kind in one.executed if kind not in one.products}
            said.append(
                f"onnxruntime has no {self.precision} for {lost} of the {total} products on this CPU and runs them in "
                f"{', '.join(sorted(others)) or 'fp32'}: the variant is smaller, and for other devices."
            )
        return said

    def _running(self) -> list[GraphPrecision]:
        """The graphs that run on this machine."""
        return [one for one in self.graphs if not one.obstacle]


COLUMNS = (
    "graph",
    "MB",
    "precision",
    "multiply-adds in it",
    "products",
    "run here as",
    "largest error",
    "mean error",
    "kept",
)


def _cells(one: GraphPrecision) -> list[str]:
    return [
        one.graph,
        f"{one.bytes / 1e6:.1f}",
        one.precision,
        f"{one.shares.get(one.precision, 0.0):.1%}",
        _counted(one.products),
        _counted(one.executed) or "not",
        f"{max(error.largest for error in one.errors):.1e}",
        f"{max(error.mean for error in one.errors):.1e}",
        ", ".join(one.kept),
    ]


def _counted(products: dict[str, int]) -> str:
    return ", ".join(f"{count} {precision}" for precision, count in products.items())
