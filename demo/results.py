"""Writes docs/results.md from what `python -m demo.tasks` and `python -m demo.ablation` measured.

python -m demo.results
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import jinja2
import typer

from demo.ablation import MIXES
from demo.tasks import HERE, ROOT, WORK

Row = tuple[str, ...]

RECALLS = {
    "VR/R@1": "right video",
    "SVMR/R@1/IoU=0.7": "right moment in the video",
    "VCMR/R@1/IoU=0.7": "right moment of all videos",
}
SCORES = ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr")
QUERIES = {"v": "the picture", "t": "what is said", "vt": "both", "all": "all"}
CAPTIONS = {
    "all": "greedy search",
    "beam": "beam search",
    "frequent": "the most frequent one of training",
    "random": "any of training",
}


def main(
    work: Annotated[Path, typer.Option(help="Folder with results.json and ablation.json.")] = WORK,
    out: Annotated[Path, typer.Option(help="The document to write.")] = ROOT / "docs" / "results.md",
    note: Annotated[str, typer.Option(help="What a reader must know of how this was measured.")] = "",
) -> None:
    """Write the results document."""
    tasks, ablation = (
        json.loads((work / name).read_text(encoding="utf-8")) for name in ("results.json", "ablation.json")
    )
    out.write_text(document(tasks, ablation, note), encoding="utf-8")
    typer.echo(f"Wrote {out.name}.")


def document(tasks: Mapping[str, Any], ablation: Mapping[str, Any], note: str = "") -> str:
    """The document in Markdown."""
    found, runs = tasks["tasks"], ablation["runs"]
    loader = jinja2.FileSystemLoader(HERE)
    template = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return template.get_template("results.md.jinja").render(
        episodes=tasks["episodes"],
        minutes=tasks["minutes"],
        note=note,
        counts={task: result["counts"] for task, result in found.items()},
        recalls=list(RECALLS.values()),
        scores=list(SCORES),
        retrieval=retrieval_rows(found["retrieval"]),
        questions=answer_rows(found["questions"]),
        statements=answer_rows(found["statements"]),
        captions=caption_rows(found["captions"]),
        seeds=len({run["seed"] for run in runs}),
        settings=ablation["settings"],
        ablation=[(mix, *(spread(of_mix(runs, mix, metric)) for metric in RECALLS)) for mix in MIXES],
        steps=list(steps(runs, "VCMR/R@1/IoU=0.7")),
    )


def percent(value: float | None) -> str:
    """A share in percent; nothing where there is none."""
    return "" if value is None else f"{100 * value:.1f}"


def of_group(baselines: Mapping[str, Any], name: str, group: str) -> Mapping[str, float]:
    """A baseline of a group, as `hero_train.evaluation` names it."""
    return baselines[name if group == "all" else f"{name}/{group}"]


def retrieval_rows(found: Mapping[str, Any]) -> list[Row]:
    """A row per type of query, chance behind each recall."""
    rows = []
    for group, name in QUERIES.items():
        reached, chance = found["metrics"][group], of_group(found["baselines"], "chance", group)
        rows.append((name, *(f"{percent(reached[metric])} / {percent(chance[metric])}" for metric in RECALLS)))
    return rows


def answer_rows(found: Mapping[str, Any]) -> list[Row]:
    """A row per kind of question or statement."""
    rows = []
    for kind in (*sorted(found["metrics"].keys() - {"all"}), "all"):
        baselines = [of_group(found["baselines"], name, kind) for name in ("chance", "majority")]
        rows.append((kind, *(percent(values["accuracy"]) for values in (found["metrics"][kind], *baselines))))
    return rows


def caption_rows(found: Mapping[str, Any]) -> list[Row]:
    """Both searches and the baselines."""
    scores = found["metrics"] | found["baselines"]
    return [(name, *(percent(scores[key].get(score)) for score in SCORES)) for key, name in CAPTIONS.items()]


def of_mix(runs: Sequence[Mapping[str, Any]], mix: str, metric: str) -> list[float]:
    """A metric of all queries in each run with one kind of pre-training."""
    return [run["test"]["metrics"]["all"][metric] for run in runs if run["pretraining"] == mix]


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of some shares, in percent."""
    return f"{100 * mean(values):.1f} ± {100 * stdev(values):.1f}"


def steps(runs: Sequence[Mapping[str, Any]], metric: str) -> list[dict[str, Any]]:
    """What each further task of pre-training changed, in points, with the standard error of the difference of the means."""
    changes = []
    for before, after in itertools.pairwise(MIXES):
        one, other = of_mix(runs, before, metric), of_mix(runs, after, metric)
        error = (stdev(one) ** 2 / len(one) + stdev(other) ** 2 / len(other)) ** 0.5
        changes.append(
            {"before": before, "after": after, "change": 100 * (mean(other) - mean(one)), "error": 100 * error}
        )
    return changes


if __name__ == "__main__":
    typer.run(main)
