"""Plans of TensorRT on an NVIDIA GPU, and which of its two modules they are for.

``tensorrt`` is TensorRT for data centres, ``tensorrt_rtx`` TensorRT for RTX; their APIs are one, their plans are not.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hero_sdk.engines.cuda import Cuda
from hero_sdk.engines.session import OpenTensor
from hero_sdk.errors import BundleError, EngineError, require
from hero_sdk.variants import TENSORRT, TENSORRT_RTX

EXTRAS = {TENSORRT: "tensorrt", TENSORRT_RTX: "tensorrt-rtx"}
"""The extra of this distribution that installs each module."""

HOST_CODE_VARIABLE = "HERO_PLAN_HOST_CODE"
"""Set to "allow", version-compatible plans may be loaded. They carry a runtime, which is code that the CPU runs: only where one
trusts whoever made the bundle."""


def import_tensorrt(name: str, purpose: str) -> ModuleType:
    """Import one of the two modules.

    Args:
        name: "tensorrt" or "tensorrt_rtx".
        purpose: what it is needed for, as the object of "needed to ...".

    Raises:
        MissingPackageError: it is not installed.
        EngineError: it is installed, and its libraries cannot be loaded.
    """
    try:
        return require(name, EXTRAS[name], purpose)
    except OSError as error:
        raise EngineError(
            f"The package '{name}' is installed, and its libraries cannot be loaded ({error}). "
            f'Install it again: pip install --force-reinstall "hero-video-sdk[{EXTRAS[name]}]"'
        ) from error


def make_log(module: ModuleType) -> Any:
    """A logger for TensorRT that keeps what is at least a warning: ``lines``, pairs of a severity's name and a text."""

    class Log(module.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= module.ILogger.Severity.WARNING:
                self.lines.append((severity.name, " ".join(message.split())))

    return Log()


class TensorRTSession:
    """A plan on the GPU, see ``hero_sdk.engines.session.GraphSession``.

    Inputs and outputs have one buffer each on the GPU, large enough for the largest batch of the plan; one call runs at a time.

    Args:
        path: of the plan.
        engine: the module that built it.

    Raises:
        MissingPackageError: the module, or CUDA's bindings, are not installed.
        EngineError: there is no GPU, or it is not one that the plan was built for, or another version of the module built it.
        BundleError: the file cannot be read.
    """

    def __init__(self, path: Path, engine: str) -> None:
        self._module = import_tensorrt(engine, "run TensorRT plans")
        self._cuda = Cuda(EXTRAS[engine])
        self._path = path
        self._lock = threading.Lock()
        self._log = make_log(self._module)
        self._engine = self._deserialize()
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(
                f"{path} cannot be prepared to run ({self._said()}). If the GPU's memory ran out, stop what else runs there."
            )
        self.inputs: dict[str, OpenTensor] = {}
        self.outputs: dict[str, OpenTensor] = {}
        self._addresses: dict[str, int] = {}
        self._stream = self._cuda.create_stream()
        self._finalizer = weakref.finalize(self, _free, self._cuda, self._stream, self._addresses)
        self._describe()
        self._allocate()

    def run(self, names: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of these names, in their order. A batch must be one that the plan was built for."""
        with self._lock:
            context, stream = self._context, self._stream
            # Held until the stream is done with them.
            arrays = {name: np.ascontiguousarray(inputs[name]) for name in self.inputs}
            for name, array in arrays.items():
                if not context.set_input_shape(name, array.shape):
                    raise EngineError(
                        f"{self._path} does not take '{name}' of shape {array.shape} ({self._said()}). It was built for a batch "
                        f"of at most {self._limit(name)[0]}: build it again with a bundle of a larger --max-batch."
                    )
                self._cuda.upload(self._addresses[name], array, stream)
            if not context.execute_async_v3(stream):
                raise EngineError(f"{self._path} failed on the GPU ({self._said()}). Look at `nvidia-smi`.")
            outputs = []
            for name in names:
                output = np.empty(tuple(context.get_tensor_shape(name)), self.outputs[name].dtype)
                self._cuda.download(output, self._addresses[name], stream)
                outputs.append(output)
            self._cuda.synchronize(stream)
            return outputs

    def _deserialize(self) -> Any:
        try:
            plan = self._path.read_bytes()
        except OSError as error:
            raise BundleError(f"{self._path} cannot be read ({error}). Copy the bundle again.") from error
        self._runtime = self._module.Runtime(self._log)
        self._runtime.engine_host_code_allowed = os.environ.get(HOST_CODE_VARIABLE) == "allow"
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(
                f"{self._path} cannot be loaded by {self._module.__name__} {self._module.__version__} on a GPU of compute "
                f"capability {self._cuda.compute_capability()} ({self._said()}). A plan runs with the version that built it, on "
                "the GPUs that it was built for, which its variant in the manifest names; a version-compatible one needs "
                f"{HOST_CODE_VARIABLE}=allow. Build it again with `hero-export tensorrt`, or load another variant."
            )
        return engine

    def _describe(self) -> None:
        modes = self._module.TensorIOMode
        for number in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(number)
            shape = tuple(None if size < 0 else int(size) for size in self._engine.get_tensor_shape(name))
            kind = np.dtype(self._module.nptype(self._engine.get_tensor_dtype(name))).name
            side = self.inputs if self._engine.get_tensor_mode(name) == modes.INPUT else self.outputs
            side[name] = OpenTensor(kind, shape)

    def _allocate(self) -> None:
        """One buffer for each tensor, of the size that the largest batch takes; the context keeps their addresses."""
        batch = max(self._limit(name)[0] for name in self.inputs)
        for name, tensor in {**self.inputs, **self.outputs}.items():
            size = np.dtype(tensor.dtype).itemsize * math.prod(batch if part is None else part for part in tensor.shape)
            self._addresses[name] = self._cuda.allocate(size)
            self._context.set_tensor_address(name, self._addresses[name])

    def _limit(self, name: str) -> tuple[int, ...]:
        """The largest shape of an input."""
        return tuple(self._engine.get_tensor_profile_shape(name, 0)[2])

    def _said(self) -> str:
        return "; ".join(text for _, text in self._log.lines[-3:]) or "TensorRT says nothing"


def _free(cuda: Cuda, stream: int, addresses: Mapping[str, int]) -> None:
    for address in addresses.values():
        cuda.free(address)
    cuda.destroy_stream(stream)
