"""The main job from end to end: train, export, index, search in process and through Triton, judge, report.

python -m demo                 # what `make demo` runs
python -m demo --size small    # a minute or two: every step, too little training to find anything
"""

from __future__ import annotations

import math
import random
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import hero_sdk
from demo import mishaps
from demo.judge import Answer, Difference, ask, compare, metrics
from demo.report import make_example, write_report
from demo.shell import DemoError, Shell
from demo.toontv.assets import ToonTvError
from hero_sdk.corpus.table import VideoTable
from hero_sdk.serve import running_server
from hero_train.data.annotations import MomentQuery, read_moment_queries
from hero_train.metrics import Searched, chance

HERE = Path(__file__).parent
ROOT = HERE.parent
CONFIG = HERE / "configs" / "retrieval.yaml"

TOLERANCE = 1e-4  # between a score from this process and the same through Triton
COLUMNS = {
    "VR/R@1": "VR R@1",
    "SVMR/R@1/IoU=0.7": "SVMR R@1",
    "VCMR/R@1/IoU=0.7": "VCMR R@1",
    "VCMR/R@10/IoU=0.7": "VCMR R@10",
}
KINDS = {"v": "the picture", "t": "what is said", "vt": "both", "all": "all"}


@dataclass(frozen=True)
class Size:
    """How much the demo makes and trains.

    Attributes:
        episodes: for training, validation and testing.
        overrides: entries of the training configuration.
        floors: recalls that the full demo must reach, by query type and metric; what a first stand-in reached on an easier corpus.
    """

    episodes: tuple[int, int, int]
    overrides: tuple[str, ...] = ()
    floors: Mapping[str, Mapping[str, float]] | None = None


SIZES = {
    "full": Size(
        (1000, 20, 60),
        floors={
            "v": {"VR/R@1": 0.41, "SVMR/R@1/IoU=0.7": 0.92, "VCMR/R@1/IoU=0.7": 0.38},
            "t": {"VR/R@1": 0.056, "SVMR/R@1/IoU=0.7": 0.83, "VCMR/R@1/IoU=0.7": 0.047},
            "vt": {"VR/R@1": 0.79, "SVMR/R@1/IoU=0.7": 0.94, "VCMR/R@1/IoU=0.7": 0.74},
        },
    ),
    "small": Size(
        (40, 4, 8), ("optimisation.steps=20", "optimisation.warmup=5", "sampling.videos=8", "evaluate_every=0")
    ),
}


def main(
    size: Annotated[Literal["full", "small"], typer.Option(help="How much to make and to train.")] = "full",
    work: Annotated[Path, typer.Option(help="Folder for what the demo makes; emptied first.")] = HERE / "work",
    report: Annotated[Path, typer.Option(help="The report to write.")] = HERE / "report.html",
    seed: Annotated[int, typer.Option(help="Of the corpus.")] = 7,
) -> None:
    """Train, export, serve and search a small corpus, and judge what is found."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        run(SIZES[size], work.resolve(), report.resolve(), seed, console)
    except (DemoError, ToonTvError, hero_sdk.HeroError) as error:
        console.print(f"[red]{type(error).__name__}[/red]: ", end="")
        console.print(str(error), markup=False, highlight=False)
        raise typer.Exit(1) from error


def run(size: Size, work: Path, report: Path, seed: int, console: Console) -> None:
    """All steps, each by the command that a user would type."""
    shell = Shell(console, ROOT)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    toontv, bundle, corpus, repository = (work / name for name in ("toontv", "bundle", "corpus", "repository"))
    held_out = toontv / "held_out"

    shell.title("Make the corpus: cartoon episodes with subtitles and annotated queries")
    train, val, test = map(str, size.episodes)
    shell.run(
        "python", "-m", "demo.toontv", toontv, "--train", train, "--val", val, "--test", test, "--seed", str(seed)
    )
    set_apart(toontv, held_out, "test")

    shell.title("Train: frame features, tokenizer, HERO")
    shell.run("hero-export", "frame-encoder", "--out", work / "frame_encoder")
    paths = {
        "output": work / "run",
        "frame_encoder": work / "frame_encoder",
        "data.videos": toontv / "videos",
        "data.subtitles": toontv / "subtitles",
        "data.train": toontv / "annotations" / "train.jsonl",
        "data.validation": toontv / "annotations" / "val.jsonl",
        "data.test": toontv / "annotations" / "test.jsonl",
        "data.features": work / "features",
    }
    # The configuration names these places already, unless the demo works elsewhere.
    moved = [f"{name}={path}" for name, path in paths.items()] if work != HERE / "work" else []
    options = [word for entry in (*moved, *size.overrides) for word in ("--set", entry)]
    shell.run("hero-train", "run", CONFIG, *options)

    shell.title("Export: both encoder stages and the query encoder to ONNX, each compared with torch")
    shell.run("hero-export", "onnx", work / "run" / "checkpoint", "--out", bundle, "--query-tokens", "32")
    shell.run("hero-export", "triton", bundle, "--out", repository)

    shell.title("Index the held-out videos and search them, in this process")
    shell.run("hero", "index", held_out / "videos", "--corpus", corpus, "--bundle", bundle)
    queries = read_moment_queries(toontv / "annotations" / "test.jsonl")
    samples = sample(queries)
    shell.run("hero", "search", samples[0].text, "--corpus", corpus, "--bundle", bundle, "--top-k", "3")
    with hero_sdk.load(bundle) as hero:
        answers = ask(hero, hero.corpus(corpus, create=False), queries)
        spec = hero.manifest.moment
        interval = hero.manifest.model.clip_interval
        shown = [answer for item in samples for answer in answers if answer.query == item]
        examples = [make_example(hero, answer, held_out / "videos") for answer in shown]

    shell.title("The same through a Triton server")
    with running_server(repository) as server:
        console.print(f"Triton listens on {server.grpc_url}", highlight=False)
        served_corpus = work / "served_corpus"
        shell.run("hero", "index", held_out / "videos", "--corpus", served_corpus, "--url", server.grpc_url)
        shell.run(
            "hero", "search", samples[0].text, "--corpus", served_corpus, "--url", server.grpc_url, "--top-k", "3"
        )
        with hero_sdk.connect(server.grpc_url) as hero:
            served = hero.corpus(served_corpus, create=False)
            moments = [served.search(query, 10) for query in hero.encode_queries([item.text for item in queries])]
    difference = compare([answer.moments[:10] for answer in answers], moments)
    check_equal(difference, len(queries), console)

    shell.title("What was found")
    console.print(answer_table(shown))
    rows = VideoTable.open(corpus).column("duration", "clips")
    guessing = chance(
        [answer.result for answer in answers],
        Searched([row["clips"] for row in rows], [row["duration"] for row in rows], interval, spec),
    )
    found = metrics(answers)
    console.print(metric_table(found, guessing, len(queries), len(rows)))

    shell.title("Bad input")
    mishaps.show(console, bundle, held_out / "videos", work / "mishaps")

    facts = {
        "training": f"{train} episodes",
        "held out": f"{len(rows)} episodes, {sum(row['duration'] for row in rows) / 60:.0f} min, {len(queries)} queries",
        "in process and Triton": f"the same moments for all queries; scores differ by {difference.score:.1e} at most",
    }
    kinds = {KINDS[kind]: found[kind] for kind in KINDS if kind in found}
    write_report(report, examples=examples, metrics=kinds, chance=guessing, columns=COLUMNS, facts=facts)
    shell.title(f"The report is {report.relative_to(Path.cwd()) if report.is_relative_to(Path.cwd()) else report}")
    if size.floors is not None:
        check_floors(found, size.floors, Counter(query.type for query in queries), console)


def set_apart(toontv: Path, held_out: Path, split: str) -> None:
    """Give the held-out episodes a folder of their own, as a user's videos would lie there: videos/ and subtitles/."""
    for kind in ("videos", "subtitles"):
        (held_out / kind).mkdir(parents=True)
        for file in sorted((toontv / kind).glob(f"{split}_*")):
            (held_out / kind / file.name).hardlink_to(file)


def sample(queries: Sequence[MomentQuery]) -> list[MomentQuery]:
    """Three queries of each type; which, does not depend on how well they are answered."""
    rng = random.Random(1)
    return [
        query for kind in ("v", "t", "vt") for query in rng.sample([item for item in queries if item.type == kind], 3)
    ]


def check_equal(difference: Difference, queries: int, console: Console) -> None:
    """Hold in process and Triton to the same answers."""
    console.print(
        f"{queries} queries: {difference.moments} of their moments differ; scores differ by {difference.score:.1e} at most.",
        highlight=False,
    )
    if difference.moments or difference.score > TOLERANCE:
        raise DemoError(
            f"In process and through Triton {difference.moments} moments differ and scores by {difference.score:.1e}; "
            f"expected the same moments, and scores equal to {TOLERANCE}."
        )


def answer_table(answers: Sequence[Answer]) -> Table:
    """The best moment of each query and whether it is right."""
    table = Table(box=SIMPLE, title="The best moment of nine held-out queries, three of each kind")
    for column in ("query", "found", "score", "annotated", "IoU", ""):
        table.add_column(column, overflow="fold")
    for answer in answers:
        query, best = answer.query, answer.moments[0]
        ((start, end),) = query.moments
        table.add_row(
            query.text,
            f"{best.video_id} {best.start:.1f}-{best.end:.1f} s",
            f"{best.score:.2g}",
            f"{query.video_id} {start:.1f}-{end:.1f} s",
            f"{answer.iou:.2f}",
            "[green]right[/green]" if answer.right else "[red]wrong[/red]",
        )
    return table


def metric_table(
    found: Mapping[str, Mapping[str, float]], guessing: Mapping[str, float], queries: int, videos: int
) -> Table:
    """The held-out metrics beside chance, in percent."""
    table = Table(box=SIMPLE, title=f"Held-out retrieval, percent (IoU 0.7): {queries} queries, {videos} videos")
    table.add_column("queries about")
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")
    for kind, name in KINDS.items():
        if kind in found:
            table.add_row(name, *(f"{100 * found[kind][metric]:.1f}" for metric in COLUMNS))
    table.add_row("chance", *(f"{100 * guessing[metric]:.2f}" for metric in COLUMNS), style="dim")
    return table


def check_floors(
    found: Mapping[str, Mapping[str, float]],
    floors: Mapping[str, Mapping[str, float]],
    queries: Mapping[str, int],
    console: Console,
) -> None:
    """Hold the metrics to what the demo promises.

    A recall of so many queries is uncertain by its standard error, and processors round differently: what falls short by less is
    said, and what falls short by more ends the demo.
    """
    table = Table(box=SIMPLE, title="What the demo promises at least, percent")
    for column in ("queries about", "recall", "promised", "reached"):
        table.add_column(column)
    below = []
    for kind, promised in floors.items():
        for metric, least in promised.items():
            reached = found[kind][metric]
            mark = "" if reached >= least else " [red]below[/red]"
            table.add_row(KINDS[kind], COLUMNS[metric], f"{100 * least:.1f}", f"{100 * reached:.1f}{mark}")
            if reached < least - math.sqrt(least * (1 - least) / queries[kind]):
                below.append(
                    f"{COLUMNS[metric]} of queries about {KINDS[kind]}: {reached:.3f}, expected at least {least}"
                )
    console.print(table)
    if below:
        raise DemoError("The model finds less than it should. " + "; ".join(below))


if __name__ == "__main__":
    typer.run(main)
