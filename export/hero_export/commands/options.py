"""Options that several commands of ``hero-export`` have, and the headings that their help groups them under."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hero_export.commands.terminal import console

if TYPE_CHECKING:
    from hero_export.dry_run import Plan

OUTPUT, SHAPES, PARTS, SERVING, TRUST, HUB = "Output", "Shapes", "Parts", "Serving", "Trust", "Hub"
CHECKS, VARIANTS = "Look at a bundle", "Add variants to a bundle"

BundleFolder = Annotated[Path, typer.Argument(help="What `hero-export onnx` wrote.")]

AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON on standard output instead of tables.", rich_help_panel=OUTPUT)
]

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Check everything, say what would be written, write nothing.", rich_help_panel=OUTPUT
    ),
]

AmendedBundle = Annotated[
    Path | None,
    typer.Option(
        help="The amended bundle: a new folder.",
        show_default="the bundle itself is amended",
        rich_help_panel=OUTPUT,
    ),
]

ReplaceAmended = Annotated[
    bool, typer.Option("--force", help="Replace a bundle that is at --out.", rich_help_panel=OUTPUT)
]

RequireSignature = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="KEY",
        help="Refuse a bundle that this public key did not sign; may be given again, any of them will do.",
        rich_help_panel=TRUST,
    ),
]


def show_plan(plan: Plan, *, as_json: bool) -> None:
    """Print what a dry run found."""
    if as_json:
        typer.echo(plan.to_json())
        return
    console().print(plan.to_rich())
    typer.echo(plan.summary())
