"""``hero-export calibrate``: from a bundle and a run's configuration to a calibration set."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hero_export.dry_run import Plan, PlannedFile
from hero_export.errors import CalibrationError
from hero_export.precision.calibration import CALIBRATION_FILE, CalibrationRecord, check_place, write_calibration
from hero_export.precision.training_rows import check_task, record_rows
from hero_export.report import tool_versions
from hero_export.reproduce import SCRIPT_FILE, Variable, Word, reproduce_script
from hero_sdk.hub import Stage
from hero_sdk.manifest import FRAME_GRAPH, Manifest, read_bundle, sha256_of
from hero_sdk.signature import PublicKeys
from hero_train.run_config import FineTuningConfig, load_config


def calibrate_bundle(
    bundle: Path,
    run: Path,
    out: Path,
    *,
    rows: int,
    pictures: bool = False,
    seed: int = 0,
    threads: int | None = None,
    force: bool = False,
    require_signature: PublicKeys | None = None,
    on_stage: Stage = lambda stage: None,
) -> CalibrationRecord:
    """Write the calibration set of a bundle.

    Args:
        bundle: the folder.
        run: configuration of a run of the bundle's task.
        out: the set's folder.
        rows: inputs of each graph to keep.
        pictures: also frames of the videos, for the frame encoder's graph.
        seed: of the choice of videos and rows.
        threads: of the CPU.
        force: replace a calibration set that is at ``out``.
        require_signature: public keys of which one must have signed the bundle.
        on_stage: told about each stage as it begins.

    Raises:
        CalibrationError: ``out`` is taken, or the run is for another task.
        HeroError: the bundle, the configuration, an annotation or a video cannot be read.
    """
    manifest, config = _checked(bundle, run, out, force=force, require_signature=require_signature)
    with _no_warnings():
        found = record_rows(bundle, config, most=rows, seed=seed, pictures=pictures, threads=threads, on_stage=on_stage)
    on_stage("Writing the rows")
    options: list[Word] = ["--rows", rows, "--seed", seed, *(["--pictures"] if pictures else [])]
    return write_calibration(
        out,
        found.rows,
        manifest,
        data=config.data.train,
        videos=found.videos,
        seed=seed,
        script=_script(manifest, config.data.train, options),
        force=force,
    )


def plan_calibration(
    bundle: Path,
    run: Path,
    out: Path,
    *,
    rows: int,
    pictures: bool = False,
    force: bool = False,
    require_signature: PublicKeys | None = None,
) -> Plan:
    """What ``calibrate_bundle`` would write; arguments and errors are its own, but for those of running the graphs."""
    manifest, _ = _checked(bundle, run, out, force=force, require_signature=require_signature)
    files = []
    for graph, spec in manifest.graphs.items():
        if graph == FRAME_GRAPH and not pictures:
            continue
        row = sum(_bytes_of(tensor.dtype, tensor.shape[1:]) for tensor in spec.inputs)
        files.append(PlannedFile(f"{graph}.safetensors", rows * row))
    files += [PlannedFile(CALIBRATION_FILE), PlannedFile(SCRIPT_FILE)]
    return Plan(str(out), out.is_dir() and any(out.iterdir()), tuple(files))


def _bytes_of(dtype: str, shape: tuple[int, ...]) -> int:
    import math

    import numpy as np

    return math.prod(shape) * np.dtype(dtype).itemsize


def _checked(
    bundle: Path, run: Path, out: Path, *, force: bool, require_signature: PublicKeys | None
) -> tuple[Manifest, FineTuningConfig]:
    check_place(out, force=force)
    manifest = read_bundle(bundle, require_signature=require_signature)
    config = load_config(run)
    if not isinstance(config, FineTuningConfig):
        raise CalibrationError(
            f"{run} is a run of {config.task}, which has no annotations; expected one of a task. Name the configuration that the "
            "bundle's model was fine-tuned with."
        )
    check_task(config, manifest)
    return manifest, config


def _script(manifest: Manifest, annotations: Path, options: list[Word]) -> str:
    """``reproduce.sh`` of a set."""
    bundle, run = Variable("BUNDLE"), Variable("RUN")
    inputs = {Variable("BUNDLE", spec.file): manifest.files[spec.file].sha256 for spec in manifest.graphs.values()}
    inputs[Variable("ANNOTATIONS")] = sha256_of(annotations)
    return reproduce_script(
        ["hero-export", "calibrate", bundle, "--data", run, "--out", Variable("OUT"), *options],
        variables={
            "BUNDLE": "the folder of the bundle",
            "RUN": "the configuration of the run",
            "ANNOTATIONS": "the annotations of the training split that the run names",
            "OUT": "the folder to write the set to",
        },
        inputs=inputs,
        tools=tool_versions(),
    )


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Silence the warnings about texts that are cut: a training split has thousands of them, cut in use as well."""
    logger = logging.getLogger("hero_sdk")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
