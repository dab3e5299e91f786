"""The command ``hero-train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hero_sdk.command import run_app
from hero_sdk.terminal import make_table, print_tables

if TYPE_CHECKING:
    from hero_train.evaluation import Evaluation

app = typer.Typer(help="Train a HERO and evaluate it.", no_args_is_help=True, add_completion=False)


def main() -> None:
    """Entry point of the console script."""
    run_app(app, "hero-train")


@app.callback()
def _commands() -> None:
    """Train a HERO and evaluate it."""


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="YAML file of the run; train/configs has examples.")],
    override: Annotated[list[str] | None, typer.Option("--set", help="Override an entry: section.entry=value.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the newest checkpoint of the output folder.")] = False,
) -> None:
    """Train by a configuration file and evaluate on its splits."""
    from accelerate import PartialState

    from hero_train.recipes import vcmr
    from hero_train.run_config import load_run_config

    result = vcmr.run(load_run_config(config, override), resume=resume)
    if not PartialState().is_main_process:
        return
    for split, evaluation in result.evaluations.items():
        show(split, evaluation)
    typer.echo(f"The checkpoint is {result.checkpoint}.")


@app.command()
def pretrain(
    config: Annotated[Path, typer.Argument(help="YAML file of the run.")],
    override: Annotated[list[str] | None, typer.Option("--set", help="Override an entry: section.entry=value.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the newest checkpoint of the output folder.")] = False,
) -> None:
    """Pre-train on videos with subtitles, without annotations."""
    from accelerate import PartialState

    from hero_train.recipes import pretrain as recipe
    from hero_train.run_config import PretrainingConfig, load_config

    checkpoint = recipe.run(load_config(config, override, PretrainingConfig), resume=resume)
    if PartialState().is_main_process:
        typer.echo(f"The checkpoint is {checkpoint}.")


@app.command()
def tokenizer(
    texts: Annotated[list[Path], typer.Argument(help="Text files, one sentence per line.")],
    out: Annotated[Path, typer.Option(help="The tokenizer.json to write.")],
    vocabulary: Annotated[int, typer.Option(min=300, help="Number of token ids.")] = 2000,
) -> None:
    """Train a byte-level BPE tokenizer of RoBERTa's kind on texts."""
    from hero_train.errors import DataError
    from hero_train.tokenizer import train_tokenizer_json

    lines: list[str] = []
    for path in texts:
        if not path.is_file():
            raise DataError(f"There is no file {path}.")
        lines += path.read_text(encoding="utf-8").splitlines()
    out.write_text(train_tokenizer_json(lines, vocabulary), encoding="utf-8")
    typer.echo(f"Wrote {out}.")


@app.command("import")
def import_official(
    source: Annotated[Path, typer.Argument(help="A checkpoint of the authors (.pt).")],
    out: Annotated[Path, typer.Argument(help="Folder to write the checkpoint to.")],
    heads: Annotated[int | None, typer.Option(help="Attention heads, if their width is not 64.")] = None,
) -> None:
    """Turn a checkpoint of the authors into one of ours and say what was left out."""
    from hero_train.official import read_official
    from hero_train.official_models import task_model_from_official

    model, report = task_model_from_official(read_official(source), num_heads=heads)
    model.save_pretrained(out)
    typer.echo(json.dumps({"loaded": len(report.loaded), "left_out": report.left_out, "fresh": report.fresh}, indent=2))


def show(split: str, evaluation: Evaluation) -> None:
    """Print the headline metrics of a split, by group, and the baselines below them."""
    headlines = evaluation.headlines()
    table = make_table("", *headlines.values())
    counts = ", ".join(f"{count} {what}" for what, count in evaluation.counts.items())
    table.title = f"{split}: {counts}; percent"
    for name, values in [*evaluation.metrics.items(), *evaluation.baselines.items()]:
        table.add_row(name, *(f"{100 * values[metric]:.1f}" if metric in values else "" for metric in headlines))
    print_tables(table)
    for metric, reason in evaluation.absent.items():
        typer.echo(f"{metric} is absent: {reason}.")


if __name__ == "__main__":
    main()
