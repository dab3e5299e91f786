"""The command ``hero-export``."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hero_export.geometry import DEFAULT_ANSWERS, DEFAULT_CAPTION_TOKENS, DEFAULT_MAX_BATCH, row_geometry
from hero_sdk.command import run_app
from hero_sdk.rows import RowGeometry

if TYPE_CHECKING:
    from rich.console import Console

    from hero_export.bundle import Stage

app = typer.Typer(
    help="From a checkpoint to a verified bundle, and from a bundle to what a server runs.",
    epilog="--debug shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of tables.")]
TABLE_WIDTH = 160
"""Columns of a table where standard output is no terminal, such as a log file."""


def main() -> None:
    """Entry point of the console script."""
    run_app(app, "hero-export")


@app.command()
def onnx(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint folder, or the hub id of one.")],
    out: Annotated[Path, typer.Option(help="The bundle: a new folder, or one to replace with --force.")],
    slots: Annotated[int, typer.Option(help="Slots of a cross-modal row.")] = RowGeometry.slots,
    frames: Annotated[int, typer.Option(help="Frames of a cross-modal row.")] = RowGeometry.frames,
    temporal_slots: Annotated[
        int | None,
        typer.Option(
            help="Slots of a temporal row; at least the model's clip limit, and room for a text where it reads one.",
            show_default=f"{RowGeometry.temporal_slots}, or what a video and a text take",
        ),
    ] = None,
    query_tokens: Annotated[
        int, typer.Option(help="Tokens of a query, or of a text about a video; longer ones are cut.")
    ] = RowGeometry.query_tokens,
    max_batch: Annotated[
        int, typer.Option(help="Largest batch that is verified; callers cut larger ones.")
    ] = DEFAULT_MAX_BATCH,
    answers: Annotated[int, typer.Option(help="Most answers of a question (question answering).")] = DEFAULT_ANSWERS,
    caption_tokens: Annotated[
        int, typer.Option(help="Most tokens of a caption, its end included (captioning).")
    ] = DEFAULT_CAPTION_TOKENS,
    operators: Annotated[
        Literal["standard", "onnxruntime", "auto"],
        typer.Option(
            help="Fused operators: the ONNX standard's, which every engine runs, onnxruntime's own, or what is faster here."
        ),
    ] = "standard",
    tokenizer: Annotated[Path | None, typer.Option(help="tokenizer.json, instead of the checkpoint's.")] = None,
    frame_encoder: Annotated[
        Path | None, typer.Option(help="Frame encoder's folder, instead of the checkpoint's.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export a checkpoint of any task to ONNX graphs with fused operators, compare them with the model, and write a bundle."""
    with _stages() as stage:
        stage("Loading torch")
        from hero_export.bundle import export_bundle

        report = export_bundle(
            checkpoint,
            out,
            geometry=partial(
                row_geometry, slots=slots, frames=frames, temporal_slots=temporal_slots, query_tokens=query_tokens
            ),
            max_batch=max_batch,
            answers=answers,
            caption_tokens=caption_tokens,
            operators=operators,
            tokenizer=tokenizer,
            frame_encoder=frame_encoder,
            force=force,
            on_stage=stage,
        )
    if as_json:
        typer.echo(report.to_json(), nl=False)
        return
    _console().print(report.to_rich())
    worst = report.worst
    typer.echo(
        f"Wrote {out}: {len(report.cases)} comparisons passed, the worst {worst.relative_error:.1e} of the scale "
        f"({worst.graph}, {worst.case})."
    )


@app.command("frame-encoder")
def frame_encoder_command(out: Annotated[Path, typer.Option(help="Folder to write the frame encoder to.")]) -> None:
    """Write the packaged frame encoder: one feature per video frame, for training and for bundles."""
    with _stages() as stage:
        stage("Exporting the frame encoder")
        from hero_export.frame_encoder import export_frame_encoder

        spec = export_frame_encoder(out)
    typer.echo(
        f"Wrote {out}: {spec.name}, images of {spec.image_size} pixels, features of width {spec.feature_dim}, "
        f"fingerprint {spec.fingerprint[:12]}."
    )


@app.command()
def triton(
    bundle: Annotated[Path, typer.Argument(help="What `hero-export onnx` wrote.")],
    out: Annotated[Path, typer.Option(help="The model repository: a new folder, or an earlier repository to replace.")],
    backend: Annotated[
        Literal["python", "onnxruntime"],
        typer.Option(help="What runs the graphs in Triton; onnxruntime needs NVIDIA's image."),
    ] = "python",
    device: Annotated[Literal["cpu", "gpu"], typer.Option(help="Where the graphs run.")] = "cpu",
) -> None:
    """Write the model repository that a Triton Inference Server loads."""
    from hero_export.triton import write_repository

    path = write_repository(bundle, out, backend=backend, device=device)
    typer.echo(f"Wrote {path}. Start it with: hero serve {path}")


@app.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(help="What `hero-export onnx` wrote.")],
    as_json: AsJson = False,
) -> None:
    """Check a bundle's files and show its graphs: operators, beside those that the architecture implies, sizes, precision."""
    from hero_export.inspection import inspect_bundle

    inspection = inspect_bundle(bundle)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(inspection), indent=2))
        inspection.require_fused()
        return
    _console().print(inspection.to_rich())
    manifest = inspection.manifest
    geometry = ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(manifest.geometry).items())
    typer.echo(f"Task {manifest.task}, fingerprint {manifest.fingerprint}.")
    typer.echo(f"Rows: {geometry}. Frame encoder: {manifest.frame_encoder.name}.")
    typer.echo(f"All {len(manifest.files)} files are the ones that were exported.")
    inspection.require_fused()


def _console() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=TABLE_WIDTH)


@contextmanager
def _stages() -> Iterator[Stage]:
    """Show on standard error which stage runs, and how long each took."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    running: list[tuple[str, float]] = []

    with console.status("Starting") as status:

        def finish() -> None:
            if running:
                stage, began = running.pop()
                console.print(f"{escape(stage)} [dim]{time.perf_counter() - began:.1f} s[/dim]", highlight=False)

        def begin(stage: str) -> None:
            finish()
            running.append((stage, time.perf_counter()))
            status.update(escape(stage))

        yield begin
        finish()


if __name__ == "__main__":
    main()
