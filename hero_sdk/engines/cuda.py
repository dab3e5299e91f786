"""The few calls of CUDA that running a plan needs: memory on the GPU, copies to it and back, one stream.

Through ``cuda.bindings``, NVIDIA's own bindings, which bring no more of CUDA than the driver has.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hero_sdk.errors import EngineError, require


class Cuda:
    """CUDA's runtime on the current GPU.

    Args:
        extra: of this distribution that installs the bindings, for the message when they are missing.

    Raises:
        MissingPackageError: the bindings are not installed.
        EngineError: no GPU, or no driver for one.
    """

    def __init__(self, extra: str) -> None:
        self._api: Any = require("cuda.bindings.runtime", extra, "use an NVIDIA GPU")
        code, count = self._api.cudaGetDeviceCount()
        if code != self._api.cudaError_t.cudaSuccess or not count:
            reason = self._reason(code) if code != self._api.cudaError_t.cudaSuccess else "no CUDA-capable device"
            raise EngineError(
                f"CUDA finds no GPU in this process ({reason}); a TensorRT plan runs on an NVIDIA GPU alone. Run it where "
                "`nvidia-smi` lists one (in a container: --gpus all, and a driver that is new enough), or load the bundle "
                "with another variant, or none, which the CPU runs."
            )

    def compute_capability(self) -> str:
        """Of the current GPU, such as "sm86"."""
        device = self._call("cudaGetDevice")
        kinds = self._api.cudaDeviceAttr
        major, minor = (
            self._call("cudaDeviceGetAttribute", kind, device)
            for kind in (kinds.cudaDevAttrComputeCapabilityMajor, kinds.cudaDevAttrComputeCapabilityMinor)
        )
        return f"sm{major}{minor}"

    def create_stream(self) -> int:
        """A stream, by its handle."""
        return int(self._call("cudaStreamCreate"))

    def destroy_stream(self, stream: int) -> None:
        """Free a stream."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """Wait until everything in the stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def allocate(self, size: int) -> int:
        """Memory on the GPU, of so many bytes, by its address."""
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        """Give memory back."""
        self._call("cudaFree", address)

    def upload(self, address: int, array: np.ndarray, stream: int) -> None:
        """Copy a contiguous array to the GPU, in the stream's order."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, stream)

    def download(self, array: np.ndarray, address: int, stream: int) -> None:
        """Fill a contiguous array from the GPU, in the stream's order; it is whole after ``synchronize``."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, stream)

    def _call(self, function: str, *arguments: Any) -> Any:
        code, *results = getattr(self._api, function)(*arguments)
        if code != self._api.cudaError_t.cudaSuccess:
            raise EngineError(
                f"{function} failed on the GPU ({self._reason(code)}). If memory ran out, use smaller batches or stop what "
                "else runs there; otherwise look at `nvidia-smi`."
            )
        return results[0] if results else None

    def _reason(self, code: Any) -> str:
        _, text = self._api.cudaGetErrorString(code)
        return text.decode() if isinstance(text, bytes) else str(text)
