"""What each part of pre-training is worth on ToonTV: the paper's ablation, over several seeds.

python -m demo.ablation                # what `make ablation` runs, after `make train-demo` or by itself
python -m demo.ablation --size small   # every step, too little training to learn anything

Each run pre-trains with a part of the tasks, or not at all, and then is fine-tuned on retrieval for as long as all others. Runs
take one thread each and go two at a time, which keeps two cores busier than one run with both.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from demo import tasks
from demo.shell import DemoError, Shell
from demo.tasks import ROOT, WORK, make_corpus, train
from hero_train.checkpoint import TOKENIZER_FILE

MIXES = {
    "none": None,
    "MLM + MFM": "{mlm: 2, mfm_nce: 2, mffr: 0, fom: 0, vsm: 0}",
    "MLM + MFM + FOM": "{mlm: 2, mfm_nce: 2, mffr: 0, fom: 1, vsm: 0}",
    "MLM + MFM + FOM + VSM": "{mlm: 2, mfm_nce: 2, mffr: 0, fom: 1, vsm: 2}",
}
"""The tasks of pre-training by the names of the paper's table, each time one more."""

AT_A_TIME = 2


@dataclass(frozen=True)
class Size:
    """How much is made and trained.

    Attributes:
        episodes: for training, validation and testing.
        pretraining, retrieval: entries of the configurations.
    """

    episodes: tuple[int, int, int]
    pretraining: tuple[str, ...]
    retrieval: tuple[str, ...]


SIZES = {
    "full": Size(
        tasks.SIZES["full"].episodes,
        ("optimisation.steps=500", "sampling.videos=16"),
        ("optimisation.steps=500", "sampling.videos=16", "evaluate_every=0"),
    ),
    "small": Size(
        tasks.SIZES["small"].episodes,
        ("optimisation.steps=2", "optimisation.warmup=1", "sampling.videos=4"),
        ("optimisation.steps=2", "optimisation.warmup=1", "sampling.videos=4", "evaluate_every=0"),
    ),
}


def main(
    size: Annotated[Literal["full", "small"], typer.Option(help="How much to make and to train.")] = "full",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each kind.")] = 3,
    work: Annotated[Path, typer.Option(help="Folder for what is made.")] = WORK,
) -> None:
    """Measure what each part of pre-training is worth."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        run(SIZES[size], range(1, seeds + 1), work.resolve(), Shell(console, ROOT))
    except DemoError as error:
        console.print(f"[red]{type(error).__name__}[/red]: ", end="")
        console.print(str(error), markup=False, highlight=False)
        raise typer.Exit(1) from error


def run(size: Size, seeds: Sequence[int], work: Path, shell: Shell) -> Path:
    """All runs.

    Returns:
        The file with their results.
    """
    make_corpus(work, size.episodes, 7, shell)
    folder = work / "ablation"
    shutil.rmtree(folder, ignore_errors=True)
    shell.title(f"{len(MIXES)} kinds of pre-training, {len(seeds)} seeds each")

    def checkpoint(name: str, seed: int, task: str) -> Path:
        return folder / f"{list(MIXES).index(name)}-seed-{seed}" / task / "checkpoint"

    def one(name: str, seed: int) -> dict[str, object]:
        shared = ("threads=1", f"seed={seed}")
        initial, mix = None, MIXES[name]
        # All have the tokenizer that pre-training makes: what is compared differs in nothing but pre-training.
        tokenizer = (f"tokenizer.source={checkpoint(*first, 'pretraining') / TOKENIZER_FILE}",)
        if mix is not None:
            initial, tokenizer = checkpoint(name, seed, "pretraining"), ()
            train("pretraining", work, initial.parent, (*size.pretraining, *shared, f"sampling.mix={mix}"), shell)
        output = checkpoint(name, seed, "retrieval").parent
        train("retrieval", work, output, (*size.retrieval, *shared, *tokenizer), shell, initial)
        results = json.loads((output / "results.json").read_text(encoding="utf-8"))
        return {"pretraining": name, "seed": seed, "test": results["test"]}

    kinds = [(name, seed) for seed in seeds for name in MIXES]
    # The first run fills the cache of features that the others read.
    first, *others = sorted(kinds, key=lambda kind: MIXES[kind[0]] is None)
    done = [one(*first)]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        done += pool.map(lambda kind: one(*kind), others)
    target = work / "ablation.json"
    settings = {"pretraining": size.pretraining, "retrieval": size.retrieval, "episodes": size.episodes}
    target.write_text(json.dumps({"settings": settings, "runs": done}, indent=2) + "\n", encoding="utf-8")
    shell.title(f"All results are in {target.relative_to(ROOT) if target.is_relative_to(ROOT) else target.name}")
    return target


if __name__ == "__main__":
    typer.run(main)
