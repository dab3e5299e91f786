"""The command ``hero-export openvino``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from hero_export.commands.options import (
    VARIANTS,
    AmendedBundle,
    AsJson,
    BundleFolder,
    DryRun,
    ReplaceAmended,
    RequireSignature,
    show_plan,
)
from hero_export.commands.terminal import console, stages

PRECISION = "Precision"
"""Heading of options."""


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(rich_help_panel=VARIANTS)(openvino)


def openvino(
    bundle: BundleFolder,
    precision: Annotated[
        list[str],
        typer.Option(
            help="Of the matrix products: fp32, fp16, bf16, int8, int8-dynamic, int8-weights; may be given again, for more "
            "variants.",
            rich_help_panel=PRECISION,
        ),
    ],
    calibration: Annotated[
        Path | None,
        typer.Option(help="Folder that `hero-export calibrate` wrote, for int8.", rich_help_panel=PRECISION),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GRAPH|LAYER",
            help="Keep this in fp32: a whole graph, by its name, or, in int8 variants, a layer: a module's name, such as "
            "cross_modal.layers.0, or GRAPH:LAYER; may be given again.",
            rich_help_panel=PRECISION,
        ),
    ] = None,
    out: AmendedBundle = None,
    force: ReplaceAmended = False,
    require_signature: RequireSignature = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Add variants for OpenVINO to a bundle: converted, quantised, read back, compared with the ONNX graphs."""
    with stages() as stage:
        stage("Loading torch and OpenVINO")
        from hero_export.openvino.export import Request, add_openvino, plan_openvino

        # The same one twice is one.
        request = Request(bundle, tuple(dict.fromkeys(precision)), calibration, tuple(keep or ()))
        if dry_run:
            plan = plan_openvino(request, out=out, force=force, require_signature=require_signature or None)
        else:
            reports = add_openvino(
                request, out=out, force=force, require_signature=require_signature or None, on_stage=stage
            )
    if dry_run:
        show_plan(plan, as_json=as_json)
        return
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(report) for report in reports], indent=2))
        return
    for report in reports:
        console().print(report.to_rich())
    for note in (note for report in reports for note in report.notes()):
        typer.echo(note)
    place = out or bundle
    typer.echo(f'Wrote {place}. Load it with: hero_sdk.load("{place}", variant="{reports[0].variant}")')
