"""``hero-export inspect``: what the graphs of a bundle consist of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hero_export.errors import FusionError
from hero_export.onnx.fusion import graph_bytes, model_nodes, operator_counts, read_model, unfused_counts
from hero_export.onnx.operators import fused_counts
from hero_export.precision.readback import read_precision
from hero_export.report import rich_table
from hero_sdk.graph_files import ONNX_SUFFIX
from hero_sdk.manifest import Manifest, read_bundle
from hero_sdk.signature import PublicKeys

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    "variant",
    "graph",
    "file",
    "MB",
    "precision",
    "max batch",
    "opset",
    "fused",
    "expected",
    "unfused",
    "other operators",
)


@dataclass(frozen=True)
class GraphInspection:
    """One graph as it lies on the disk.

    Attributes:
        variant: that it belongs to; None for the bundle's own.
        name: in the manifest.
        file: path in the bundle.
        bytes: size of the file and of its external weights.
        precision: of most matrix products, as read back.
        max_batch: the largest verified batch.
        fused: how many of each fused operator, the standard's and onnxruntime's.
        expected: how many the architecture implies, as the export wrote down when it had checked them.
        unfused: operators that stand where a fused one could, and how many; empty in a graph of this exporter's, and for the
            frame encoder, which may be any network.
        others: how many of every other operator.
        opsets: version of each operator set that the graph uses, by domain ("" is the standard's).

    Of a file in another engine's format, precision and fused operators are the manifest's, and the last three are empty.
    """

    variant: str | None
    name: str
    file: str
    bytes: int
    precision: str
    max_batch: int
    fused: dict[str, int]
    expected: dict[str, int]
    unfused: dict[str, int]
    others: dict[str, int]
    opsets: dict[str, int]


@dataclass(frozen=True)
class BundleInspection:
    """A bundle: its manifest and its graphs, every file checked against the manifest."""

    manifest: Manifest
    graphs: tuple[GraphInspection, ...]

    def require_fused(self) -> None:
        """Refuse a bundle with a graph that has other fused operators than its architecture implies.

        Raises:
            FusionError: names each graph with what it has and what was expected.
        """
        wrong = [
            f"{graph.name}: {_counted(graph.fused)}, expected {_counted(graph.expected)}"
            for graph in self.graphs
            if graph.fused != graph.expected
        ]
        if wrong:
            raise FusionError(
                f"Graphs have other fused operators than their architecture implies: {'; '.join(wrong)}. Something rewrote them "
                "after the export; export the bundle again."
            )

    def to_rich(self) -> Table:
        """As a table for a terminal."""
        return rich_table("Graphs", COLUMNS, [_cells(graph) for graph in self.graphs])


def inspect_bundle(bundle: Path, *, require_signature: PublicKeys | None = None) -> BundleInspection:
    """Look into the graphs of a bundle.

    Args:
        bundle: the folder.
        require_signature: public keys of which one must have signed the bundle; None asks for no signature.

    Raises:
        BundleError: the bundle is incomplete, altered or of another format.
        SignatureError: none of the required keys signed it.
    """
    manifest = read_bundle(bundle, require_signature=require_signature)
    graphs = [
        _inspect(bundle, None, name, spec.file, spec.precision, spec.max_batch, spec.fused)
        for name, spec in manifest.graphs.items()
    ]
    graphs += [
        _inspect(bundle, variant, name, one.file, one.precision, manifest.graphs[name].max_batch, one.fused)
        for variant, content in manifest.variants.items()
        for name, one in content.graphs.items()
    ]
    return BundleInspection(manifest, tuple(graphs))


def _inspect(
    bundle: Path, variant: str | None, name: str, file: str, precision: str, max_batch: int, expected: dict[str, int]
) -> GraphInspection:
    path = bundle / file
    if path.suffix != ONNX_SUFFIX:
        size = sum(one.stat().st_size for one in path.parent.glob(f"{path.stem}.*"))
        return GraphInspection(variant, name, file, size, precision, max_batch, expected, expected, {}, {}, {})
    model = read_model(path)
    counts = operator_counts(model_nodes(model))
    fused, unfused = fused_counts(counts), unfused_counts(name, counts)
    return GraphInspection(
        variant=variant,
        name=name,
        file=file,
        bytes=graph_bytes(path, model),
        precision=read_precision(path).precision,
        max_batch=max_batch,
        fused=fused,
        expected=expected,
        unfused=unfused,
        others={
            operator: count - unfused.get(operator, 0)
            for operator, count in counts.items()
            if operator not in fused and count > unfused.get(operator, 0)
        },
        opsets={opset.domain: opset.version for opset in model.opset_import},
    )


def _cells(graph: GraphInspection) -> list[str]:
    return [
        graph.variant or "",
        graph.name,
        f"{graph.bytes / 1e6:.1f}",
        graph.precision,
        str(graph.max_batch),
        ", ".join(f"{domain} {version}".strip() for domain, version in graph.opsets.items()),
        *(_counted(counts) for counts in (graph.fused, graph.expected, graph.unfused, graph.others)),
    ]


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
