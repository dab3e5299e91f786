"""The command ``hero-train``."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hero_sdk.command import run_app, without_controls
from hero_sdk.terminal import make_table, print_tables
from hero_train.prepare.command import prepare

if TYPE_CHECKING:
    from hero_train.evaluation import Evaluation
    from hero_train.run_config import FineTuningConfig

Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override an entry: section.entry=value.")]
RunFile = Annotated[Path, typer.Argument(help="YAML file of a run, such as the config.yaml of its output folder.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Checkpoint folder; by default the run's own.")]
SplitName = Annotated[str, typer.Option(help="train, validation or test.")]


def _in_a_folder(out: Path | None) -> Path | None:
    """Refuse a file to write whose folder is not there, before anything that takes its time."""
    if out is not None and not out.absolute().parent.is_dir():
        raise typer.BadParameter(f"There is no folder {out.parent}; make it first.")
    return out


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
    override: Overrides = None,
    resume: Annotated[bool, typer.Option(help="Go on from the newest state of the output folder.")] = False,
) -> None:
    """Train by a configuration file and evaluate on its splits."""
    from accelerate import PartialState

    from hero_train.run_config import load_config

    settings = load_config(config, override or [])
    result = _recipe(settings.task).run(settings, resume=resume)
    if not PartialState().is_main_process:
        return
    for split, evaluation in result.evaluations.items():
        show(split, evaluation)
    typer.echo(f"The checkpoint is {result.checkpoint}.")


app.command()(prepare)


@app.command("eval")
def evaluate(
    config: RunFile,
    checkpoint: Checkpoint = None,
    split: SplitName = "test",
    override: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(callback=_in_a_folder, help="Write the metrics to this JSON file.")
    ] = None,
) -> None:
    """Judge a checkpoint on a split of a run's data."""
    settings = _fine_tuning(config, override, split)
    evaluation = _recipe(settings.task).evaluate(settings, checkpoint or settings.output / "checkpoint", split)
    show(split, evaluation)
    if out is not None:
        out.write_text(json.dumps({split: evaluation.as_dict()}, indent=2) + "\n", encoding="utf-8")


@app.command()
def predict(
    config: RunFile,
    out: Annotated[
        Path,
        typer.Option(
            callback=_in_a_folder, help="The file to write, in the form that TVR's and VALUE's evaluations take."
        ),
    ],
    checkpoint: Checkpoint = None,
    split: SplitName = "test",
    override: Overrides = None,
) -> None:
    """Write what a checkpoint says about a split of a run's data: moments, answers, judgements or captions."""
    settings = _fine_tuning(config, override, split)
    _recipe(settings.task).predict(settings, checkpoint or settings.output / "checkpoint", split, out)
    typer.echo(f"Wrote {out}.")


def _fine_tuning(config: Path, override: list[str] | None, split: str) -> FineTuningConfig:
    """The configuration of a run that has annotations of a split."""
    from hero_train.errors import ConfigError
    from hero_train.run_config import FineTuningConfig, load_config

    settings = load_config(config, override or [])
    if not isinstance(settings, FineTuningConfig):
        raise ConfigError(f"{config} is a run of {settings.task}, which has no annotations to evaluate on.")
    there = settings.data.annotations()
    if split not in there:
        raise ConfigError(f"{config} has no data.{split}; there is {', '.join(there)}.")
    return settings


def _recipe(task: str) -> Any:
    """The module of a task's recipe."""
    return importlib.import_module(f"hero_train.recipes.{task}")


@app.command()
def tokenizer(
    texts: Annotated[list[Path], typer.Argument(help="Annotations (JSONL), or text files, one sentence per line.")],
    out: Annotated[Path, typer.Option(callback=_in_a_folder, help="The tokenizer.json to write.")],
    vocabulary: Annotated[int, typer.Option(min=300, help="Number of token ids.")] = 2000,
) -> None:
    """Train a byte-level BPE tokenizer of RoBERTa's kind on texts."""
    from hero_train.data.texts import read_texts
    from hero_train.tokenizer import train_tokenizer_json

    read = [text for path in texts for text in read_texts(path)]
    out.write_text(train_tokenizer_json(read, vocabulary), encoding="utf-8")
    typer.echo(f"Wrote {out}.")


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A checkpoint of the authors (.pt), or a checkpoint folder or hub id.")],
    out: Annotated[Path, typer.Argument(help="Where to write: a folder for a .pt, a .pt for a folder.")],
    task: Annotated[
        str | None,
        typer.Option(help="Of the checkpoint, such as pre-training, whose files look like those of retrieval."),
    ] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads of a .pt, if their width is not 64.")] = None,
) -> None:
    """Turn a checkpoint of the authors into one of ours, or ours into theirs, and say what became of each weight."""
    from hero_train.convert import convert as run_conversion

    # A file may name its tensors as it likes.
    typer.echo(without_controls(run_conversion(source, out, task, num_heads=heads).describe(), keep="\n"))


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
