"""The graphs of a bundle as TensorRT is to build them: in the precision that was asked for, with what it needs changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir

from hero_export.errors import PrecisionError
from hero_export.precision.cast import cast_graph, check_file, save_model
from hero_export.precision.readback import read_precision
from hero_export.tensorrt.adapt import adapt_graph, is_standard
from hero_sdk.manifest import Manifest
from hero_sdk.variants import ONNXRUNTIME

PRECISIONS = ("fp16", "bf16", "fp32")


@dataclass(frozen=True)
class Prepared:
    """A graph that is ready to be built.

    Attributes:
        path: of the ONNX file.
        origin: the file of the bundle that it was made from, relative to the bundle.
        excused: layers that its origin has in a higher precision.
    """

    path: Path
    origin: str
    excused: tuple[str, ...] = ()


def prepare_graph(bundle: Path, manifest: Manifest, graph: str, precision: str, folder: Path) -> Prepared:
    """Write a graph as it is to be built.

    The bundle's variant of this precision for onnxruntime is taken where there is one with the standard's operators, since it may
    keep some layers in a higher precision for a reason; else the bundle's own graph is cast.

    Args:
        bundle: the folder.
        manifest: of the bundle.
        graph: name in the manifest.
        precision: one of ``PRECISIONS``.
        folder: to write to.

    Raises:
        PrecisionError: the graph cannot be had in this precision.
        BuildError: the graph has operators that TensorRT does not know.
    """
    if precision not in PRECISIONS:
        raise PrecisionError(
            f"There are no plans in {precision!r}; expected one of {', '.join(PRECISIONS)}. Change --precision."
        )
    path = folder / f"{graph}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    origin = manifest.graphs[graph].file
    excused: tuple[str, ...] = ()
    model = None
    variant = manifest.variants.get(f"{ONNXRUNTIME}-{precision}")
    if variant is not None and graph in variant.graphs:
        file = variant.graphs[graph].file
        cast = onnx_ir.load(bundle / file)
        if is_standard(cast):
            model, origin = cast, file
            found = read_precision(bundle / file).products
            excused = tuple(sorted({product.layer for product in found if product.precision != precision}))
    if model is None:
        model = onnx_ir.load(bundle / origin)
        if precision != "fp32" and is_standard(model):
            cast_graph(model, precision, graph=graph)
    adapt_graph(model, graph)
    save_model(model, path, beside=(bundle / origin).with_name(f"{Path(origin).name}.data").exists())
    check_file(path, graph)
    return Prepared(path, origin, excused)
