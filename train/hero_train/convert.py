"""Checkpoints of the authors into ours and back: a file becomes a folder, a folder becomes a file."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from hero_train.checkpoint import WEIGHTS_FILE, resolve_folder
from hero_train.config import CONFIG_FILE
from hero_train.errors import CheckpointError
from hero_train.loading import ImportReport, check_finite
from hero_train.model.tasks import MODEL_CLASSES, RETRIEVAL, model_class_of, task_of
from hero_train.official import read_official
from hero_train.official_models import PRETRAINING, task_model_from_official
from hero_train.official_writing import ExportReport, official_state

SUFFIX = ".pt"


@dataclass(frozen=True)
class Conversion:
    """What was converted into what.

    Attributes:
        source, target: as they were given.
        task: of the model, as ``hero_train.model.tasks.MODEL_CLASSES`` has it.
        report: of the weights; an ``ImportReport`` where the target is a checkpoint folder of ours, else an ``ExportReport``.
        notes: what else whoever uses the target must know.
    """

    source: str
    target: Path
    task: str
    report: ImportReport | ExportReport
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """What was done, as lines of text."""
        ways = (f"{self.source}, a checkpoint of the authors", f"{self.target}, a checkpoint folder")
        if isinstance(self.report, ExportReport):
            ways = (f"{self.source}, a checkpoint folder", f"{self.target}, a checkpoint of the authors")
        heading = f"{ways[0]} ({self.task}), became {ways[1]}."
        return "\n".join([heading, self.report.describe(), *(f"Note: {note}" for note in self.notes)])


def convert(source: str | Path, target: Path, task: str | None = None, *, num_heads: int | None = None) -> Conversion:
    """Turn an official ``.pt`` into a checkpoint folder, or a checkpoint folder into an official ``.pt``.

    Args:
        source: a file is the authors'; a folder or hub id is ours. That decides the direction.
        target: a folder that is new or empty, or a new file that ends with ``.pt``. It appears only when it is whole.
        task: of the checkpoint; None finds it. Files for pre-training and for retrieval have the same names and are taken for
            retrieval; "pre-training" keeps the heads of pre-training.
        num_heads: of a file's attention, if their width is not 64.

    Raises:
        CheckpointError: the source cannot be read, is of another task or not finite, or the target is taken or cannot be written.
        ConfigError: the configuration of the source does not fit.
    """
    if task is not None and task not in MODEL_CLASSES:
        raise CheckpointError(f"There is no task {task!r}; expected one of {sorted(MODEL_CLASSES)}.")
    if Path(source).is_file() or (str(source).endswith(SUFFIX) and not Path(source).is_dir()):
        return _from_official(Path(source), target, task, num_heads)
    return _to_official(source, target, task, num_heads)


def _from_official(source: Path, target: Path, task: str | None, num_heads: int | None) -> Conversion:
    if target.suffix == SUFFIX:
        raise CheckpointError(
            f"{source} is a file and becomes a folder; expected a folder's name in place of {target}."
        )
    check_free(target)
    model, report = task_model_from_official(read_official(source), task, num_heads=num_heads)
    with staged(target) as partial:
        model.save_pretrained(partial)
    notes = ["it has no tokenizer and no frame encoder; the authors' tokenizer is that of roberta-base."]
    if task is None and task_of(model) == RETRIEVAL and report.left_out:
        notes.append(f"if the file is of pre-training, the task {PRETRAINING!r} keeps the heads of pre-training.")
    return Conversion(str(source), target, task_of(model), report, tuple(notes))


def _to_official(source: str | Path, target: Path, task: str | None, num_heads: int | None) -> Conversion:
    if target.suffix != SUFFIX:
        raise CheckpointError(
            f"{source} is a folder and becomes a file of the authors; expected a name that ends with {SUFFIX} in place of {target}."
        )
    check_free(target)
    folder = resolve_folder(source)
    model_class = model_class_of(folder)
    if task not in (None, task_of(model_class)):
        raise CheckpointError(f"{source} is for {task_of(model_class)}; expected one for {task}. Leave the task out.")
    if num_heads is not None:
        raise CheckpointError(f"{folder / CONFIG_FILE} says how many heads the model has; leave the number out.")
    model = model_class.from_pretrained(folder)
    check_finite(model.state_dict())
    state, report = official_state(model)
    with staged(target) as partial:
        torch.save(state, partial)
    others = sorted(path.name for path in folder.iterdir() if path.name not in (CONFIG_FILE, WEIGHTS_FILE))
    notes = [f"left behind in {folder}: {', '.join(others)}."] if others else []
    return Conversion(str(source), target, task_of(model), report, tuple(notes))


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A path beside ``target`` that takes its place when the block ends without an error, and vanishes otherwise.

    Raises:
        CheckpointError: ``target`` is taken, see ``check_free``, or cannot be written.
    """
    target = target.absolute()  # "." has neither a name nor a folder around it
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        # Once more: reading takes a while, and the place may have been taken meanwhile.
        check_free(target)
        if target.exists():
            target.rmdir()
        partial.rename(target)
    # A full disk is a RuntimeError of torch's writer, and of safetensors an error of its own.
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{target} cannot be written ({error}). See that there is room on the disk and that the folder may be written to."
        ) from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        elif partial.exists():
            partial.unlink()


def check_free(target: Path) -> None:
    """Refuse a place that holds something.

    Raises:
        CheckpointError: ``target`` is there and no empty folder.
    """
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise CheckpointError(
            f"{target} exists and nothing is overwritten; expected a new name or an empty folder. Choose another, or remove it "
            "yourself."
        )
