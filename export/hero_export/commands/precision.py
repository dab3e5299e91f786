"""``hero-export calibrate``, and what ``hero-export onnx`` does about precisions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hero_export.commands.options import OUTPUT, AsJson, BundleFolder, DryRun, RequireSignature, show_plan
from hero_export.commands.terminal import console, stages

if TYPE_CHECKING:
    from hero_export.dry_run import Plan
    from hero_export.precision.report import PrecisionReport
    from hero_export.report import ExportReport
    from hero_sdk.hub import Stage
    from hero_sdk.signature import PublicKeys

PRECISION = "Precision"
"""Heading of the options."""


class PrecisionChoice(str, Enum):
    """What may be asked for; typer has no lists of literals."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    INT8_DYNAMIC = "int8-dynamic"
    INT8_WEIGHTS = "int8-weights"
    INT4_WEIGHTS = "int4-weights"


Precisions = Annotated[
    list[PrecisionChoice] | None,
    typer.Option(
        "--precision",
        help="Add the graphs in this precision as a variant; may be given again. fp32 is always there.",
        rich_help_panel=PRECISION,
    ),
]
CalibrationFolder = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="DIR",
        help="What `hero-export calibrate` wrote; int8 needs it, and the others are compared with fp32 on it.",
        rich_help_panel=PRECISION,
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="GRAPH|LAYER",
        help="Keep this in fp32: a layer, by a module's name such as layers.0.output or as GRAPH:LAYER, or a whole graph; may be "
        "given again.",
        rich_help_panel=PRECISION,
    ),
]


def register(app: typer.Typer, panel: str) -> None:
    """Add the command to an application, under a heading of its list."""
    app.command(rich_help_panel=panel)(calibrate)


def calibrate(
    bundle: BundleFolder,
    data: Annotated[
        Path,
        typer.Option(
            metavar="RUN.yaml",
            help="Configuration of a run of the bundle's task (`hero-train run`), whose training split is read.",
            rich_help_panel=PRECISION,
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The calibration set: a new folder, or one to replace.", rich_help_panel=OUTPUT)
    ],
    rows: Annotated[int, typer.Option(min=1, help="Inputs of each graph to keep.", rich_help_panel=PRECISION)] = 128,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures", help="Also frames of the videos, for the frame encoder's graph.", rich_help_panel=PRECISION
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the choice of videos and rows.", rich_help_panel=PRECISION)] = 0,
    threads: Annotated[
        int | None, typer.Option(help="Threads of the CPU; all cores by default.", rich_help_panel=PRECISION)
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a calibration set that is there.", rich_help_panel=OUTPUT)
    ] = False,
    require_signature: RequireSignature = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write real inputs of a bundle's graphs, from the videos and texts of the training split: what int8 is made from."""
    with stages() as stage:
        stage("Reading the bundle")
        from hero_export.precision.calibrating import calibrate_bundle, plan_calibration

        if dry_run:
            plan = plan_calibration(
                bundle,
                data,
                out,
                rows=rows,
                pictures=pictures,
                force=force,
                require_signature=require_signature or None,
            )
            show_plan(plan, as_json=as_json)
            return
        record = calibrate_bundle(
            bundle,
            data,
            out,
            rows=rows,
            pictures=pictures,
            seed=seed,
            threads=threads,
            force=force,
            require_signature=require_signature or None,
            on_stage=stage,
        )
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
        return
    counted = ", ".join(f"{part.rows} of {graph}" for graph, part in record.graphs.items())
    typer.echo(f"Wrote {out}: rows from {record.videos} videos of the training split: {counted}.")


def is_bundle(source: str) -> bool:
    """Whether the source of an export is a bundle, to which variants are added, and no checkpoint."""
    from hero_sdk.bundle_files import MANIFEST_FILE

    return (Path(source) / MANIFEST_FILE).exists()


def check_request(
    context: typer.Context,
    source: str,
    out: Path | None,
    precisions: Collection[PrecisionChoice],
    exporting: Collection[str],
    require_signature: PublicKeys | None,
) -> None:
    """Refuse options of ``hero-export onnx`` that do not go with its source.

    Args:
        context: of the command.
        source: a checkpoint or a bundle.
        out: where to write.
        precisions: that were asked for.
        exporting: names of the options that only the export of a checkpoint has.
        require_signature: of a bundle; a checkpoint has none.

    Raises:
        ExportError: says which option, and what to do.
    """
    from hero_export.errors import ExportError

    if not is_bundle(source):
        if out is None:
            raise ExportError(
                f"There is no --out, and {source} is no bundle whose folder could be amended; expected the folder to write to. "
                "Name it with --out."
            )
        if require_signature:
            raise ExportError(
                f"A signature is required and {source} is no bundle, which alone has one. Leave out --require-signature."
            )
        return
    # click's own enumeration, which typer brings along
    given = [name for name in exporting if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    if given:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ExportError(
            f"{source} is a bundle, whose graphs stay as they are; found {named}, which only the export of a checkpoint has. "
            "Name the checkpoint, or leave these options out."
        )
    if not variants_of(precisions):
        raise ExportError(
            f"{source} is a bundle, which has its graphs in fp32; expected --precision with another one. Choose fp16, bf16, "
            "int8, int8-dynamic, int8-weights or int4-weights, or name a checkpoint."
        )


def variants_of(precisions: Collection[PrecisionChoice] | None) -> list[Any]:
    """The precisions that become variants, each once."""
    return [choice.value for choice in dict.fromkeys(precisions or ()) if choice is not PrecisionChoice.FP32]


def check_calibration(precisions: Collection[PrecisionChoice], calibration: Path | None) -> None:
    """Refuse int8 without a calibration set before anything takes time.

    Raises:
        CalibrationError: says how to get one.
    """
    if variants_of(precisions):
        from hero_export.precision.making import require_calibration

        require_calibration(variants_of(precisions), calibration)


def amend_bundle(
    bundle: Path,
    out: Path | None,
    *,
    precisions: Collection[PrecisionChoice] | None,
    calibration: Path | None,
    keep: Collection[str] | None,
    require_signature: PublicKeys | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Add variants to a bundle and show them; ``out`` is where the amended one goes, None amends the bundle itself."""
    if dry_run:
        plan = _plan(
            bundle,
            out,
            precisions,
            calibration=calibration,
            keep=keep,
            require_signature=require_signature,
            force=force,
        )
        show_plan(plan, as_json=as_json)
        return
    from hero_sdk.bundle_files import SIGNATURE_FILE

    signed = (bundle / SIGNATURE_FILE).exists()
    with stages() as stage:
        stage("Reading the bundle")
        reports = make_variants(
            bundle,
            out,
            precisions=precisions,
            calibration=calibration,
            keep=keep,
            require_signature=require_signature,
            force=force,
            on_stage=stage,
        )
    if as_json:
        told = [dataclasses.asdict(one) for one in reports]
        content = {"bundle": str(out or bundle), "signature_dropped": signed, "variants": told}
        typer.echo(json.dumps(content, indent=2))
        return
    show_variants(out or bundle, reports)
    if signed:
        typer.echo("Its signature is gone, for nobody signed what it holds now. Sign it again with: hero-export sign")


def make_variants(
    bundle: Path,
    out: Path | None,
    *,
    precisions: Collection[PrecisionChoice] | None,
    calibration: Path | None,
    keep: Collection[str] | None,
    on_stage: Stage,
    require_signature: PublicKeys | None = None,
    force: bool = False,
) -> list[PrecisionReport]:
    """``hero_export.precision.making.add_precisions`` for what the command line names; nothing where that is fp32 alone."""
    wanted = variants_of(precisions)
    if not wanted:
        return []
    from hero_export.precision.making import add_precisions

    return add_precisions(
        bundle,
        wanted,
        out=out,
        force=force,
        calibration=calibration,
        keep=keep or (),
        require_signature=require_signature,
        on_stage=on_stage,
    )


def show_variants(bundle: Path, reports: list[PrecisionReport]) -> None:
    """Print what came out, for people."""
    for report in reports:
        console().print(report.to_rich())
        for sentence in report.sentences():
            typer.echo(sentence)
    if reports:
        names = ", ".join(report.variant for report in reports)
        typer.echo(
            f'Added to {bundle}: {names}. Run one with: hero_sdk.load("{bundle}", variant="{reports[0].variant}")'
        )


def show_json(report: ExportReport, added: list[PrecisionReport]) -> None:
    """Print an export and its variants as one object: the export's report, with ``variants`` where there are any."""
    content = json.loads(report.to_json())
    if added:
        content["variants"] = [dataclasses.asdict(one) for one in added]
    typer.echo(json.dumps(content, indent=2))


def with_variants(plan: Plan, precisions: Collection[PrecisionChoice] | None) -> Plan:
    """The plan of an export with the variants that it would get; which graphs each has shows when they are there."""
    from hero_export.dry_run import PlannedFile

    folders = tuple(PlannedFile(f"variants/onnxruntime-{precision}/") for precision in variants_of(precisions))
    return dataclasses.replace(plan, files=(*plan.files, *folders))


def _plan(
    bundle: Path,
    out: Path | None,
    precisions: Collection[PrecisionChoice] | None,
    *,
    calibration: Path | None,
    keep: Collection[str] | None,
    require_signature: PublicKeys | None,
    force: bool,
) -> Plan:
    """What ``amend_bundle`` would write, after every check that comes before the work."""
    from hero_export.bundles.destination import check_destination
    from hero_export.dry_run import Plan, PlannedFile
    from hero_export.precision.making import plan_precisions, planned_files
    from hero_sdk.manifest import read_bundle

    manifest = read_bundle(bundle, require_signature=require_signature)
    if out is not None and out.absolute() != bundle.absolute():
        check_destination(out, force=force)
    plan = plan_precisions(bundle, manifest, variants_of(precisions), calibration=calibration, keep=keep or ())
    files = tuple(PlannedFile(name, size) for name, size in planned_files(manifest, plan).items())
    return Plan(str(out or bundle), replaces=True, files=files)
