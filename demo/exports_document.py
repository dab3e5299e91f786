"""Writes docs/export.md from the reports of `python -m demo.exports`.

python -m demo.exports_document
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import jinja2
import typer

from demo.exports import EXPORTS_FILE, FULL_SIZE_FILE, HELD_OUT_FOLDER
from demo.tasks import ANNOTATIONS, HERE, ROOT, WORK
from hero_export.tolerances import TOLERANCES
from hero_export.verification.mixing import SEARCH_REPORT
from hero_export.verification.report import TORCH, signed

Row = tuple[str, ...]

DOCUMENT = ROOT / "docs" / "export.md"

METRICS = {
    "retrieval": {"VR/R@1": "VR R@1", "SVMR/R@1/IoU=0.7": "SVMR R@1 .7", "VCMR/R@1/IoU=0.7": "VCMR R@1 .7"},
    "questions": {"accuracy": "accuracy"},
    "statements": {"accuracy": "accuracy"},
    "captions": {"CIDEr": "CIDEr", "BLEU-4": "BLEU-4"},
}
CALLS = {
    "retrieval": ("encode a video", "encode a query"),
    "questions": ("answer a question",),
    "statements": ("judge a statement",),
    "captions": ("caption a moment",),
}


def main(
    work: Annotated[Path, typer.Option(help="Folder that `python -m demo.exports` worked in.")] = WORK,
    out: Annotated[Path, typer.Option(help="The document to write.")] = DOCUMENT,
    note: Annotated[str, typer.Option(help="What a reader must know of how this was measured.")] = "",
) -> None:
    """Write the document."""
    typer.echo(f"Wrote {write_document(work, out, note).name}.")


def write_document(work: Path, out: Path = DOCUMENT, note: str = "") -> Path:
    """Write the document in Markdown; returns where it is."""
    reports = {
        task: json.loads(path.read_text(encoding="utf-8"))
        for task in ANNOTATIONS
        if (path := work / "exports" / task / "report" / "report.json").is_file()
    }
    searches = {
        task: {
            path.parent.name: json.loads(path.read_text(encoding="utf-8"))
            for path in sorted((work / "exports" / task / "bundle").glob(f"reports/variants/*/{SEARCH_REPORT}"))
        }
        for task in reports
    }
    costs, full, held_out = (
        json.loads((work / name).read_text(encoding="utf-8")) if (work / name).is_file() else {}
        for name in (EXPORTS_FILE, FULL_SIZE_FILE, Path(HELD_OUT_FOLDER, "toontv", "corpus.json"))
    )
    episodes = held_out["counts"]["test"]["episodes"] if held_out else None
    out.write_text(document(reports, costs, full, searches, episodes, note), encoding="utf-8")
    return out


def document(
    reports: Mapping[str, Any],
    costs: Mapping[str, Any],
    full: Mapping[str, Any],
    searches: Mapping[str, Mapping[str, Any]],
    episodes: int | None = None,
    note: str = "",
) -> str:
    """The document.

    Args:
        reports: of `hero-export verify`, by task.
        costs: steps of the demo, by task.
        full: parameters, bytes and steps at full size, by task.
        searches: of `hero-export mix`, by task and variant.
        episodes: that were made to judge on; None where those of the runs were taken.
        note: what a reader must know of how this was measured.
    """
    loader = jinja2.FileSystemLoader(HERE)
    template = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return template.get_template("exports.md.jinja").render(
        note=note,
        episodes=episodes,
        machine=next((report["machine"] for report in reports.values()), ""),
        threads=next((report["threads"] for report in reports.values()), 1),
        tasks={
            task: {
                "split": report["split"],
                "items": next((metric["items"] for metric in report["metrics"]), 0),
                "heading": (
                    "variant",
                    *METRICS[task].values(),
                    *(f"{call}, ms" for call in CALLS[task]),
                    "MB",
                    "products",
                ),
                "rows": variant_rows(task, report),
                "mixed": [(name, search_sentence(search)) for name, search in searches.get(task, {}).items()],
                "absent": [(one["name"], one["not_run"]) for one in report["variants"] if one["not_run"]],
            }
            for task, report in reports.items()
        },
        plans=plan_rows(reports),
        costs=[(task, *cost_cells(step)) for task, steps in costs.items() for step in steps],
        full=[
            (task, f"{one['parameters'] / 1e6:.1f} M", f"{one['graph_bytes'] / 1e6:.0f}", *cost_cells(step))
            for task, one in full.items()
            for step in one["steps"]
        ],
        tolerances=[
            (name, f"{one.max_relative_error:g}", f"{one.min_cosine:g}", f"{one.budget:g}", one.reason)
            for name, one in TOLERANCES.items()
        ],
    )


def cost_cells(step: Mapping[str, Any]) -> Row:
    """A step as the end of a line: its name, seconds and peak memory."""
    return step["name"], f"{step['seconds']:.0f}", f"{step['peak_bytes'] / 1e9:.1f}"


def variant_rows(task: str, report: Mapping[str, Any]) -> list[Row]:
    """PyTorch, then every variant that ran: its metrics in percent, what it loses with the interval, its times and its size."""
    metrics = {(one["variant"], one["metric"]): one for one in report["metrics"]}
    times = {(one["variant"], one["what"]): f"{one['milliseconds']:.1f}" for one in report["latencies"]}
    ran = [one for one in report["variants"] if one["not_run"] is None]
    torch = [
        next((f"{100 * one['torch']:.1f}" for (_, name), one in metrics.items() if name == metric), "")
        for metric in METRICS[task]
    ]
    rows: list[Row] = [("PyTorch", *torch, *(times.get((TORCH, call), "") for call in CALLS[task]), "", "")]
    for variant in ran:
        name = variant["name"]
        rows.append(
            (
                name,
                *(metric_cell(metrics.get((name, metric))) for metric in METRICS[task]),
                *(times.get((name, call), "") for call in CALLS[task]),
                f"{variant['bytes'] / 1e6:.1f}",
                ", ".join(f"{count} {kind}" for kind, count in variant["products"].items()),
            )
        )
    return rows


def metric_cell(metric: Mapping[str, Any] | None) -> str:
    """What a variant reaches, and the difference to PyTorch with its interval."""
    if metric is None:
        return ""
    reached = f"{100 * metric['found']:.1f} ({signed(-metric['loss'])})"
    if metric["low"] is None:
        return reached
    return f"{reached}, {signed(-metric['high'])} to {signed(-metric['low'])}"


def search_sentence(search: Mapping[str, Any]) -> str:
    """What a search for layers to keep in fp32 came to, as the end of a sentence and another one."""
    trail = search["trail"]
    kept = ", ".join(f"`{name}`" for name in search["kept"]) or "nothing"
    return (
        f"{kept}. By a search on the validation split; to 95 % it loses at most {max(0.0, -search['metric']):.2f} points there, "
        f"with nothing kept {-trail[0]['metric']:.2f} (budget {search['budget']:g}, candidates: {len(trail)})"
    )


def plan_rows(reports: Mapping[str, Any]) -> list[Row]:
    """TensorRT's plans: a line per task and target."""
    return [
        (task, one["engine"], one["precision"], one["target"] or "", f"{one['bytes'] / 1e6:.1f}")
        for task, report in reports.items()
        for one in report["variants"]
        if one["engine"].startswith("tensorrt")
    ]


if __name__ == "__main__":
    typer.run(main)
