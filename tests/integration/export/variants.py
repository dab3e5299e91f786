"""Variants that the tests of verification put into a bundle: honest ones, and ones that are not what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper

from hero_export.bundles.variants import amend
from hero_export.onnx.fusion import model_nodes, operator_counts, read_model
from hero_export.onnx.operators import fused_counts
from hero_export.precision.cast import HalfPrecision, cast_file
from hero_export.precision.readback import read_precision
from hero_sdk.variants import Variant, VariantGraph


def add_variant(
    bundle: Path,
    precision: str,
    write: Callable[[Path, Path], object],
    graphs: tuple[str, ...] = ("cross_modal", "temporal", "query"),
    products: Mapping[str, int] | None = None,
    kind: str | None = None,
) -> str:
    """Add a variant for onnxruntime whose files ``write`` makes, from the bundle's own file to the new one.

    ``products`` is what the manifest says of each graph; None says what is read back. ``kind`` is what it calls each graph; None
    calls it what the variant is called.
    """
    with amend(bundle) as amendment:
        name = f"onnxruntime-{precision}"
        folder = amendment.place(name)
        made = {}
        for graph in graphs:
            path = folder / f"{graph}.onnx"
            write(bundle / "graphs" / path.name, path)
            counts = read_precision(path).counts() if products is None else dict(products)
            fused = fused_counts(operator_counts(model_nodes(read_model(path))))
            made[graph] = VariantGraph(f"variants/{name}/{path.name}", kind or precision, counts, fused)
        amendment.add(Variant("onnxruntime", precision, made))
    return name


def add_half(bundle: Path, precision: HalfPrecision = "fp16") -> str:
    """An honest one, in half precision."""
    return add_variant(bundle, precision, lambda source, target: cast_file(source, target, precision))


def add_plan(bundle: Path) -> str:
    """A plan that no machine without a GPU can run, and that is none."""
    with amend(bundle) as amendment:
        source = amendment.manifest.files["graphs/query.onnx"].sha256
        graph = VariantGraph("variants/tensorrt_rtx-fp16-sm86/query.plan", "fp16", {"fp16": 3}, source=source)
        variant = Variant(
            "tensorrt_rtx",
            "fp16",
            {"query": graph},
            target="sm86",
            builder="tensorrt_rtx 1.7.1.116",
        )
        (amendment.place(variant.name) / "query.plan").write_bytes(b"ftrt" + bytes(60))
        amendment.add(variant)
    return variant.name


def scale_weight(path: Path, factor: float, name: str) -> None:
    """Multiply the first weight whose name ends so; what else the graph holds stays."""
    model = onnx.load(str(path))
    weight = next(one for one in model.graph.initializer if one.name.endswith(name))
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16)
    assert weight.data_type in kinds
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), weight.name))
    onnx.save(model, str(path))
