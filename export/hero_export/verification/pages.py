"""A verification's report for people: one page of HTML that needs nothing else, tables of Markdown, tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hero_export.report import STAGE_COLUMNS, markdown_table, rich_table, stage_cells
from hero_export.verification.plots import Bar, bars, curves
from hero_export.verification.report import (
    LayerError,
    MetricResult,
    VariantCase,
    VariantResult,
    VerificationReport,
    signed,
)

if TYPE_CHECKING:
    from rich.console import Group

TEMPLATE = "report.html.jinja"

VARIANT_COLUMNS = ("variant", "engine", "precision", "matrix products", "MB", "result")
METRIC_COLUMNS = ("metric", "variant", "items", "PyTorch", "variant's", "loss in points", "95 % interval", "budget", "")
CASE_COLUMNS = (
    *("graph", "output", "variant", "judged", "max error", "mean", "median", "99 %", "required tolerance", "cosine"),
    "worst case",
)
LATENCY_COLUMNS = ("what", "batch", "variant", "ms", "rounds")
WORST_COLUMNS = ("variant", "graph", "output", "case", "max error", "required tolerance", "file")


def variant_cells(variant: VariantResult) -> list[str]:
    """A variant as a line of a table."""
    products = ", ".join(f"{count} {kind}" for kind, count in variant.products.items())
    if variant.problems:
        result = "FAILED: " + "; ".join(variant.problems)
    elif variant.not_run is not None:
        result = f"not run here: {variant.not_run}"
    else:
        result = "passed"
    target = f" ({variant.target})" if variant.target else ""
    return [
        variant.name,
        f"{variant.engine}{target}",
        variant.precision,
        products,
        f"{variant.bytes / 1e6:.1f}",
        result,
    ]


def metric_cells(metric: MetricResult) -> list[str]:
    """A metric as a line of a table, in percent and points."""
    interval = "" if metric.low is None or metric.high is None else f"{metric.low:+.2f} to {metric.high:+.2f}"
    verdict = "" if metric.budget is None else "ok" if metric.passed else "FAILED"
    return [
        metric.metric,
        metric.variant,
        str(metric.items),
        f"{100 * metric.torch:.2f}",
        f"{100 * metric.found:.2f}",
        f"{metric.loss:+.2f}",
        interval,
        "" if metric.budget is None else f"{metric.budget:g}",
        verdict,
    ]


def case_rows(cases: Iterable[VariantCase]) -> list[list[str]]:
    """A line per graph, output and variant: its worst case, and how many there were."""
    groups: dict[tuple[str, str, str], list[VariantCase]] = {}
    for case in cases:
        groups.setdefault((case.result.graph, case.result.output, case.variant), []).append(case)
    rows = []
    for (graph, output, variant), part in groups.items():
        judged = [case.result for case in part if case.judged]
        shown = judged or [case.result for case in part]
        worst = max(shown, key=lambda result: result.required_tolerance)
        rows.append(
            [
                graph,
                output,
                variant,
                f"{len(judged)} of {len(part)}",
                f"{worst.max_error:.1e}",
                f"{worst.mean_error:.1e}",
                f"{worst.quantiles['0.5']:.1e}",
                f"{worst.quantiles['0.99']:.1e}",
                f"{worst.required_tolerance:.1e}",
                f"{min(result.cosine for result in shown):.6f}",
                worst.case + ("" if all(case.result.passed for case in part) else " (FAILED)"),
            ]
        )
    return rows


def latency_rows(report: VerificationReport) -> list[list[str]]:
    """A line per variant of each graph or call."""
    return [
        [one.what, str(one.batch), one.variant, f"{one.milliseconds:.2f}", str(one.rounds)] for one in report.latencies
    ]


def worst_rows(report: VerificationReport) -> list[list[str]]:
    """A line per input that was kept."""
    return [
        [
            one.variant,
            one.graph,
            one.output,
            one.case,
            f"{one.max_error:.1e}",
            f"{one.required_tolerance:.3e}",
            one.file,
        ]
        for one in report.worst
    ]


def metric_plots(report: VerificationReport) -> dict[str, str]:
    """A plot of each judged metric: PyTorch and every variant, the interval of its difference to PyTorch around it."""
    plots = {}
    for name in dict.fromkeys(metric.metric for metric in report.metrics if metric.budget is not None):
        part = [metric for metric in report.metrics if metric.metric == name]
        lines = [Bar("PyTorch", 100 * part[0].torch, f"{100 * part[0].torch:.1f}")]
        for one in part:
            reached = 100 * one.found
            ends = (None, None) if one.low is None or one.high is None else (one.high, one.low)
            low, high = (None if end is None else 100 * one.torch - end for end in ends)
            lines.append(Bar(one.variant, reached, f"{reached:.1f} ({signed(-one.loss)})", low, high, not one.passed))
        plots[name] = bars(lines)
    return plots


def latency_plots(report: VerificationReport) -> dict[str, str]:
    """A plot of each graph and call."""
    plots = {}
    for what, batch in dict.fromkeys((one.what, one.batch) for one in report.latencies):
        part = [one for one in report.latencies if (one.what, one.batch) == (what, batch)]
        lines = [Bar(one.variant, one.milliseconds, f"{one.milliseconds:.2f} ms") for one in part]
        plots[f"{what}, batch of {batch}"] = bars(lines)
    return plots


def layer_plots(report: VerificationReport) -> dict[str, str]:
    """A plot of each graph."""
    graphs: dict[str, dict[str, list[LayerError]]] = {}
    for one in report.layers:
        graphs.setdefault(one.graph, {}).setdefault(one.variant, []).append(one)
    return {
        graph: curves(
            {variant: [one.relative_error for one in errors] for variant, errors in variants.items()},
            "norms in the order of the graph, from " + next(iter(variants.values()))[0].layer,
        )
        for graph, variants in graphs.items()
    }


def to_html(report: VerificationReport) -> str:
    """The page."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=True)
    return environment.get_template(TEMPLATE).render(
        report=report,
        tables={
            "variants": (VARIANT_COLUMNS, [variant_cells(one) for one in report.variants]),
            "metrics": (METRIC_COLUMNS, [metric_cells(one) for one in report.metrics]),
            "cases": (CASE_COLUMNS, case_rows(report.cases)),
            "worst": (WORST_COLUMNS, worst_rows(report)),
            "stages": (STAGE_COLUMNS, [stage_cells(one) for one in report.stages]),
        },
        metric_plots=metric_plots(report),
        latency_plots=latency_plots(report),
        layer_plots=layer_plots(report),
    )


def to_markdown(report: VerificationReport) -> str:
    """Tables for documents."""
    sections = [
        f"# Verification of {report.bundle}",
        f"Task {report.task}, fingerprint `{report.fingerprint}`, {report.machine}, threads: {report.threads}.",
        markdown_table(VARIANT_COLUMNS, [variant_cells(one) for one in report.variants]),
    ]
    if report.metrics:
        sections += [
            f"## Task, {report.split} split",
            markdown_table(METRIC_COLUMNS, list(map(metric_cells, report.metrics))),
        ]
    sections += ["## Numbers", markdown_table(CASE_COLUMNS, case_rows(report.cases))]
    if report.latencies:
        sections += ["## Latency", markdown_table(LATENCY_COLUMNS, latency_rows(report))]
    sections += ["## Stages", markdown_table(STAGE_COLUMNS, [stage_cells(one) for one in report.stages])]
    return "\n\n".join(sections) + "\n"


def to_rich(report: VerificationReport) -> Group:
    """Tables for a terminal."""
    from rich.console import Group

    tables = [
        rich_table("Variants", VARIANT_COLUMNS, [variant_cells(one) for one in report.variants]),
        rich_table("Comparison with the model", CASE_COLUMNS, case_rows(report.cases)),
    ]
    if report.metrics:
        title = f"Task: {report.task}, {report.split} split"
        tables.append(rich_table(title, METRIC_COLUMNS, list(map(metric_cells, report.metrics))))
    if report.latencies:
        tables.append(rich_table("Latency", LATENCY_COLUMNS, latency_rows(report)))
    tables.append(rich_table("Stages", STAGE_COLUMNS, [stage_cells(one) for one in report.stages]))
    return Group(*tables)
