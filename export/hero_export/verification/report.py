"""What a verification found, in dataclasses whose names and types are the schema of ``report.json``."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from hero_export.report import CaseResult
from hero_export.stage_costs import StageCost

REPORT_VERSION = 1

BASE = "base"
"""The name of the bundle's own graphs beside those of its variants: ONNX, fp32, onnxruntime."""

TORCH = "torch"
"""The model itself, where it is timed beside them."""


@dataclass(frozen=True)
class VariantResult:
    """One variant as a whole.

    Attributes:
        name: in the manifest; ``BASE`` for the bundle's own graphs.
        engine, precision, target: as the manifest says.
        products: matrix products per precision over all its graphs, as the manifest says, read back from the artefacts.
        bytes: of its files.
        not_run: why it could not run on this machine; None where it ran.
        problems: what is wrong with it, each a sentence: with its files, its numbers or its task.
    """

    name: str
    engine: str
    precision: str
    target: str | None
    products: dict[str, int]
    bytes: int
    not_run: str | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class ArtefactCheck:
    """One check of what a file is.

    Attributes:
        variant, graph, file: what was checked; no graph where it is a variant as a whole.
        check: "onnx.checker" and "shape inference", which are ONNX's own, "fusion" or "precision".
        problem: what it says; None where it has nothing to say.
    """

    variant: str
    graph: str
    file: str
    check: str
    problem: str | None


@dataclass(frozen=True)
class VariantCase:
    """One comparison with the model.

    Attributes:
        variant: its name.
        result: what was found.
        judged: whether it is held to the tolerances of the variant's precision; otherwise it must only be numbers.
    """

    variant: str
    result: CaseResult
    judged: bool


@dataclass(frozen=True)
class WorstInput:
    """The input on which a graph of a variant is furthest from the model, kept to be run again.

    Attributes:
        variant, graph, output, case: of the comparison.
        file: in the report's folder, for ``hero-export replay``.
        max_error, required_tolerance: of that output.
    """

    variant: str
    graph: str
    output: str
    case: str
    file: str
    max_error: float
    required_tolerance: float


@dataclass(frozen=True)
class LayerError:
    """How far a variant is from the model behind one norm, which every block of a layer ends in.

    Attributes:
        place: counted from the first norm of the graph.
        layer: name of the module in PyTorch.
        relative_error: the largest absolute error as a share of the largest value.
        cosine: the smallest of any vector.
    """

    variant: str
    graph: str
    place: int
    layer: str
    relative_error: float
    cosine: float


@dataclass(frozen=True)
class MetricResult:
    """One metric of the task, through PyTorch and through a variant, on the same items.

    Attributes:
        variant, metric: names.
        items: queries, questions, statements or moments that it is a mean of.
        torch, found: what each reaches; shares, and CIDEr in [0, 10].
        loss: points that the variant loses: a hundred times ``torch - found``.
        low, high: 95 % interval of the loss, by the paired bootstrap over items; None for a metric that is no mean of items.
        budget: points that may be lost; None for a metric that is shown and not judged.
        passed: the loss is within the budget, or nothing is judged.
    """

    variant: str
    metric: str
    items: int
    torch: float
    found: float
    loss: float
    low: float | None
    high: float | None
    budget: float | None
    passed: bool


@dataclass(frozen=True)
class Latency:
    """How long one call takes, the median over rounds in which all variants take turns.

    Attributes:
        variant: or ``TORCH``.
        what: a graph, or what a user asks for, such as "encode a video".
        batch: rows of a graph; 1 for the rest.
        rounds: how often.
        milliseconds: the median.
    """

    variant: str
    what: str
    batch: int
    rounds: int
    milliseconds: float


@dataclass(frozen=True)
class VerificationReport:
    """The whole report.

    Attributes:
        bundle, task, fingerprint: of the bundle, by its folder's name.
        split, sample: what of the data was judged on, and how many annotations at most; None where the task was not judged.
        threads: that each engine and PyTorch had.
        tools, machine: versions, and the processor.
        tolerances: by precision, with their reasons.
        stages: what the verification cost.
        version: of this schema.
    """

    bundle: str
    task: str
    fingerprint: str
    split: str | None
    sample: int | None
    threads: int
    tools: dict[str, str]
    machine: str
    tolerances: dict[str, dict[str, Any]]
    variants: tuple[VariantResult, ...]
    checks: tuple[ArtefactCheck, ...]
    cases: tuple[VariantCase, ...]
    worst: tuple[WorstInput, ...]
    layers: tuple[LayerError, ...]
    metrics: tuple[MetricResult, ...]
    latencies: tuple[Latency, ...]
    stages: tuple[StageCost, ...]
    absent: dict[str, str]
    version: int = REPORT_VERSION

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong with any variant."""
        return not any(variant.problems for variant in self.variants)

    @property
    def over_budget(self) -> tuple[MetricResult, ...]:
        """The metrics that lose too much."""
        return tuple(metric for metric in self.metrics if not metric.passed)

    def to_json(self) -> str:
        """As the text of ``report.json``; a number that is not finite is null."""
        content = dataclasses.asdict(self) | {"passed": self.passed}
        return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def signed(points: float) -> str:
    """A difference in points with its sign, none where it rounds to nothing."""
    rounded = round(points, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"
