"""The graphs of a bundle as TensorRT is to build them: in the precision that was asked for, with what it needs changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, cast

import onnx_ir

from hero_export.errors import CalibrationError, PrecisionError
from hero_export.precision.calibration import CalibrationSet
from hero_export.precision.cast import cast_graph, check_file, save_model
from hero_export.precision.layers import layer_of
from hero_export.precision.making import COMPARED_ROWS, HEADS, LARGEST_MEAN_ERROR
from hero_export.precision.readback import read_precision
from hero_export.precision.running import output_errors, run_graph
from hero_export.tensorrt.adapt import adapt_graph, is_standard
from hero_export.tensorrt.quantise import EightBits, quantise_graph, weighted_products, wide_products
from hero_export.tensorrt.ranges import largest_values
from hero_sdk.manifest import Manifest
from hero_sdk.variants import ONNXRUNTIME

Precision = Literal["fp16", "bf16", "fp32", "int8", "fp8"]

PRECISIONS: tuple[Precision, ...] = ("fp16", "bf16", "fp32", "int8", "fp8")
EIGHT_BITS: tuple[EightBits, ...] = ("int8", "fp8")


@dataclass(frozen=True)
class Prepared:
    """A graph that is ready to be built.

    Attributes:
        path: of the ONNX file.
        origin: the file of the bundle that it was made from, relative to the bundle.
        precision: of its matrix products; of a graph in which nothing can be quantised that of the others' remaining products.
        excused: layers that are in a higher precision on purpose.
        errors: of a quantised graph, on rows of the calibration set in onnxruntime: the mean error of each output, as a share of
            its mean.
    """

    path: Path
    origin: str
    precision: Precision
    excused: tuple[str, ...] = ()
    errors: dict[str, float] = field(default_factory=dict)


def check_precisions(precisions: tuple[str, ...], calibration: object | None) -> tuple[Precision, ...]:
    """The precisions by their names.

    Raises:
        PrecisionError: one that there is not.
        CalibrationError: one that needs a calibration set, and there is none.
    """
    if unknown := [name for name in precisions if name not in PRECISIONS]:
        raise PrecisionError(
            f"There are no plans in {', '.join(unknown)}; expected some of {', '.join(PRECISIONS)}. Change --precision."
        )
    if calibration is None and (eight := [name for name in precisions if name in EIGHT_BITS]):
        raise CalibrationError(
            f"Plans in {', '.join(eight)} need the ranges of activations; expected a calibration set of this bundle. Make one with "
            "`hero-export calibrate`, and name it with --calibration."
        )
    return cast("tuple[Precision, ...]", precisions)


def prepare_graph(
    bundle: Path,
    manifest: Manifest,
    graph: str,
    precision: Precision,
    folder: Path,
    *,
    calibration: CalibrationSet | None = None,
) -> Prepared:
    """Write a graph as it is to be built.

    For half precision the bundle's variant for onnxruntime is taken where there is one with the standard's operators, since it may
    keep some layers in a higher precision for a reason; else the bundle's own graph is cast, and for eight bits quantised then.

    Args:
        bundle: the folder.
        manifest: of the bundle.
        graph: name in the manifest.
        precision: of its matrix products.
        folder: to write to.
        calibration: of the bundle, for eight bits; heads, and graphs that it has no rows of, stay in fp16.

    Raises:
        PrecisionError: the graph cannot be had in this precision, or computes something else in it.
        BuildError: the graph has operators that TensorRT does not know.
    """
    path = folder / f"{graph}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    excused: tuple[str, ...] = ()
    origin = _half_variant(bundle, manifest, graph, precision)
    if origin is not None:
        model = onnx_ir.load(bundle / origin)
        adapt_graph(model, graph)
        products = read_precision(bundle / origin).products
        excused = tuple(sorted({product.layer for product in products if product.precision != precision}))
    else:
        origin = manifest.graphs[graph].file
        model = onnx_ir.load(bundle / origin)
        adapt_graph(model, graph)
        if precision != "fp32":
            cast_graph(model, "bf16" if precision == "bf16" else "fp16", graph=graph)
        if precision == "int8" or precision == "fp8":
            precision, excused = _quantise(model, bundle / origin, graph, precision, calibration)
    save_model(model, path, beside=(bundle / origin).with_name(f"{Path(origin).name}.data").exists())
    check_file(path, graph)
    errors = {}
    if precision in EIGHT_BITS and calibration is not None:
        errors = _compare(bundle, manifest, graph, path, precision, calibration)
    return Prepared(path, origin, precision, excused, errors)


def _half_variant(bundle: Path, manifest: Manifest, graph: str, precision: Precision) -> str | None:
    """The file of a graph that the bundle has in half precision for onnxruntime, if TensorRT knows its operators."""
    variant = manifest.variants.get(f"{ONNXRUNTIME}-{precision}")
    if precision not in ("fp16", "bf16") or variant is None or graph not in variant.graphs:
        return None
    file = variant.graphs[graph].file
    return file if is_standard(onnx_ir.load(bundle / file)) else None


def _compare(
    bundle: Path, manifest: Manifest, graph: str, path: Path, precision: str, calibration: CalibrationSet
) -> dict[str, float]:
    """The errors of a quantised graph beside the bundle's own; one beyond all use is refused, for no plan could be better."""
    spec = manifest.graphs[graph]
    rows = list(islice(calibration.rows(graph), COMPARED_ROWS))
    errors = output_errors(run_graph(bundle / spec.file, spec, rows), run_graph(path, spec, rows), rows)
    for error in errors:
        # Written so that a NaN fails: every comparison with it is false.
        if not error.mean <= LARGEST_MEAN_ERROR:
            raise PrecisionError(
                f"Output '{error.output}' of graph '{graph}' in {precision} differs from fp32 by {error.mean:.2g} of its mean; "
                f"expected at most {LARGEST_MEAN_ERROR}. Calibrate with rows that are like those of use, or choose fp16."
            )
    return {error.output: error.mean for error in errors}


def _quantise(
    model: onnx_ir.Model, source: Path, graph: str, precision: EightBits, calibration: CalibrationSet | None
) -> tuple[Precision, tuple[str, ...]]:
    """Quantise a graph in fp16; returns the precision that it has then, and the layers that stay in fp16."""
    assert calibration is not None
    wide = [] if graph in HEADS else wide_products(model)
    # What was cast has the name that it had, with a suffix where it was cast on the way to the product.
    names = {value.name: value.name.removesuffix(".fp16") for node in wide if (value := node.inputs[0]) and value.name}
    found = largest_values(source, names.values(), calibration.rows(graph)) if wide else {}
    if not found:
        return "fp16", ()
    narrow = tuple(sorted({layer_of(node) for node in weighted_products(model) if node not in wide}))
    quantise_graph(model, precision, {name: found[origin] for name, origin in names.items()}, graph)
    return precision, narrow
