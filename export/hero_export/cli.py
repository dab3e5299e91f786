"""The command ``hero-export``."""

from __future__ import annotations

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hero_export.commands import bundles, openvino, tensorrt, verification
from hero_export.commands import precision as precisions
from hero_export.commands.options import (
    CHECKS,
    OUTPUT,
    PARTS,
    SERVING,
    SHAPES,
    AsJson,
    BundleFolder,
    DryRun,
    RequireSignature,
    show_plan,
)
from hero_export.commands.terminal import console, stages
from hero_export.exit_codes import ExitCode, exit_code_of
from hero_export.rows.geometry import DEFAULT_ANSWERS, DEFAULT_CAPTION_TOKENS, DEFAULT_MAX_BATCH, row_geometry
from hero_sdk.command import run_app, without_controls
from hero_sdk.errors import HeroError
from hero_sdk.geometry import RowGeometry

app = typer.Typer(
    help="From a checkpoint to a verified bundle, and from a bundle to what a server runs.",
    epilog="--debug shows the traceback of an error. docs/bundles.md lists the exit codes.",
    no_args_is_help=True,
    add_completion=False,
)

MAKE, SERVE = "Make a bundle", "Serve a bundle"
"""Headings of the list of commands."""

EXPORTING = (
    *("slots", "frames", "temporal_slots", "query_tokens", "max_batch", "answers", "caption_tokens"),
    *("operators", "tokenizer", "frame_encoder"),
)
"""Options that only the export of a checkpoint has."""


def main() -> None:
    """Entry point of the console script."""
    command = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    try:
        run_app(app, "hero-export", lambda error: exit_code_of(error, command))
    except Exception as error:  # the last line of defence: a mistake of this program, or an error shown with --debug
        sys.excepthook(type(error), error, error.__traceback__)
        code = exit_code_of(error, command) if isinstance(error, HeroError) else ExitCode.INTERNAL
        raise SystemExit(int(code)) from error


@app.command(rich_help_panel=MAKE)
def onnx(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="Checkpoint folder, or the hub id of one; or a bundle, to add precisions to.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The bundle: a new folder, or one to replace with --force. A bundle as the source is amended without it.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    slots: Annotated[int, typer.Option(help="Slots of a cross-modal row.", rich_help_panel=SHAPES)] = RowGeometry.slots,
    frames: Annotated[
        int, typer.Option(help="Frames of a cross-modal row.", rich_help_panel=SHAPES)
    ] = RowGeometry.frames,
    temporal_slots: Annotated[
        int | None,
        typer.Option(
            help="Slots of a temporal row; at least the model's clip limit, and room for a text where it reads one.",
            show_default=f"{RowGeometry.temporal_slots}, or what a video and a text take",
            rich_help_panel=SHAPES,
        ),
    ] = None,
    query_tokens: Annotated[
        int,
        typer.Option(
            help="Tokens of a query, or of a text about a video; longer ones are cut.", rich_help_panel=SHAPES
        ),
    ] = RowGeometry.query_tokens,
    max_batch: Annotated[
        int, typer.Option(help="Largest batch that is verified; callers cut larger ones.", rich_help_panel=SHAPES)
    ] = DEFAULT_MAX_BATCH,
    answers: Annotated[
        int, typer.Option(help="Most answers of a question (question answering).", rich_help_panel=SHAPES)
    ] = DEFAULT_ANSWERS,
    caption_tokens: Annotated[
        int, typer.Option(help="Most tokens of a caption, its end included (captioning).", rich_help_panel=SHAPES)
    ] = DEFAULT_CAPTION_TOKENS,
    operators: Annotated[
        Literal["standard", "onnxruntime", "auto"],
        typer.Option(
            help="Fused operators: the ONNX standard's, which every engine runs, onnxruntime's own, or what is faster here.",
            rich_help_panel=OUTPUT,
        ),
    ] = "standard",
    tokenizer: Annotated[
        Path | None, typer.Option(help="tokenizer.json, instead of the checkpoint's.", rich_help_panel=PARTS)
    ] = None,
    frame_encoder: Annotated[
        Path | None, typer.Option(help="Frame encoder's folder, instead of the checkpoint's.", rich_help_panel=PARTS)
    ] = None,
    precision: precisions.Precisions = None,
    calibration: precisions.CalibrationFolder = None,
    keep: precisions.Keep = None,
    require_signature: RequireSignature = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a bundle that is there.", rich_help_panel=OUTPUT)
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Export a checkpoint of any task to ONNX graphs with fused operators, compare them with the model, and write a bundle.

    With --precision the graphs come in other precisions as well. A bundle that is there gets them added.
    """
    precisions.check_request(context, source, out, precision or (), EXPORTING, require_signature)
    variants: dict[str, Any] = {"precisions": precision, "calibration": calibration, "keep": keep}
    if out is None or precisions.is_bundle(source):
        precisions.amend_bundle(
            Path(source),
            out,
            require_signature=require_signature or None,
            force=force,
            dry_run=dry_run,
            as_json=as_json,
            **variants,
        )
        return
    precisions.check_calibration(precision or (), calibration)
    geometry = partial(
        row_geometry, slots=slots, frames=frames, temporal_slots=temporal_slots, query_tokens=query_tokens
    )
    if dry_run:
        from hero_export.dry_run import plan_export

        plan = plan_export(
            source,
            out,
            geometry=geometry,
            max_batch=max_batch,
            answers=answers,
            caption_tokens=caption_tokens,
            tokenizer=tokenizer,
            frame_encoder=frame_encoder,
            force=force,
        )
        show_plan(precisions.with_variants(plan, precision), as_json=as_json)
        return
    with stages() as stage:
        stage("Loading torch")
        from hero_export.bundles.export import export_bundle

        report = export_bundle(
            source,
            out,
            geometry=geometry,
            max_batch=max_batch,
            answers=answers,
            caption_tokens=caption_tokens,
            operators=operators,
            tokenizer=tokenizer,
            frame_encoder=frame_encoder,
            force=force,
            on_stage=stage,
        )
        added = precisions.make_variants(out, None, on_stage=stage, **variants)
    if as_json:
        precisions.show_json(report, added)
        return
    console().print(report.to_rich())
    worst = report.worst
    typer.echo(
        f"Wrote {out}: {len(report.cases)} comparisons passed, the worst {worst.relative_error:.1e} of the scale "
        f"({worst.graph}, {worst.case})."
    )
    precisions.show_variants(out, added)


@app.command(rich_help_panel=MAKE)
def plan(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint folder, or the hub id of one.")],
    data: Annotated[
        Path, typer.Argument(help="A prepared set, a folder of features, or one of videos: what the model will read.")
    ],
    subtitles: Annotated[
        Path | None,
        typer.Option(
            help="Folder of .srt and .vtt files, or a JSONL file of the field's format; else a prepared set's.",
            rich_help_panel=PARTS,
        ),
    ] = None,
    annotations: Annotated[
        list[Path] | None,
        typer.Option(
            help="JSONL file of the task's queries, questions, statements or captions; may be given again. "
            "Else a prepared set's.",
            rich_help_panel=PARTS,
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="tokenizer.json, instead of the checkpoint's.", rich_help_panel=PARTS)
    ] = None,
    together: Annotated[
        int,
        typer.Option(help="Videos, questions or statements that are packed together.", rich_help_panel=SHAPES),
    ] = 1,
    sample: Annotated[
        int, typer.Option(help="Videos, questions or statements that are looked at.", rich_help_panel=SHAPES)
    ] = 1000,
    as_json: AsJson = False,
) -> None:
    """Propose row shapes for a corpus: what each would leave empty, and the options of `hero-export onnx` to copy."""
    with stages() as stage:
        stage("Measuring the corpus")
        from hero_export.bundles.sources import find_model
        from hero_export.rows.lengths import read_corpus_lengths
        from hero_export.rows.plan import plan_rows

        model = find_model(checkpoint, tokenizer=tokenizer)
        lengths = read_corpus_lengths(data, model, subtitles=subtitles, annotations=annotations or ())
        stage("Packing it into rows")
        found = plan_rows(lengths, model.config, together=together, most=sample)
    if as_json:
        typer.echo(found.to_json())
        return
    console().print(found.to_rich())
    typer.echo(found.summary())


@app.command("frame-encoder", rich_help_panel=MAKE)
def frame_encoder_command(
    out: Annotated[Path, typer.Option(help="Folder to write the frame encoder to.", rich_help_panel=OUTPUT)],
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write the packaged frame encoder: one feature per video frame, for training and for bundles."""
    if dry_run:
        from hero_export.dry_run import plan_frame_encoder

        show_plan(plan_frame_encoder(out), as_json=as_json)
        return
    with stages() as stage:
        stage("Exporting the frame encoder")
        from hero_export.frame_encoder import export_frame_encoder

        spec = export_frame_encoder(out)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(spec), indent=2))
        return
    typer.echo(
        f"Wrote {out}: {spec.name}, images of {spec.image_size} pixels, features of width {spec.feature_dim}, "
        f"fingerprint {spec.fingerprint[:12]}."
    )


@app.command(rich_help_panel=SERVE)
def triton(
    bundle: BundleFolder,
    out: Annotated[
        Path,
        typer.Option(
            help="The model repository: a new folder, or an earlier repository to replace.", rich_help_panel=OUTPUT
        ),
    ],
    backend: Annotated[
        Literal["python", "onnxruntime"],
        typer.Option(help="What runs the graphs in Triton; onnxruntime needs NVIDIA's image.", rich_help_panel=SERVING),
    ] = "python",
    device: Annotated[
        Literal["cpu", "gpu"], typer.Option(help="Where the graphs run.", rich_help_panel=SERVING)
    ] = "cpu",
    queue_delay: Annotated[
        float,
        typer.Option(help="Seconds that a request may wait for others to share its batch.", rich_help_panel=SERVING),
    ] = 0.001,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads of one run on the CPU; all cores by default.", rich_help_panel=SERVING),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            help="Serve this variant for onnxruntime, such as onnxruntime-int8, and not the bundle's own graphs.",
            rich_help_panel=SERVING,
        ),
    ] = None,
    require_signature: RequireSignature = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write the model repository that a Triton Inference Server loads."""
    if dry_run:
        from hero_export.dry_run import plan_repository

        plan = plan_repository(
            bundle,
            out,
            variant=variant,
            device=device,
            require_signature=require_signature or None,
            python=backend == "python",
        )
        show_plan(plan, as_json=as_json)
        return
    with stages() as stage:
        stage(f"Writing {out}")
        from hero_export.triton import write_repository

        path = write_repository(
            bundle,
            out,
            backend=backend,
            device=device,
            queue_delay=queue_delay,
            threads=threads,
            variant=variant,
            require_signature=require_signature or None,
        )
    if as_json:
        about = {"repository": str(path), "backend": backend, "device": device, "variant": variant}
        typer.echo(json.dumps(about, indent=2))
        return
    typer.echo(f"Wrote {path}. Start it with: hero serve {path}")


@app.command(rich_help_panel=CHECKS)
def inspect(
    bundle: BundleFolder,
    require_signature: RequireSignature = None,
    as_json: AsJson = False,
) -> None:
    """Check a bundle's files and show its graphs: operators, beside those that the architecture implies, sizes, precision."""
    from hero_export.bundles.inspection import inspect_bundle

    inspection = inspect_bundle(bundle, require_signature=require_signature or None)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(inspection), indent=2))
        inspection.require_fused()
        return
    console().print(inspection.to_rich())
    manifest = inspection.manifest
    geometry = ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(manifest.geometry).items())
    facts = [
        f"Task {manifest.task}, fingerprint {manifest.fingerprint}.",
        f"Rows: {geometry}. Frame encoder: {manifest.frame_encoder.name}.",
        f"All {len(manifest.files)} files are the ones that were exported.",
    ]
    if require_signature:
        facts.append("A required key signed the bundle.")
    typer.echo(without_controls("\n".join(facts), keep="\n"))
    inspection.require_fused()


bundles.register(app)
precisions.register(app, MAKE)
openvino.register(app)
tensorrt.register(app)
verification.register(app, MAKE)

if __name__ == "__main__":
    main()
