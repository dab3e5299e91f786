"""The variants of a bundle, opened in their engines, or the reason why they cannot run on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hero_export.verification.report import BASE
from hero_sdk.engines.local import LocalEngine
from hero_sdk.errors import BundleError, EngineError, MissingPackageError
from hero_sdk.manifest import Manifest
from hero_sdk.variants import ONNXRUNTIME, TENSORRT, TENSORRT_RTX

NO_KERNEL = "NOT_IMPLEMENTED"
"""What onnxruntime says where it has no kernel for an operator in a type, as for bf16 on the CPU."""


@dataclass(frozen=True)
class Opened:
    """A variant that runs here.

    Attributes:
        name: in the manifest, or ``BASE``.
        precision: that was asked for.
        graphs: those that it brings; the others are the base's.
        engine: runs them.
    """

    name: str
    precision: str
    graphs: tuple[str, ...]
    engine: LocalEngine

    def precision_of(self, graph: str) -> str:
        """What a graph is held to: the variant's precision, or, where none of its products are in that, its own."""
        if self.name == BASE:
            return self.precision
        own = self.engine.manifest.variants[self.name].graphs[graph]
        return own.precision if own.products and self.precision not in own.products else self.precision

    def file(self, graph: str) -> str:
        """Path of one of its graphs, relative to the bundle."""
        manifest = self.engine.manifest
        return manifest.graphs[graph].file if self.name == BASE else manifest.variants[self.name].graphs[graph].file


@dataclass(frozen=True)
class NotRun:
    """A variant that does not run here, and why; or, when it should run, what is wrong with it."""

    why: str
    wrong: bool


def open_variant(bundle: Path, manifest: Manifest, name: str, threads: int) -> Opened | NotRun:
    """Open a variant and run each of its graphs once.

    Args:
        bundle: the folder.
        manifest: of it.
        name: of the variant, or ``BASE``.
        threads: of its engine.
    """
    variant = None if name == BASE else manifest.variants[name]
    engine = LocalEngine(bundle, variant=None if variant is None else name, threads=threads)
    kind = ONNXRUNTIME if variant is None else variant.engine
    graphs = tuple(manifest.graphs if variant is None else variant.graphs)
    for graph in graphs:
        # Zeros are valid ids everywhere.
        inputs = {
            tensor.name: np.zeros((1, *tensor.shape[1:]), dtype=tensor.dtype)
            for tensor in manifest.graphs[graph].inputs
        }
        try:
            engine.run(graph, inputs)
        except (MissingPackageError, EngineError, BundleError) as error:
            # Where the bundle lies is of no matter to a report.
            why = str(error).replace(f"{bundle}/", "")
            no_device = isinstance(error, EngineError) and kind in (TENSORRT, TENSORRT_RTX)
            no_kernel = isinstance(error, BundleError) and NO_KERNEL in why
            return NotRun(why, wrong=not (isinstance(error, MissingPackageError) or no_device or no_kernel))
    return Opened(name, "fp32" if variant is None else variant.precision, graphs, engine)
