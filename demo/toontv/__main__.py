"""The command line: `python -m demo.toontv OUT --train 400 --val 20 --test 60 --seed 7`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from demo.toontv.assets import ToonTvError
from demo.toontv.corpus import CorpusPlan, build_corpus


def main(
    out: Annotated[Path, typer.Argument(help="Folder to write the corpus to.")],
    train: Annotated[int, typer.Option(help="Episodes for training.")] = 400,
    val: Annotated[int, typer.Option(help="Episodes for validation.")] = 20,
    test: Annotated[int, typer.Option(help="Episodes for testing.")] = 60,
    seed: Annotated[int, typer.Option(help="Equal seeds make equal corpora.")] = 7,
    processes: Annotated[int, typer.Option(min=1, help="Episodes rendered at the same time.")] = 2,
) -> None:
    """Make a cartoon television corpus: videos, subtitles and annotations."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        plan = CorpusPlan(train=train, val=val, test=test, seed=seed)
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("episodes", total=None)
            summary = build_corpus(
                out, plan, processes, lambda done, total: bar.update(task, completed=done, total=total)
            )
    except ToonTvError as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(1) from error
    for split, counts in summary["counts"].items():
        console.print(f"{split}: " + ", ".join(f"{number} {name}" for name, number in counts.items()))


if __name__ == "__main__":
    typer.run(main)
