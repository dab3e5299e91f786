"""Variants of a bundle: its graphs once more, for another engine or in another precision.

A bundle always holds its graphs as ONNX in float32. Beside them there may be variants, such as one in int8 for OpenVINO or the
plans of TensorRT for one kind of GPU. They take and give the same tensors, float32 outside whatever they are inside, so that any of
them can stand for another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hero_sdk.errors import BundleError, FingerprintError

PLAN_SUFFIX = ".plan"

ONNXRUNTIME, OPENVINO, TENSORRT, TENSORRT_RTX = "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"

ENGINE_SUFFIXES = {ONNXRUNTIME: ".onnx", OPENVINO: ".xml", TENSORRT: PLAN_SUFFIX, TENSORRT_RTX: PLAN_SUFFIX}
"""What the files of each engine's graphs are called; OpenVINO's have their weights in a ``.bin`` beside them."""

VARIANTS_FOLDER = "variants"


@dataclass(frozen=True)
class VariantGraph:
    """A graph of a variant.

    Attributes:
        file: path relative to the bundle.
        precision: of most matrix products, as read back from the file, such as "int8".
        products: how many matrix products there are per precision, as read back.
        fused: how many of each fused operator; empty where the file does not tell.
        source: sha256 of the bundle's own ONNX file that it was made from, for an engine's own format.
    """

    file: str
    precision: str
    products: dict[str, int] = field(default_factory=dict)
    fused: dict[str, int] = field(default_factory=dict)
    source: str | None = None


@dataclass(frozen=True)
class Variant:
    """The graphs of a bundle for one engine in one precision.

    Attributes:
        engine: what runs the files: onnxruntime, openvino, tensorrt or tensorrt_rtx.
        precision: that was asked for; layers may have been kept in a higher one.
        graphs: by name. A graph that is not among them runs as the bundle's own does.
        target: the kind of device that they were built for, such as "sm86"; None for any that the engine runs on.
        builder: what built a plan, with its version, which no other version of the engine can run.
    """

    engine: str
    precision: str
    graphs: dict[str, VariantGraph]
    target: str | None = None
    builder: str | None = None

    @property
    def files(self) -> list[str]:
        """The files that the engine reads: of each graph, and of OpenVINO's the weights beside it."""
        files = [graph.file for graph in self.graphs.values()]
        if self.engine == OPENVINO:
            files += [f"{file.removesuffix('.xml')}.bin" for file in files]
        return files

    @property
    def name(self) -> str:
        """What it is called in a bundle: engine, precision and target, joined by hyphens."""
        return "-".join(part for part in (self.engine, self.precision, self.target) if part)


def check_origins(variant: Variant, graphs: Mapping[str, str], where: str) -> None:
    """Refuse what was made from another graph than the bundle's, and a plan of which is not said for what it is and what built it.

    Args:
        variant: with graphs of the bundle.
        graphs: sha256 of the bundle's own ONNX files, by graph.
        where: the variant in words, for messages.

    Raises:
        BundleError: a plan without its source, target or builder.
        FingerprintError: a file whose source is another ONNX file.
    """
    for name, graph in variant.graphs.items():
        told = (graph.source, variant.target, variant.builder)
        if graph.file.endswith(PLAN_SUFFIX) and None in told:
            raise BundleError(
                f"{where} with {graph.file}, and does not say what it was built from, for and with: source, target and builder are "
                f"{told}. A plan is never loaded without these; make it again with `hero-export tensorrt`."
            )
        if graph.source is not None and graph.source != graphs[name]:
            raise FingerprintError(
                f"{where} with {graph.file}, which was made from a graph with the sha256 {graph.source[:16]}...; the bundle's "
                f"'{name}' has {graphs[name][:16]}... It is stale: make it again from this bundle."
            )
