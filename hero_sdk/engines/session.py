"""A graph opened in the engine of its kind: the one interface that all engines have here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from hero_sdk.errors import EngineError
from hero_sdk.variants import ENGINE_SUFFIXES, ONNXRUNTIME, OPENVINO, TENSORRT, TENSORRT_RTX


@dataclass(frozen=True)
class OpenTensor:
    """An input or output as an engine reports it: numpy's name of the dtype; no size for a dimension that may vary."""

    dtype: str
    shape: tuple[int | None, ...]


class GraphSession(Protocol):
    """A graph that is ready to run. ``run`` may be called from several threads at once."""

    @property
    def inputs(self) -> Mapping[str, OpenTensor]:
        """What it takes, by name."""

    @property
    def outputs(self) -> Mapping[str, OpenTensor]:
        """What it gives, by name."""

    def run(self, names: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of these names, in their order."""


def open_graph(
    path: Path, engine: str, precision: str, *, threads: int | None = None, providers: Sequence[str] | None = None
) -> GraphSession:
    """Open a file in the engine that it was made for.

    Args:
        path: of the file.
        engine: one of ``hero_sdk.variants.ENGINE_SUFFIXES``.
        precision: that the variant was made in, for an engine that is told at run time.
        threads: how many compute one call on the CPU; default: the physical cores that this process may use.
        providers: of onnxruntime, in order of preference; default: CUDA where it can be used, then the CPU.

    Raises:
        MissingPackageError: the engine is not installed.
        EngineError: the engine is unknown, or cannot be used on this machine.
        BundleError: the file cannot be read.
    """
    if engine == ONNXRUNTIME:
        from hero_sdk.engines.onnxruntime import OnnxRuntimeSession

        return OnnxRuntimeSession(path, threads=threads, providers=providers)
    if engine in (TENSORRT, TENSORRT_RTX):
        from hero_sdk.engines.tensorrt import TensorRTSession

        return TensorRTSession(path, engine)
    if engine == OPENVINO:
        from hero_sdk.engines.openvino import OpenVinoSession

        return OpenVinoSession(path, precision, threads=threads)
    raise EngineError(
        f"{path} is for the engine {engine!r}, which this version of the SDK cannot run; expected one of {sorted(ENGINE_SUFFIXES)}."
    )
