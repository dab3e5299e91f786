"""Every task of the demo for every engine and precision, verified, with the table in docs/export.md.

python -m demo.exports               # what `make export-demo` runs, after `make train-demo`
python -m demo.exports --full-size   # the authors' sizes with random weights: what each step takes; numbers, no task
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from demo.full_size import write_full_size
from demo.shell import DemoError, Finished, Shell
from demo.tasks import ANNOTATIONS, ROOT, WORK, annotations, entries_of, make_episodes, media
from hero_export.exit_codes import ExitCode
from hero_export.verification.mixing import can_mix
from hero_train.run_config import load_config

ONNXRUNTIME = ("fp16", "bf16", "int8")
OPENVINO = ("fp32", "bf16", "int8")
TARGETS = ("sm80", "sm86", "sm89", "sm120")
"""Of the plans in fp16: data-centre and desktop GPUs of four generations."""

EXPORTS_FILE, FULL_SIZE_FILE = "exports.json", "full_size.json"

HELD_OUT = (0, 480, 240)
"""Episodes to judge on: none for training, then for validation, where layers are chosen, and for testing.

They begin with the sixty and sixty that the models were judged on when they were trained. These show what a model can do; yet of so
few the difference of two precisions has a standard error of 1.7 points of CIDEr, where one point is what may be lost. To choose
among many takes more of them than to judge the chosen one.
"""

HELD_OUT_FOLDER = "held-out"

TRIALS = "12"
"""Candidates of a search at most: enough to find how many layers have to be kept, not to give back every one that need not be."""

SHAPES = ("--frames", "40", "--query-tokens", "32", "--max-batch", "16")
"""Of the demo's rows, as its runs have them."""


@dataclass(frozen=True)
class Plan:
    """What is made of each checkpoint.

    Attributes:
        onnxruntime, openvino: precisions.
        targets: of TensorRT's plans in fp16.
        shapes: options of the export.
        episodes: to judge on, see ``HELD_OUT``; None takes those of the run.
        sample: annotations that the task is judged on; None takes all of the split.
    """

    onnxruntime: Sequence[str] = ONNXRUNTIME
    openvino: Sequence[str] = OPENVINO
    targets: Sequence[str] = TARGETS
    shapes: Sequence[str] = SHAPES
    episodes: tuple[int, int, int] | None = HELD_OUT
    sample: int | None = None


@dataclass(frozen=True)
class Step:
    """A command that was run.

    Attributes:
        name: such as "export" or "verify".
        seconds, peak_bytes: that it took, as its process says.
    """

    name: str
    seconds: float
    peak_bytes: int

    @classmethod
    def of(cls, name: str, done: Finished) -> Step:
        """Of a command that came to its end."""
        return cls(name, done.seconds, done.peak_bytes)


def main(
    work: Annotated[Path, typer.Option(help="Folder that `python -m demo.tasks` worked in.")] = WORK,
    task: Annotated[
        list[str] | None, typer.Option(help="Export this task only; may be given again. Default: all.")
    ] = None,
    sample: Annotated[int | None, typer.Option(help="Annotations to judge on. Default: all of the test split.")] = None,
    full_size: Annotated[
        bool, typer.Option("--full-size", help="The authors' sizes with random weights instead of the demo's models.")
    ] = False,
    write_docs: Annotated[bool, typer.Option(help="Write docs/export.md.")] = True,
) -> None:
    """Export, quantise, build and verify the models of the demo, and write the table."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    shell, tasks = Shell(console, ROOT), task or list(ANNOTATIONS)
    try:
        if unknown := [one for one in tasks if one not in ANNOTATIONS]:
            raise DemoError(f"There is no task {', '.join(unknown)}; expected some of {', '.join(ANNOTATIONS)}.")
        if full_size:
            run_full_size(work.resolve(), tasks, shell)
        else:
            run(work.resolve(), tasks, Plan(sample=sample), shell)
        if write_docs:
            from demo.exports_document import write_document

            shell.title(f"Wrote {write_document(work.resolve()).relative_to(ROOT)}")
    except DemoError as error:
        console.print(f"[red]{type(error).__name__}[/red]: ", end="")
        console.print(str(error), markup=False, highlight=False)
        raise typer.Exit(1) from error


def run(work: Path, tasks: Sequence[str], plan: Plan, shell: Shell) -> Path:
    """Export the checkpoint of each task in every form, each step by the command that a user would type.

    Returns:
        The file with what the commands cost; what they found lies in the reports beside the bundles.
    """
    lacking = [task for task in tasks if not (work / task / "checkpoint").is_dir()]
    if lacking:
        raise DemoError(f"{work.name} has no checkpoint of {', '.join(lacking)}; run `make train-demo` first.")
    steps: dict[str, list[dict[str, Any]]] = _read(work / EXPORTS_FILE)
    held_out = {task: work / task / "config.yaml" for task in tasks}
    if plan.episodes is not None:
        shell.title("Make episodes to judge on")
        held_out = {task: hold_out(task, work, plan.episodes, shell) for task in tasks}
    for task in tasks:
        shell.title(f"Export: {task}")
        done = export_task(work / task, held_out[task], work / "exports" / task, plan, shell)
        steps[task] = [asdict(step) for step in done]
        (work / EXPORTS_FILE).write_text(json.dumps(steps, indent=2) + "\n", encoding="utf-8")
    return work / EXPORTS_FILE


def hold_out(task: str, work: Path, episodes: tuple[int, int, int], shell: Shell) -> Path:
    """Make episodes beside those of training, by the same seed.

    Returns:
        The configuration of the task's run with these for validation and testing, for `--data`.

    Raises:
        DemoError: the corpus of training, which has the seed, is gone.
    """
    corpus, folder = work / "toontv" / "corpus.json", work / HELD_OUT_FOLDER
    if not corpus.is_file():
        raise DemoError(
            f"{work.name} has no toontv/corpus.json, with the seed of the training episodes; expected the folder as `make "
            "train-demo` left it. Run that again."
        )
    toontv = folder / "toontv"
    make_episodes(toontv, episodes, json.loads(corpus.read_text(encoding="utf-8"))["seed"], shell)
    moved = media(toontv, folder / "features") | annotations(task, toontv, ("validation", "test"))
    target = folder / f"{task}.yaml"
    target.write_text(load_config(work / task / "config.yaml", entries_of(moved)).dump(), encoding="utf-8")
    return target


def export_task(trained: Path, held_out: Path, out: Path, plan: Plan, shell: Shell) -> list[Step]:
    """One checkpoint in every form, verified; one that may lose too much of its task is searched for layers to keep in fp32.

    Args:
        trained: the folder of a run, with its checkpoint and its configuration.
        held_out: the configuration with the data to judge on.
        out: where the bundle, the calibration set and the report go.
        plan: what is made.
        shell: to run in.
    """
    checkpoint = trained / "checkpoint"
    bundle, calibration, report = out / "bundle", out / "calibration", out / "report"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    steps = []

    def step(name: str, *command: str | Path, expect: Sequence[int] = (0,)) -> Finished:
        done = shell.measure(*command, expect=expect)
        steps.append(Step.of(name, done))
        return done

    step("export", "hero-export", "onnx", checkpoint, "--out", bundle, *plan.shapes)
    if "int8" in (*plan.onnxruntime, *plan.openvino):
        step("calibrate", "hero-export", "calibrate", bundle, "--data", trained / "config.yaml", "--out", calibration)
    for name, command, precisions in (
        ("onnxruntime", ("hero-export", "onnx", bundle), plan.onnxruntime),
        ("openvino", ("hero-export", "openvino", bundle), plan.openvino),
    ):
        if precisions:
            options = _repeated("--precision", precisions)
            calibrated = ("--calibration", calibration) if "int8" in precisions else ()
            step(name, *command, *options, *calibrated)
    if plan.targets:
        options = _repeated("--target", plan.targets)
        step("tensorrt", "hero-export", "tensorrt", bundle, "--precision", "fp16", *options)
    sample = () if plan.sample is None else ("--sample", str(plan.sample))
    judged = ("--checkpoint", checkpoint, "--data", held_out, *sample)
    verify = ("hero-export", "verify", bundle, *judged, "--report", report)
    either = (ExitCode.OK, ExitCode.BUDGET)
    step("verify", *verify, expect=either)
    mixed = to_mix(report)
    for name in mixed:
        # Layers are chosen on the validation split; what stands in the table is the test split's. A search that does not get there
        # leaves the variant as it was, and whether that loses too much is for the verification to say.
        engine, _, precision = name.partition("-")
        mix = ("hero-export", "mix", bundle, "--engine", engine, "--precision", precision, "--trials", TRIALS)
        step(f"mix {name}", *mix, *judged, "--calibration", calibration, expect=either)
    if mixed:
        step("verify again", *verify)
    return steps


def to_mix(report: Path) -> list[str]:
    """The variants of which the split cannot tell that they lose no more of their task than they may.

    Args:
        report: folder of a verification.

    Raises:
        DemoError: one loses too much that no search is for, as in fp32.
    """
    metrics = json.loads((report / "report.json").read_text(encoding="utf-8"))["metrics"]
    over = dict.fromkeys(one["variant"] for one in metrics if not one["passed"])
    if wrong := [name for name in over if not _is_mixable(name)]:
        raise DemoError(
            f"{', '.join(wrong)} loses more of the task than its budget, and there is no search for layers that it had better keep "
            f"in fp32; {report.name} shows which graphs differ from PyTorch, and by how much."
        )
    judged = (one for one in metrics if one["budget"] is not None and one["high"] is not None)
    unsure = dict.fromkeys(one["variant"] for one in judged if one["high"] > one["budget"])
    return [name for name in over | unsure if _is_mixable(name)]


def _is_mixable(variant: str) -> bool:
    engine, _, precision = variant.partition("-")
    return can_mix(engine, precision)


def _repeated(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def run_full_size(work: Path, tasks: Sequence[str], shell: Shell, plan: Plan | None = None) -> Path:
    """The authors' sizes with random weights: export, build, verify the numbers, and note what each step takes.

    Returns:
        The file with what was noted.
    """
    # What needs no calibration, for random weights have seen no rows.
    plan = plan or Plan(onnxruntime=("fp16",), openvino=("bf16",), shapes=("--max-batch", "8"))
    costs: dict[str, Any] = _read(work / FULL_SIZE_FILE)
    for task in tasks:
        shell.title(f"Full size: {task}")
        folder = work / "full-size" / task
        shutil.rmtree(folder, ignore_errors=True)
        parameters = write_full_size(task, folder / "checkpoint")
        bundle, report = folder / "bundle", folder / "report"
        commands: dict[str, tuple[str | Path, ...]] = {
            "export": ("onnx", folder / "checkpoint", "--out", bundle, *plan.shapes)
        }
        if plan.onnxruntime:
            commands["onnxruntime"] = ("onnx", bundle, *_repeated("--precision", plan.onnxruntime))
        if plan.openvino:
            commands["openvino"] = ("openvino", bundle, *_repeated("--precision", plan.openvino))
        if plan.targets:
            commands["tensorrt"] = ("tensorrt", bundle, "--precision", "fp16", *_repeated("--target", plan.targets))
        verify = ("verify", bundle, "--checkpoint", folder / "checkpoint", "--report", report, "--no-latency")
        commands["verify"] = verify
        steps = [asdict(Step.of(name, shell.measure("hero-export", *words))) for name, words in commands.items()]
        size = sum(path.stat().st_size for path in (bundle / "graphs").iterdir())
        costs[task] = {"parameters": parameters, "graph_bytes": size, "steps": steps}
        (work / FULL_SIZE_FILE).write_text(json.dumps(costs, indent=2) + "\n", encoding="utf-8")
        # Gigabytes, of which nothing but the numbers is of use.
        shutil.rmtree(folder)
    return work / FULL_SIZE_FILE


def _read(path: Path) -> dict[str, Any]:
    """What an earlier run noted of the tasks that it made; nothing where there was none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


if __name__ == "__main__":
    typer.run(main)
