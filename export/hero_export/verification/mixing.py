"""``hero-export mix``: a variant with those layers in float32 without which its task loses more than a budget."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import get_args

import onnx_ir

from hero_export.bundles.variants import amend
from hero_export.errors import BudgetError
from hero_export.onnx.operators import ATTENTION
from hero_export.precision.calibration import CalibrationSet, read_calibration
from hero_export.precision.layers import layer_of
from hero_export.precision.making import HEADS, Precision, add_precisions
from hero_export.precision.search import MOST_TRIALS, Mixable, MixedPrecision, Trial, rank_bundle, search_layers
from hero_export.stage_costs import StageClock
from hero_export.tolerances import tolerance_of
from hero_export.verification.metric import Make, TaskMetric
from hero_export.verification.model import bundle_limits, load_bundle_model
from hero_export.verification.replay import torch_threads
from hero_export.verification.task import load_split
from hero_sdk.engines.local import LocalEngine
from hero_sdk.errors import InputError
from hero_sdk.hub import Stage
from hero_sdk.manifest import FRAME_GRAPH, STEP_GRAPH, Manifest, read_bundle
from hero_sdk.signature import PublicKeys
from hero_sdk.variants import ONNXRUNTIME, OPENVINO
from hero_train.run_config import BaseRunConfig, Split

SEARCH_REPORT = "search.json"


def mix_precision(
    bundle: Path,
    checkpoint: str | Path,
    config: BaseRunConfig,
    calibration: Path,
    *,
    engine: str = ONNXRUNTIME,
    precision: Mixable = "int8",
    budget: float | None = None,
    split: Split = "validation",
    sample: int | None = None,
    trials: int = MOST_TRIALS,
    threads: int = 1,
    require_signature: PublicKeys | None = None,
    on_stage: Stage | None = None,
) -> MixedPrecision:
    """Search for the layers to keep, and make the variant with them. How the search went is kept in the bundle's reports.

    Layers are ranked once, by what rounding them does in onnxruntime: that is a property of the model more than of the engine. In
    OpenVINO's half precisions whole graphs are kept, since it computes each in one.

    Args:
        bundle: the folder, which is amended.
        checkpoint: that it was made from.
        config: of the run that trained the model.
        calibration: of the bundle.
        engine: onnxruntime or openvino.
        precision: of the variant.
        budget: points that each metric may lose, as far as the split can tell (see ``TaskMetric``); None takes that of the
            precision, as ``verify`` does.
        split: that candidates are judged on. Not the test split, so that what is reported there was not chosen by it.
        sample: annotations at most, evenly over the split; None takes all.
        trials: candidates at most.
        threads: of the engine and of PyTorch.
        require_signature: public keys of which one must have signed the bundle; None asks for no signature.
        on_stage: told about each stage as it begins.

    Raises:
        BudgetError: no candidate keeps the budget; the bundle is left as it was.
        CalibrationError, PrecisionError: no calibration set of this bundle, or nothing to round.
        BundleError, FingerprintError, DataError, CheckpointError, ExportError: as for ``verify_bundle``.
    """
    begin = StageClock(on_stage)
    begin("Reading the bundle and the checkpoint")
    manifest = read_bundle(bundle, require_signature=require_signature)
    make = maker(bundle, calibration, engine, precision)
    budget = tolerance_of(precision).budget if budget is None else budget
    load_bundle_model(bundle, manifest, checkpoint)
    rows = read_calibration(calibration, manifest)
    with torch_threads(threads), LocalEngine(bundle, threads=threads) as base:
        limit = bundle_limits(manifest)["caption_tokens"]
        data, _ = load_split(config, Path(checkpoint), base, split=split, most=sample, limit=limit)
        begin("Ranking the layers by what rounding them does")
        ranking = rank(bundle, manifest, engine, precision, rows)
        metric = TaskMetric(data, make, threads)

        def measured(kept: frozenset[str]) -> float:
            begin(f"Judging {precision} with {len(kept)} of {len(ranking)} {unit_of(engine, precision)} in fp32")
            return metric(kept)

        found = search_layers(measured, ranking, baseline=0.0, budget=budget, most_trials=trials)
    if not found.reached:
        raise BudgetError(
            f"Of no candidate in {precision} the {split} split can tell that it loses at most {budget:g} points, in "
            f"{len(found.trail)} trials; the best loses up to {-found.metric:.2f} (95 %) with {len(found.kept)} of {len(ranking)} "
            f"{unit_of(engine, precision)} in fp32. Nothing was changed. Allow more --trials, judge on a larger --sample or "
            f"--split, calibrate on more rows, or state another --budget. Tried: {_trail(found, ranking)}."
        )
    begin(f"Making {precision} with {len(found.kept)} {unit_of(engine, precision)} in fp32")
    name = make(bundle, found.kept)
    with amend(bundle) as amendment:
        target = amendment.reports(name) / SEARCH_REPORT
        target.unlink(missing_ok=True)
        target.write_text(json.dumps(dataclasses.asdict(found), indent=2) + "\n", encoding="utf-8")
    begin.costs()
    return found


def rank(
    bundle: Path, manifest: Manifest, engine: str, precision: Mixable, calibration: CalibrationSet
) -> tuple[str, ...]:
    """What may be kept in float32, the most sensitive first, as ``--keep`` takes it.

    OpenVINO's int8 rounds the scores of attentions too, and onnxruntime's does not: these come last, each with its own layers.
    """
    # onnxruntime has no kernels for bf16 on a CPU; layers that suffer from it are those that suffer from fp16.
    ranked = rank_bundle(bundle, manifest, "fp16" if precision == "bf16" else precision, calibration)
    if unit_of(engine, precision) == LAYERS:
        scores = attentions_of(bundle, manifest) if engine == OPENVINO else ()
        return (*(one.layer for one in ranked), *scores)
    graphs = dict.fromkeys(one.layer.partition(":")[0] for one in ranked)
    return tuple(graph for graph in graphs if graph != FRAME_GRAPH)


def attentions_of(bundle: Path, manifest: Manifest) -> tuple[str, ...]:
    """The attentions of the graphs that are quantised, as ``--keep`` takes them.

    Without those of a caption's step, whose one query stays in float32 anyway.
    """
    return tuple(
        f"{graph}:{layer_of(node)}"
        for graph, spec in manifest.graphs.items()
        if graph not in (FRAME_GRAPH, STEP_GRAPH, *HEADS)
        for node in onnx_ir.load(bundle / spec.file).graph
        if node.op_type == ATTENTION
    )


def unit_of(engine: str, precision: Mixable) -> str:
    """What is kept in float32: layers or graphs."""
    return GRAPHS if engine == OPENVINO and precision != "int8" else LAYERS


LAYERS, GRAPHS = "layers", "graphs"


NOT_JUDGED = (ONNXRUNTIME, "bf16")
"""Engine and precision of candidates that no CPU runs."""


def can_mix(engine: str, precision: str) -> bool:
    """Whether a search makes a variant of this engine and precision better."""
    return engine in MADE_BY and precision in get_args(Mixable) and (engine, precision) != NOT_JUDGED


def maker(bundle: Path, calibration: Path, engine: str, precision: Mixable) -> Make:
    """What makes a variant of a bundle with some layers in float32.

    Raises:
        InputError: an engine whose graphs cannot be mixed, or that does not run them here.
    """
    if engine not in MADE_BY:
        raise InputError(f"The engine is {engine!r}; expected one of {', '.join(MADE_BY)}, whose graphs can be mixed.")
    if (engine, precision) == NOT_JUDGED:
        raise InputError(
            "onnxruntime does not run bf16 on a CPU, so candidates cannot be judged here; expected fp16 or int8, or "
            "--engine openvino."
        )

    def make(out: Path, kept: Collection[str]) -> str:
        MADE_BY[engine](bundle, None if out == bundle else out, calibration, precision, sorted(kept))
        return f"{engine}-{precision}"

    return make


def _trail(found: MixedPrecision, ranking: Sequence[str]) -> str:
    """The candidates of a search, each as what was kept and what it may lose; a beginning of the ranking goes by its length."""

    def kept(trial: Trial) -> str:
        if trial.kept == tuple(ranking[: len(trial.kept)]):
            return {0: "none", 1: "the most sensitive"}.get(len(trial.kept), f"the {len(trial.kept)} most sensitive")
        return ", ".join(trial.kept)

    return "; ".join(
        f"{kept(trial)}: {'not made' if trial.metric is None else f'up to {-trial.metric:.2f}'}"
        for trial in found.trail
    )


def _make_for_onnxruntime(
    bundle: Path, out: Path | None, calibration: Path, precision: Precision, kept: list[str]
) -> None:
    add_precisions(bundle, (precision,), out=out, calibration=calibration, keep=kept)


def _make_for_openvino(
    bundle: Path, out: Path | None, calibration: Path, precision: Precision, kept: list[str]
) -> None:
    # Not at the top: it needs a package of its own.
    export = importlib.import_module("hero_export.openvino.export")
    # Layers are named by their modules alone, which differ from graph to graph.
    parts = tuple(dict.fromkeys(part.rpartition(":")[2] for part in kept))
    export.add_openvino(export.Request(bundle, (precision,), calibration=calibration, keep=parts), out=out)


MADE_BY: dict[str, Callable[[Path, Path | None, Path, Precision, list[str]], None]] = {
    ONNXRUNTIME: _make_for_onnxruntime,
    OPENVINO: _make_for_openvino,
}
"""What makes a variant with layers to keep, by engine."""
