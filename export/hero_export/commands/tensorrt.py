"""The command ``hero-export tensorrt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hero_export.commands.options import (
    SHAPES,
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

PLANS, CACHES = "Plans", "Caches"


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(rich_help_panel=VARIANTS)(tensorrt)


def tensorrt(
    bundle: BundleFolder,
    precision: Annotated[
        list[str],
        typer.Option(help="Of the matrix products: fp16, bf16, int8, fp8; may be given again.", rich_help_panel=PLANS),
    ] = ["fp16"],  # noqa: B006 - typer reads it and nobody changes it
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="GPUs by compute capability: sm75, sm80, sm86, sm89, sm120, ...; may be given again. "
            "With --module tensorrt that of this machine.",
            rich_help_panel=PLANS,
        ),
    ] = None,
    hardware_compatible: Annotated[
        bool,
        typer.Option(
            "--hardware-compatible",
            help="One plan for every GPU from compute capability 8.0 on, beside those of --target.",
            rich_help_panel=PLANS,
        ),
    ] = False,
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="Plans that later releases run too; with --module tensorrt.",
            rich_help_panel=PLANS,
        ),
    ] = False,
    module: Annotated[
        Literal["tensorrt_rtx", "tensorrt"] | None,
        typer.Option(
            help="What builds and runs the plans.",
            show_default="the installed one; tensorrt_rtx, which builds without a GPU, of two",
            rich_help_panel=PLANS,
        ),
    ] = None,
    opt_batch: Annotated[
        int | None,
        typer.Option(
            help="Batch that the plans are to be fastest with.",
            show_default="the largest of the graph",
            rich_help_panel=SHAPES,
        ),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            help="File that keeps the times of kernels between builds; with --module tensorrt.", rich_help_panel=CACHES
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of plans that were built before; they are not built again.", rich_help_panel=CACHES),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="What `hero-export calibrate` wrote, for int8 and fp8.", rich_help_panel=PLANS),
    ] = None,
    out: AmendedBundle = None,
    force: ReplaceAmended = False,
    require_signature: RequireSignature = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Build TensorRT plans of a bundle's graphs for named GPUs, and put them into the bundle as variants."""
    from hero_export.tensorrt.plans import PlanRequest

    request = PlanRequest(
        precisions=tuple(dict.fromkeys(precision)),
        targets=tuple(name.lower() for name in target or ()),
        hardware_compatible=hardware_compatible,
        opt_batch=opt_batch,
        version_compatible=version_compatible,
        timing_cache=timing_cache,
        cache=cache,
        calibration=calibration,
    )
    if dry_run:
        from hero_export.tensorrt.dry_run import plan_plans

        plan = plan_plans(
            bundle, request, module=module, out=out, force=force, require_signature=require_signature or None
        )
        show_plan(plan, as_json=as_json)
        return
    with stages() as stage:
        stage("Loading TensorRT")
        from hero_export.tensorrt.plans import add_plans

        report = add_plans(
            bundle,
            request,
            module=module,
            out=out,
            force=force,
            require_signature=require_signature or None,
            on_stage=stage,
        )
    if as_json:
        typer.echo(report.to_json())
        return
    console().print(report.to_rich())
    names = ", ".join(dict.fromkeys(plan.variant for plan in report.plans))
    typer.echo(f"Wrote {len(report.plans)} plans of {report.builder} into {out or bundle}: {names}.")
    if report.unsigned:
        typer.echo(
            f"The bundle was signed, and is not any more. Sign it again: hero-export sign {out or bundle} --key ..."
        )
