"""The command ``hero-bench``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hero_sdk.command import run_app, without_controls

if TYPE_CHECKING:
    from rich.table import Table

    from hero_bench.latency import Stage
    from hero_bench.results import LatencyReport, ThroughputReport
    from hero_bench.training_results import TrainingReport

app = typer.Typer(
    help="Measure a bundle: how long one user waits, and how many requests a server answers. Measure training: steps per second.",
    epilog="--debug shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
)

Bundle = Annotated[Path, typer.Argument(help="What `hero-export onnx` wrote.")]
Url = Annotated[str | None, typer.Option(help="Measure this Triton server, which runs the bundle: grpc://HOST:8001.")]
Serve = Annotated[bool, typer.Option("--serve", help="Start a Triton server on 127.0.0.1 and measure that.")]
Threads = Annotated[int | None, typer.Option(help="Threads of every engine started here; default: one per core.")]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the results to this file.")]


def main() -> None:
    """Entry point of the console script."""
    run_app(app, "hero-bench")


@app.command()
def latency(
    bundle: Bundle,
    url: Url = None,
    serve: Serve = False,
    checkpoint: Annotated[
        str | None, typer.Option(help="The checkpoint that was exported: PyTorch, padded and packed, as the baseline.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="How often each case goes through its variants.")] = 10,
    max_seconds: Annotated[float, typer.Option(help="For the measuring of all cases; cuts rounds, then cases.")] = 300,
    threads: Threads = None,
    corpus: Annotated[str, typer.Option(help="Videos of the corpora to search, such as 100,1000.")] = "1000",
    only: Annotated[str, typer.Option(help="Which cases.")] = "query,frames,search,video",
    json_file: Json = None,
) -> None:
    """How long one user waits for a query, a video, a frame, a search: in process, through Triton, in PyTorch."""
    from hero_bench.latency import LatencySettings, measure_latency
    from hero_bench.results import check_results_file

    if json_file is not None:
        check_results_file(json_file)
    settings = LatencySettings(
        url=url,
        serve=serve,
        checkpoint=checkpoint,
        rounds=rounds,
        max_seconds=max_seconds,
        threads=threads,
        corpus_sizes=_numbers(corpus, "--corpus"),
        groups=tuple(name.strip() for name in only.split(",")),
    )
    with _stages() as stage:
        report = measure_latency(bundle, settings, stage)
    if json_file is not None:
        json_file.write_text(report.to_json(), encoding="utf-8")
    _show(report)
    if report.skipped:
        typer.echo(f"Not measured, for --max-seconds was over: {', '.join(report.skipped)}.", err=True)


@app.command()
def throughput(
    bundle: Bundle,
    url: Url = None,
    serve: Serve = False,
    concurrency: Annotated[str, typer.Option(help="Numbers of clients, one after another.")] = "1,2,4,8",
    seconds: Annotated[float, typer.Option(help="For each workload and number of clients.")] = 5,
    threads: Threads = None,
    json_file: Json = None,
) -> None:
    """How many requests a Triton server answers; each client sends its next one when it has its answer.

    The exit code is 1 when a request failed.
    """
    from hero_bench.results import check_results_file
    from hero_bench.throughput import ThroughputSettings, measure_throughput

    if json_file is not None:
        check_results_file(json_file)
    clients = _numbers(concurrency, "--concurrency")
    settings = ThroughputSettings(url=url, serve=serve, clients=clients, seconds=seconds, threads=threads)
    with _stages() as stage:
        report = measure_throughput(bundle, settings, stage)
    if json_file is not None:
        json_file.write_text(report.to_json(), encoding="utf-8")
    _show(report)
    for load in report.loads:
        for kind, message in load.messages.items():
            times = load.errors[kind]
            text = f"{load.workload}, {load.clients} clients: {times} x {kind}, first: {message}"
            typer.echo(without_controls(text), err=True)
    if report.failed:
        raise typer.Exit(1)


@app.command()
def training(
    size: Annotated[
        str, typer.Option(help="Of the model: reduced (a third as wide as the paper's), or paper.")
    ] = "reduced",
    videos: Annotated[int, typer.Option(help="Per batch.")] = 32,
    batches: Annotated[int, typer.Option(help="Different ones; the rounds go through them in turn.")] = 4,
    slots: Annotated[str, typer.Option(help="Slots of the packed rows, each a variant, such as 64,128.")] = "128",
    precision: Annotated[str, typer.Option(help="Number formats.")] = "fp32,bf16",
    rounds: Annotated[int, typer.Option(help="How often each format goes through its layouts.")] = 8,
    max_seconds: Annotated[float, typer.Option(help="For the measuring of everything; cuts rounds.")] = 600,
    threads: Annotated[int | None, typer.Option(help="Of PyTorch; default: one per core.")] = None,
    processor_time: Annotated[
        bool, typer.Option("--processor-time", help="With --threads 1: for a machine that others use, too.")
    ] = False,
    lengths: Annotated[
        Path | None, typer.Option(help="Measured lengths of videos (JSONL) instead of drawn ones.")
    ] = None,
    lengths_of: Annotated[
        Path | None,
        typer.Option(help="Measure the lengths of these subtitles: a folder, or a file of the field's format."),
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="For --lengths-of: a tokenizer.json, folder or hub id.")] = None,
    json_file: Json = None,
) -> None:
    """How many videos per second an optimiser step learns from: packed rows against the authors' padded layout."""
    from hero_bench.results import check_results_file
    from hero_bench.training import TrainingSettings, measure_training

    if json_file is not None:
        check_results_file(json_file)
    settings = TrainingSettings(
        size=size,
        videos=videos,
        batches=batches,
        slots=_numbers(slots, "--slots"),
        precisions=tuple(name.strip() for name in precision.split(",")),
        rounds=rounds,
        max_seconds=max_seconds,
        threads=threads,
        processor_time=processor_time,
        lengths=lengths,
        lengths_of=lengths_of,
        tokenizer=tokenizer,
    )
    with _stages() as stage:
        report = measure_training(settings, stage)
    if json_file is not None:
        json_file.write_text(report.to_json(), encoding="utf-8")
    _show(report, report.to_layout_table())


def _show(report: LatencyReport | ThroughputReport | TrainingReport, *more: Table) -> None:
    from hero_sdk.terminal import print_tables

    print_tables(report.run.to_table(), *more, report.to_table())
    if (machine := report.run.machine).busy:
        typer.echo(
            f"The machine was busy before the run (load {machine.load:g}, {machine.cores} cores); measure again when it is idle.",
            err=True,
        )


def _numbers(text: str, option: str) -> tuple[int, ...]:
    from hero_sdk.errors import InputError

    try:
        numbers = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise InputError(f"{option} is {text!r}; expected whole numbers from 1 on with commas, such as 1,2,4.")
    return numbers


@contextmanager
def _stages() -> Iterator[Stage]:
    """Show on standard error what runs."""
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("Starting") as status:
        yield lambda stage: status.update(escape(stage))


if __name__ == "__main__":
    main()
