"""Variants of a bundle for onnxruntime in other precisions: made, read back, compared with fp32, and only then entered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import onnx_ir

from hero_export.bundles.variants import REPORTS_FOLDER, Amendment, amend
from hero_export.errors import CalibrationError, FusionError, PrecisionError
from hero_export.onnx.fusion import graph_bytes, model_nodes, operator_counts, read_model
from hero_export.onnx.operators import fused_counts
from hero_export.precision.calibration import CalibrationSet, read_calibration
from hero_export.precision.cast import HALVES, HalfPrecision, cast_file
from hero_export.precision.layers import is_of, is_product, layer_of, unknown_layer
from hero_export.precision.quantise import Quantisation, can_be_quantised, quantise_file
from hero_export.precision.readback import Readback, read_precision, require_precision
from hero_export.precision.report import PRECISION_JSON, GraphPrecision, OutputError, PrecisionReport
from hero_export.precision.running import executed_precision, output_errors, run_graph
from hero_export.report import tool_versions
from hero_export.reproduce import SCRIPT_FILE, Variable, Word, reproduce_script
from hero_sdk.engines.batching import Arrays
from hero_sdk.errors import EngineError
from hero_sdk.hub import Stage
from hero_sdk.manifest import ANSWER_GRAPH, MOMENT_GRAPH, STATEMENT_GRAPH, GraphSpec, Manifest
from hero_sdk.signature import PublicKeys
from hero_sdk.variants import ONNXRUNTIME, VARIANTS_FOLDER, Variant, VariantGraph

Precision = Literal["fp16", "bf16", "int8", "int8-dynamic", "int8-weights", "int4-weights"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

HEADS = (MOMENT_GRAPH, ANSWER_GRAPH, STATEMENT_GRAPH)
"""Graphs that few bits are not for: a hundredth of the multiply-adds, and the last step to every logit."""

COMPARED_ROWS = 16
"""Rows on which a variant's graph is compared with the fp32 one."""

LARGEST_MEAN_ERROR = 0.25
"""As a share of the mean absolute value; beyond it a graph computes something else. Seen on a trained model: 0.0005 in fp16, 0.015
in int8, 0.07 in int4-weights. Whether a precision is good enough its task says, not this."""


def add_precisions(
    bundle: Path,
    precisions: Sequence[Precision],
    *,
    out: Path | None = None,
    force: bool = False,
    calibration: Path | None = None,
    keep: Collection[str] = (),
    require_signature: PublicKeys | None = None,
    on_stage: Stage = lambda stage: None,
) -> list[PrecisionReport]:
    """Add a variant per precision to a bundle: all of them, or, with an error, none.

    Args:
        bundle: the folder.
        precisions: each becomes the variant ``onnxruntime-<precision>``; one that is there is replaced.
        out: where the amended bundle goes; None amends the bundle itself.
        force: replace another bundle that is at ``out``.
        calibration: a calibration set of this bundle, which int8 needs; the others are compared on its rows.
        keep: layers that stay in float32, see ``layers.select``; ``temporal:layers.0`` means those of one graph.
        require_signature: public keys of which one must have signed the bundle.
        on_stage: told about each stage as it begins.

    Raises:
        PrecisionError: a graph cannot be had in a precision, is not in it when it is read back, or computes something else.
        CalibrationError: no calibration set where one is needed, a stale or a damaged one.
        FusionError: a graph lost a fused operator.
        ExportError: a layer to keep that no graph has, and as ``amend``.
        BundleError, SignatureError: as ``amend``.
    """
    with amend(bundle, out, force=force, require_signature=require_signature) as amendment:
        plan = plan_precisions(amendment.folder, amendment.manifest, precisions, calibration=calibration, keep=keep)
        return [_add(amendment, precision, plan, on_stage) for precision in dict.fromkeys(precisions)]


@dataclass(frozen=True)
class PrecisionPlan:
    """What goes into variants, checked.

    Attributes:
        rows: the calibration set, or None.
        keep: layers to keep by graph.
        graphs: those that each precision is for, and why it is not for the others.
    """

    rows: CalibrationSet | None
    keep: dict[str, tuple[str, ...]]
    graphs: dict[str, dict[str, str | None]]


def plan_precisions(
    bundle: Path,
    manifest: Manifest,
    precisions: Collection[Precision],
    *,
    calibration: Path | None,
    keep: Collection[str],
) -> PrecisionPlan:
    """Check what variants are to be made from; arguments and errors as for ``add_precisions``."""
    require_calibration(precisions, calibration)
    rows = None if calibration is None else read_calibration(calibration, manifest)
    kept = kept_by_graph(bundle, manifest, keep)
    graphs: dict[str, dict[str, str | None]] = {
        precision: {
            name: reason_to_leave(bundle / spec.file, name, precision, rows, kept[name])
            for name, spec in manifest.graphs.items()
        }
        for precision in precisions
    }
    return PrecisionPlan(rows, kept, graphs)


def require_calibration(precisions: Collection[str], calibration: Path | None) -> None:
    """Refuse int8 without a calibration set.

    Raises:
        CalibrationError: says how to get one.
    """
    if calibration is None and "int8" in precisions:
        raise CalibrationError(
            "int8 rounds activations by ranges that real inputs have shown, and there is no calibration set; expected "
            "--calibration. Make one with `hero-export calibrate`, or choose int8-dynamic, which needs none."
        )


def planned_files(manifest: Manifest, plan: PrecisionPlan) -> dict[str, int | None]:
    """The files that variants would add to a bundle, with their sizes where those can be told."""
    files: dict[str, int | None] = {}
    for precision, reasons in plan.graphs.items():
        name = f"{ONNXRUNTIME}-{precision}"
        for graph, spec in manifest.graphs.items():
            if reasons[graph] is None:
                # Half as large; in eight bits the tables of embeddings stay as they are.
                size = manifest.files[spec.file].bytes // 2 if precision in HALVES else None
                files[f"{VARIANTS_FOLDER}/{name}/{graph}.onnx"] = size
        for report in (PRECISION_JSON, SCRIPT_FILE):
            files[f"{REPORTS_FOLDER}/{VARIANTS_FOLDER}/{name}/{report}"] = None
    return files


def kept_by_graph(bundle: Path, manifest: Manifest, keep: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The layers that each graph keeps, of those that are named for all graphs or, as GRAPH:LAYER, for one. GRAPH means all of it.

    Raises:
        PrecisionError: a layer that no graph has.
    """
    if not keep:
        return dict.fromkeys(manifest.graphs, ())
    nodes = {name: list(onnx_ir.load(bundle / spec.file).graph) for name, spec in manifest.graphs.items()}
    kept: dict[str, list[str]] = {name: [] for name in nodes}
    for word in keep:
        if word in nodes:
            kept[word] += sorted({layer_of(node) for node in nodes[word] if is_product(node)})
            continue
        graph, colon, layer = word.rpartition(":")
        found = [
            name for name in ([graph] if colon else nodes) if any(is_of(node, layer) for node in nodes.get(name, ()))
        ]
        if not found:
            raise unknown_layer(word, graph or "any", [node for part in nodes.values() for node in part])
        for name in found:
            kept[name].append(layer)
    return {name: tuple(layers) for name, layers in kept.items()}


def reason_to_leave(
    path: Path, graph: str, precision: Precision, rows: CalibrationSet | None, keep: Collection[str] = ()
) -> str | None:
    """Why a graph stays in float32 in a variant; None where it does not.

    Args:
        path: of its ONNX file.
        graph: its name.
        precision: of the variant.
        rows: what there is to calibrate with.
        keep: its layers that stay in float32 anyway.
    """
    if precision in HALVES:
        return None
    if graph in HEADS:
        return "it is a head, whose time is nothing and whose rounding would show in every logit"
    if not can_be_quantised(path, cast("Quantisation", precision)):
        return f"it has no matrix product with a stored weight that {precision} is for"
    if not can_be_quantised(path, cast("Quantisation", precision), keep):
        return "all of its layers are kept"
    if precision == "int8" and rows is not None and graph not in rows.record.graphs:
        return "the calibration set has no rows of it"
    return None


def _add(amendment: Amendment, precision: Precision, plan: PrecisionPlan, on_stage: Stage) -> PrecisionReport:
    name = f"{ONNXRUNTIME}-{precision}"
    place = amendment.place(name)
    manifest, reasons = amendment.manifest, plan.graphs[precision]
    made, graphs = [], {}
    for graph, spec in manifest.graphs.items():
        if reasons[graph] is not None:
            continue
        on_stage(f"{graph} in {precision}")
        target = place / f"{graph}.onnx"
        found, one = _make(amendment.folder / spec.file, target, graph, spec, precision, plan)
        made.append(one)
        file = target.relative_to(amendment.folder).as_posix()
        graphs[graph] = VariantGraph(file, found.precision, found.counts(), spec.fused)
    if not graphs:
        raise PrecisionError(
            f"None of the bundle's graphs can be in {precision}: {reasons}. Choose another precision, or keep fewer layers."
        )
    amendment.add(Variant(ONNXRUNTIME, precision, graphs))
    report = PrecisionReport(
        variant=name,
        precision=precision,
        inputs="noise" if plan.rows is None else "calibration rows",
        graphs=tuple(made),
        left={graph: reason for graph, reason in reasons.items() if reason is not None},
        tools=tool_versions(),
    )
    (amendment.reports(name) / PRECISION_JSON).write_text(report.to_json(), encoding="utf-8")
    (amendment.reports(name) / SCRIPT_FILE).write_text(_script(manifest, precision, plan), encoding="utf-8")
    return report


def _make(
    source: Path, target: Path, graph: str, spec: GraphSpec, precision: Precision, plan: PrecisionPlan
) -> tuple[Readback, GraphPrecision]:
    """One graph: written, read back, compared."""
    keep, rows = plan.keep[graph], plan.rows
    if precision in HALVES:
        cast_file(source, target, cast("HalfPrecision", precision), keep=keep, graph=graph)
        nodes = [node for node in onnx_ir.load(source).graph if is_product(node)]
        kept = frozenset(layer_of(node) for node in nodes if any(is_of(node, layer) for layer in keep))
    else:
        kept = quantise_file(
            source,
            target,
            cast("Quantisation", precision),
            rows=() if rows is None else rows.rows(graph),
            keep=keep,
            graph=graph,
        )
    model = read_model(target)
    fused = fused_counts(operator_counts(model_nodes(model)))
    if fused != spec.fused:
        raise FusionError(
            f"Graph '{graph}' has the fused operators {fused} in {precision}, and {spec.fused} in fp32; expected the same. "
            "Make it with the versions that constraints.txt names."
        )
    found = read_precision(target)
    require_precision(found, precision, graph, excused=kept)
    compared = _compared_rows(spec, graph, rows)
    executed, obstacle = _executed(target)
    return found, GraphPrecision(
        graph=graph,
        bytes=graph_bytes(target, model),
        precision=found.precision,
        products=found.counts(),
        shares=found.shares(),
        kept=tuple(sorted(kept)),
        errors=_errors(source, target, graph, spec, precision, compared),
        rows=len(compared),
        executed=executed,
        obstacle=obstacle,
    )


def _executed(path: Path) -> tuple[dict[str, int], str]:
    try:
        return executed_precision(path).counts(), ""
    except EngineError as error:
        return {}, str(error)


def _compared_rows(spec: GraphSpec, graph: str, rows: CalibrationSet | None) -> list[Arrays]:
    if rows is not None and graph in rows.record.graphs:
        return [row for _, row in zip(range(COMPARED_ROWS), rows.rows(graph), strict=False)]
    rng = np.random.default_rng(0)
    noise: Arrays = {}
    for tensor in spec.inputs:
        shape = (1, *tensor.shape[1:])
        if tensor.dtype == "float32":
            noise[tensor.name] = rng.standard_normal(shape, dtype=np.float32)
        elif tensor.dtype == "uint8":
            noise[tensor.name] = rng.integers(0, 256, shape, dtype=np.uint8)
        else:  # ids, of which 0 is valid everywhere; masks, of which something must be seen
            noise[tensor.name] = np.full(shape, tensor.dtype == "bool", dtype=tensor.dtype)
    return [noise]


def _errors(
    source: Path, target: Path, graph: str, spec: GraphSpec, precision: str, rows: list[Arrays]
) -> tuple[OutputError, ...]:
    errors = output_errors(run_graph(source, spec, rows), run_graph(target, spec, rows), rows)
    for error in errors:
        # Written so that a NaN fails: every comparison with it is false.
        if not error.mean <= LARGEST_MEAN_ERROR:
            raise PrecisionError(
                f"Output '{error.output}' of graph '{graph}' in {precision} differs from fp32 by {error.mean:.2g} of its mean; "
                f"expected at most {LARGEST_MEAN_ERROR}. Values went beyond the type's range, or rows that are not like those of "
                "the calibration set came by. Keep layers in fp32 with --keep, or choose another precision."
            )
    return errors


def _script(manifest: Manifest, precision: str, plan: PrecisionPlan) -> str:
    """``reproduce.sh`` of a variant."""
    bundle, variables = Variable("BUNDLE"), {"BUNDLE": "the folder of the bundle", "OUT": "the folder to write it to"}
    command: list[Word] = ["hero-export", "onnx", bundle, "--out", Variable("OUT"), "--precision", precision]
    inputs = {Variable("BUNDLE", spec.file): manifest.files[spec.file].sha256 for spec in manifest.graphs.values()}
    if plan.rows is not None:
        command += ["--calibration", Variable("CALIBRATION")]
        variables["CALIBRATION"] = "the folder of the calibration set"
        for part in plan.rows.record.graphs.values():
            inputs[Variable("CALIBRATION", part.file)] = part.sha256
    for graph, layers in plan.keep.items():
        for layer in layers:
            command += ["--keep", f"{graph}:{layer}"]
    return reproduce_script(command, variables=variables, inputs=inputs, tools=tool_versions())
