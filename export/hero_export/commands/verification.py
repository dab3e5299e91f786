"""The commands of ``hero-export`` that compare a bundle with the model: verify, replay of what verify kept, and mix."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from hero_export.commands.options import (
    CHECKS,
    OUTPUT,
    PARTS,
    AsJson,
    BundleFolder,
    DryRun,
    RequireSignature,
    show_plan,
)
from hero_export.commands.terminal import console, stages

JUDGING = "Judging"

Checkpoint = Annotated[
    str, typer.Option(help="The checkpoint that the bundle was made from: a folder or hub id.", rich_help_panel=PARTS)
]


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands to an application, those that make something under a heading of its list."""
    app.command(rich_help_panel=CHECKS)(verify)
    app.command(rich_help_panel=CHECKS)(replay)
    app.command(rich_help_panel=panel)(mix)


def verify(
    bundle: BundleFolder,
    checkpoint: Checkpoint,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN.yaml",
            help="Configuration of the run that trained the model: its data are what the task is judged on. Without it only "
            "numbers are compared.",
            rich_help_panel=PARTS,
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="Verify this variant; may be given again. All of them by default.", rich_help_panel=JUDGING),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Points that a variant below fp32 may lose of each metric.",
            show_default="0.5 for fp16 and bf16, 1 for int8",
            rich_help_panel=JUDGING,
        ),
    ] = None,
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        typer.Option(help="Of the data.", show_default="test, else validation", rich_help_panel=JUDGING),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, help="Judge on so many annotations, evenly over the split.", rich_help_panel=JUDGING),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads of each engine and of PyTorch.", rich_help_panel=JUDGING)
    ] = 1,
    latency: Annotated[bool, typer.Option(help="Time the variants.", rich_help_panel=JUDGING)] = True,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.json, report.html and the worst inputs; an earlier report is replaced.",
            show_default="BUNDLE-verification, beside the bundle",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    require_signature: RequireSignature = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Compare a bundle and its variants with the model: every graph's numbers, and then the task. Exit code 6: they differ; 9: a
    variant loses more of its task than its budget."""
    with stages() as stage:
        stage("Loading torch")
        from hero_export.verification.destination import check_place, default_place, staged_report, write_report
        from hero_export.verification.verifying import Options, require_verified, verify_bundle
        from hero_train.run_config import load_config

        place = report or default_place(bundle)
        check_place(place)
        config = None if data is None else load_config(data)
        options = Options(variant, budget, split, sample, threads, latency)
        if dry_run:
            stage("Checking the bundle and the checkpoint")
            from hero_export.verification.dry_run import plan_verification

            plan = plan_verification(bundle, checkpoint, place, options, require_signature=require_signature or None)
        else:
            with staged_report(place) as folder:
                found = verify_bundle(
                    bundle,
                    checkpoint,
                    folder,
                    config,
                    options,
                    require_signature=require_signature or None,
                    on_stage=stage,
                )
                write_report(folder, found, bundle, options.words())
    if dry_run:
        show_plan(plan, as_json=as_json)
        return
    if as_json:
        typer.echo(found.to_json(), nl=False)
    else:
        from hero_export.verification.pages import to_rich

        console().print(to_rich(found))
    require_verified(found, place)
    if not as_json:
        ran = [one.name for one in found.variants if one.not_run is None]
        typer.echo(f"Verified {bundle}: {', '.join(ran)}. The report is in {place}.")


def replay(
    file: Annotated[Path, typer.Argument(help="An input that `hero-export verify` kept: inputs/*.safetensors.")],
    bundle: Annotated[Path, typer.Option(help="The bundle that was verified.", rich_help_panel=PARTS)],
    checkpoint: Checkpoint,
    require_signature: RequireSignature = None,
    as_json: AsJson = False,
) -> None:
    """Run one input again that a graph was furthest from the model on, and show the same number."""
    with stages() as stage:
        stage("Running the input again")
        from hero_export.verification.replay import replay as run_again

        found = run_again(file, bundle, checkpoint, require_signature=require_signature or None)
    if as_json:
        typer.echo(found.to_json())
        return
    for result in found.results:
        typer.echo(
            f"{found.variant}: {found.graph} -> {result.output}, {found.case} (batch {result.batch}): max error "
            f"{result.max_error:.6e}, required tolerance {result.required_tolerance:.6e}, cosine {result.cosine:.9f}, "
            f"{'ok' if result.passed else 'FAILED'}"
        )
    recorded = found.recorded.required_tolerance
    typer.echo(
        f"The report says {recorded:.6e} of {found.recorded.output}: "
        + ("the same number." if found.same else "another machine or other versions gave it.")
    )


def mix(
    bundle: BundleFolder,
    checkpoint: Checkpoint,
    data: Annotated[
        Path,
        typer.Option(
            metavar="RUN.yaml", help="Configuration of the run that trained the model.", rich_help_panel=PARTS
        ),
    ],
    calibration: Annotated[
        Path, typer.Option(help="What `hero-export calibrate` wrote for this bundle.", rich_help_panel=PARTS)
    ],
    engine: Annotated[
        Literal["onnxruntime", "openvino"], typer.Option(help="Of the variant.", rich_help_panel=JUDGING)
    ] = "onnxruntime",
    precision: Annotated[
        Literal["int8", "bf16", "fp16"], typer.Option(help="Of the variant.", rich_help_panel=JUDGING)
    ] = "int8",
    budget: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Points that each metric may lose, to 95 % certainty. Default: the precision's, as `verify` has it.",
            rich_help_panel=JUDGING,
        ),
    ] = None,
    split: Annotated[
        Literal["train", "validation", "test"],
        typer.Option(help="That candidates are judged on; keep test for `verify`.", rich_help_panel=JUDGING),
    ] = "validation",
    sample: Annotated[
        int | None,
        typer.Option(min=1, help="Judge on so many annotations, evenly over the split.", rich_help_panel=JUDGING),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Candidates at most.", rich_help_panel=JUDGING)] = 24,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads of the engine and of PyTorch.", rich_help_panel=JUDGING)
    ] = 1,
    require_signature: RequireSignature = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make a variant with those layers in fp32 without which its task loses more than a budget."""
    with stages() as stage:
        stage("Loading torch")
        from hero_export.verification.mixing import mix_precision
        from hero_train.run_config import load_config

        if dry_run:
            from hero_export.verification.dry_run import plan_mix

            load_config(data)
            plan = plan_mix(
                bundle, checkpoint, calibration, engine, precision, require_signature=require_signature or None
            )
            show_plan(plan, as_json=as_json)
            return
        found = mix_precision(
            bundle,
            checkpoint,
            load_config(data),
            calibration,
            engine=engine,
            precision=precision,
            budget=budget,
            split=split,
            sample=sample,
            trials=trials,
            threads=threads,
            require_signature=require_signature or None,
            on_stage=stage,
        )
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=2))
        return
    kept = ", ".join(found.kept) or "none"
    typer.echo(
        f"Made {engine}-{precision} of {bundle}: it loses at most {max(0.0, -found.metric):.2f} points (95 %) of the {split} "
        f"split; the budget is {found.budget:g}. In fp32: {kept} ({len(found.trail)} candidates were judged)."
    )
