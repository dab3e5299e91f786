"""The calibration set of a bundle: real inputs of its graphs, from which int8 takes the ranges of activations.

A folder with ``calibration.json`` and one ``<graph>.safetensors`` per graph, whose tensors are the graph's inputs, (rows, ...). It
belongs to the graphs that it was made with, for what one graph gives is what the next one reads; with others it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hero_export.errors import CalibrationError
from hero_export.report import tool_versions
from hero_export.reproduce import SCRIPT_FILE
from hero_sdk.engines.batching import Arrays, mismatch
from hero_sdk.geometry import RowGeometry
from hero_sdk.manifest import Manifest, sha256_of
from hero_train.staging import staged

CALIBRATION_FILE = "calibration.json"
FORMAT_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CalibratedGraph(_Part):
    """Rows of one graph.

    Attributes:
        graph: sha256 of the ONNX file that they are inputs of.
        file: name of the file that they lie in.
        sha256: of that file.
        rows: how many.
    """

    graph: str
    file: str
    sha256: str
    rows: int


class CalibrationRecord(_Part):
    """What ``calibration.json`` says.

    Attributes:
        fingerprint, task, geometry: of the bundle.
        data: sha256 of the annotation file of the training split.
        videos: how many of its videos were read.
        seed: of the choice of videos and rows.
        graphs: by name.
        tools: versions of what made the set.
    """

    fingerprint: str
    task: str
    geometry: RowGeometry
    data: str
    videos: int
    seed: int
    graphs: dict[str, CalibratedGraph]
    tools: dict[str, str]
    format_version: int = FORMAT_VERSION


class CalibrationSet:
    """A calibration set that goes with a bundle; made by ``read_calibration``."""

    def __init__(self, folder: Path, record: CalibrationRecord) -> None:
        self.folder = folder
        self.record = record

    def arrays(self, graph: str) -> Arrays:
        """The inputs of a graph, (rows, ...) by name; empty where the set has none of it."""
        found = self.record.graphs.get(graph)
        return {} if found is None else load_file(self.folder / found.file)

    def rows(self, graph: str) -> Iterator[Arrays]:
        """The same, one row after another, with the batch in front."""
        arrays = self.arrays(graph)
        for number in range(len(next(iter(arrays.values()), ()))):
            yield {name: array[number : number + 1] for name, array in arrays.items()}


def read_calibration(folder: Path, manifest: Manifest) -> CalibrationSet:
    """Open a calibration set for a bundle.

    Args:
        folder: that ``hero-export calibrate`` wrote.
        manifest: of the bundle.

    Raises:
        CalibrationError: no such set, a damaged one, or a stale one: made with other graphs, rows or weights than the bundle's.
    """
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        raise CalibrationError(
            f"{folder} has no {CALIBRATION_FILE}; expected a calibration set. Make one with: hero-export calibrate"
        )
    try:
        record = CalibrationRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path} cannot be read ({error}). Make the calibration set again.") from error
    if record.format_version != FORMAT_VERSION:
        raise CalibrationError(
            f"{path} has format version {record.format_version}; this version reads {FORMAT_VERSION}. Make the set again."
        )
    _check_fresh(folder, record, manifest)
    for graph, part in record.graphs.items():
        _check_rows(folder, graph, part, manifest)
    return CalibrationSet(folder, record)


def _check_fresh(folder: Path, record: CalibrationRecord, manifest: Manifest) -> None:
    """Refuse a set of another bundle."""
    facts = [
        ("the fingerprint", record.fingerprint[:12], manifest.fingerprint[:12]),
        ("the task", record.task, manifest.task),
        ("rows of", str(record.geometry), str(manifest.geometry)),
    ]
    for graph, part in record.graphs.items():
        spec = manifest.graphs.get(graph)
        sha256 = "none" if spec is None else manifest.files[spec.file].sha256
        facts.append((f"graph '{graph}' with the sha256", part.graph[:12], sha256[:12]))
    for what, found, expected in facts:
        if found != expected:
            raise CalibrationError(
                f"Stale calibration: {folder} was made with {what} {found}, and the bundle has {expected}. "
                "Its ranges are those of other graphs; make it again from this bundle with: hero-export calibrate"
            )


def _check_rows(folder: Path, graph: str, part: CalibratedGraph, manifest: Manifest) -> None:
    path = folder / part.file
    if Path(part.file).name != part.file or not path.is_file() or sha256_of(path) != part.sha256:
        raise CalibrationError(
            f"{path} is not the file that the calibration set was made with. Copy the set again, or make it again."
        )
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise CalibrationError(f"{path} cannot be read ({error}). Make the calibration set again.") from error
    inputs = manifest.graphs[graph].inputs
    problems = [f"{name} is not there" for name in sorted({one.name for one in inputs} - arrays.keys())]
    problems += [
        f"{tensor.name} is {problem}"
        for tensor in inputs
        if tensor.name in arrays and (problem := mismatch(tensor, arrays[tensor.name])) is not None
    ]
    if problems:
        raise CalibrationError(f"{path} has no inputs of graph '{graph}': {'; '.join(problems)}. Make the set again.")


def write_calibration(
    out: Path,
    rows: dict[str, Arrays],
    manifest: Manifest,
    *,
    data: Path,
    videos: int,
    seed: int,
    script: str,
    force: bool = False,
) -> CalibrationRecord:
    """Write a calibration set; it appears when it is whole.

    Args:
        out: the folder.
        rows: inputs of graphs, (rows, ...) by name, as the bundle's graphs take them.
        manifest: of the bundle.
        data: annotation file of the training split.
        videos: how many of its videos were read.
        seed: of the choice.
        script: text of ``reproduce.sh``.
        force: replace a calibration set that is there.

    Raises:
        CalibrationError: ``out`` is taken, or cannot be written.
    """
    with staged(out, check=lambda: check_place(out, force=force), error=CalibrationError) as folder:
        graphs = {}
        for graph, arrays in rows.items():
            name = f"{graph}.safetensors"
            save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, folder / name)
            spec = manifest.graphs[graph]
            graphs[graph] = CalibratedGraph(
                graph=manifest.files[spec.file].sha256,
                file=name,
                sha256=sha256_of(folder / name),
                rows=len(next(iter(arrays.values()))),
            )
        record = CalibrationRecord(
            fingerprint=manifest.fingerprint,
            task=manifest.task,
            geometry=manifest.geometry,
            data=sha256_of(data),
            videos=videos,
            seed=seed,
            graphs=graphs,
            tools=tool_versions(),
        )
        (folder / CALIBRATION_FILE).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / SCRIPT_FILE).write_text(script, encoding="utf-8")
    return record


def check_place(out: Path, *, force: bool) -> None:
    """Refuse a place that holds something which must not be lost.

    Raises:
        CalibrationError: ``out`` is neither new nor empty, nor, with ``force``, a calibration set.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / CALIBRATION_FILE).is_file():
        raise CalibrationError(
            f"{out} exists and is no calibration set; expected a new folder, an empty one or a set to replace. "
            "Choose another --out, or remove it yourself."
        )
    if not force:
        raise CalibrationError(f"{out} is already a calibration set. Choose another --out, or replace it with --force.")
