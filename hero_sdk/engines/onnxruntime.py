"""Graphs in onnxruntime: the one place that makes its sessions."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hero_sdk.engines.cores import available_cores
from hero_sdk.engines.session import OpenTensor
from hero_sdk.errors import BundleError, EngineError, MissingPackageError

if TYPE_CHECKING:
    import onnxruntime

_ERROR_SEVERITY = 3
"""onnxruntime's log level that lets errors through and no warnings."""

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
"""Names of numpy's dtypes by onnxruntime's names."""


class OnnxRuntimeSession:
    """An ONNX graph in onnxruntime, see ``hero_sdk.engines.session.GraphSession``; arguments and errors of ``open_session``."""

    def __init__(self, path: Path, *, threads: int | None = None, providers: Sequence[str] | None = None) -> None:
        self._session = open_session(path, threads=threads, providers=providers)
        self.inputs = {node.name: _described(node) for node in self._session.get_inputs()}
        self.outputs = {node.name: _described(node) for node in self._session.get_outputs()}

    def run(self, names: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of these names, in their order."""
        return list(self._session.run(list(names), dict(inputs)))


def _described(node: onnxruntime.NodeArg) -> OpenTensor:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return OpenTensor(_DTYPES.get(node.type, node.type), shape)


def open_session(
    path_or_bytes: str | Path | bytes, *, threads: int | None = None, providers: Sequence[str] | None = None
) -> onnxruntime.InferenceSession:
    """Open an ONNX graph in onnxruntime.

    Args:
        path_or_bytes: an ONNX file, or its content.
        threads: how many threads compute one call; default: the physical cores that this process may use.
        providers: onnxruntime's execution providers in order of preference; default: CUDA where the installed build can
            use it, then the CPU.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        EngineError: onnxruntime and onnxruntime-gpu are both installed, or a provider is not in the installed build.
        BundleError: the graph cannot be read.
    """
    _check_installation()
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if providers is None:
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
    elif unknown := [name for name in providers if name not in available]:
        raise EngineError(
            f"The installed onnxruntime has no providers {unknown}; it has {available}. "
            "Choose among these, or install the build of onnxruntime that has them."
        )
    if threads is not None and threads < 1:
        raise EngineError(f"threads is {threads}; expected at least 1, or None for one per physical core.")

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _ERROR_SEVERITY
    options.intra_op_num_threads = threads if threads is not None else available_cores()
    # These graphs are chains: there is nothing to run side by side, and a second pool would only compete for the cores.
    options.inter_op_num_threads = 1
    # Spinning threads keep every core busy between two calls, which starves the video decoder and the other graphs'
    # sessions in this process for a gain of microseconds per operator.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")

    model = path_or_bytes if isinstance(path_or_bytes, bytes) else str(path_or_bytes)
    shown = "The graph" if isinstance(path_or_bytes, bytes) else str(path_or_bytes)
    if isinstance(model, str) and not os.path.isfile(model):
        raise BundleError(f"{shown} is not a file; expected an ONNX graph. Copy the bundle again, or export it again.")
    try:
        return onnxruntime.InferenceSession(model, options, providers=list(providers))
    except Exception as error:  # onnxruntime's exceptions share no base class but Exception
        raise BundleError(
            f"{shown} cannot be opened by onnxruntime {onnxruntime.__version__} ({error}); expected an ONNX graph that it "
            "can run. Export it again, or install a newer onnxruntime."
        ) from error


def _check_installation() -> None:
    """Refuse an environment in which `import onnxruntime` fails or takes whichever build was unpacked last."""
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    if len(installed) == 2:
        raise EngineError(
            "onnxruntime and onnxruntime-gpu are both installed, and they overwrite each other's files; expected one of them. "
            "Run: pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu   (or onnxruntime, without a GPU)"
        )
    if not installed and importlib.util.find_spec("onnxruntime") is None:
        raise MissingPackageError(
            "The package 'onnxruntime' is needed to run the graphs of a bundle in this process, and it is not installed. "
            'Install it with: pip install "hero-video-sdk[local]"   (or "hero-video-sdk[gpu]" for an NVIDIA GPU)'
        )


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
