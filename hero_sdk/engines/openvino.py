"""Graphs in OpenVINO on the CPU: the one place that makes its models ready to run."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from hero_sdk.engines.cores import available_cores
from hero_sdk.engines.session import OpenTensor
from hero_sdk.errors import BundleError, EngineError, require

if TYPE_CHECKING:
    import openvino

EXTRA = "openvino"
DEVICE = "CPU"

STAMP = "hero"
"""Where a model keeps what hero-export wrote into it: ``graph``, its name; ``precision``; ``source``, sha256 of the ONNX file."""

DYNAMIC_GROUP = 64
"""Activations that share a scale where they are quantised at run time. Measured on a 768 wide graph of two layers: groups of 64
take 0.36 of the time of fp32."""

HALF_CAPABILITIES = {"fp16": "FP16", "bf16": "BF16"}
"""What OpenVINO calls a CPU that computes in these, by precision."""

_HINTS = {"fp16": "f16", "bf16": "bf16"}
_FLOAT = "f32"

_TELEMETRY = "openvino_telemetry"

_DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "f64": "float64",
    "u8": "uint8",
    "i8": "int8",
    "i32": "int32",
    "i64": "int64",
    "boolean": "bool",
}
"""Names of numpy's dtypes by OpenVINO's names."""


class OpenVinoSession:
    """A graph in OpenVINO, see ``hero_sdk.engines.session.GraphSession``.

    It is compiled once, for any batch. Calls from several threads take turns: one call already has all threads that it may use.
    Nothing is cached on the disk.

    Attributes:
        model: as its file has it.
        compiled: as it runs here.
        inputs, outputs: by name.

    Args:
        path: the ``.xml`` file; its weights lie in the ``.bin`` file of the same name.
        precision: that the variant was made in; the file itself says in which this graph was.
        threads: how many compute one call; default: the physical cores that this process may use.

    Raises:
        MissingPackageError: OpenVINO is not installed.
        EngineError: the number of threads is wrong, or the graph cannot be compiled here.
        BundleError: the files cannot be read, or are another graph's.
    """

    def __init__(self, path: Path, precision: str, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise EngineError(f"threads is {threads}; expected at least 1, or None for one per physical core.")
        self.model = read_model(path)
        precision = stamp_of(self.model).get("precision", precision)
        self.compiled = compile_model(self.model, precision, threads=threads, shown=str(path))
        if (wanted := HALF_CAPABILITIES.get(precision)) == "BF16" and wanted not in capabilities():
            warnings.warn(
                f"{path} is made for {precision}, which this CPU does not compute in; it runs in fp32, right but slower. "
                "Choose another variant, or the bundle's own graphs.",
                RuntimeWarning,
                stacklevel=2,
            )
        # Not the compiled model's, whose ports may have a second name, that of a step that was fused.
        self.inputs = {port.get_any_name(): _described(port) for port in self.model.inputs}
        self.outputs = {port.get_any_name(): _described(port) for port in self.model.outputs}
        self._request = self.compiled.create_infer_request()
        self._lock = threading.Lock()

    def run(self, names: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of these names, in their order."""
        with self._lock:
            # The arrays go in as they are and come out as copies, since the next call writes over the request's own.
            self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)
            return [np.array(self._request.get_tensor(name).data) for name in names]


def load_openvino() -> ModuleType:
    """OpenVINO, without its telemetry: importing it would send word of that to its makers, and asks nobody.

    Raises:
        MissingPackageError: it is not installed.
    """
    # A module that is None cannot be imported, which OpenVINO and NNCF are ready for.
    sys.modules.setdefault(_TELEMETRY, None)  # type: ignore[arg-type]
    return require("openvino", EXTRA, "run graphs in OpenVINO")


def read_model(path: Path) -> openvino.Model:
    """Read a model and check that it is the graph that its file is named after.

    Raises:
        MissingPackageError: OpenVINO is not installed.
        BundleError: a file is missing or not whole, or it is another graph.
    """
    weights = path.with_suffix(".bin")
    if missing := [file for file in (path, weights) if not file.is_file()]:
        raise BundleError(
            f"{missing[0]} is not a file; expected a graph of OpenVINO, .xml with its .bin. Copy the bundle again, or make "
            "the variant again with `hero-export openvino`."
        )
    core = load_openvino().Core()
    try:
        model = core.read_model(path, weights)
    except Exception as error:  # OpenVINO's exceptions share no base class but Exception
        raise BundleError(
            f"{path} cannot be read by OpenVINO {_version()} ({_last_line(error)}); expected a whole graph with its weights. "
            "Copy the bundle again, or make the variant again with `hero-export openvino`."
        ) from error
    stamped = stamp_of(model).get("graph", path.stem)
    if stamped != path.stem:
        raise BundleError(
            f"{path} is the graph '{stamped}' under another name; expected '{path.stem}'. Copy the bundle again, or make the "
            "variant again with `hero-export openvino`."
        )
    return model


def stamp_of(model: openvino.Model) -> dict[str, str]:
    """What ``hero-export openvino`` wrote into a model, see ``STAMP``; empty when another program wrote it."""
    if not model.has_rt_info([STAMP]):
        return {}
    return {name: value.astype(str) for name, value in model.get_rt_info([STAMP]).astype(dict).items()}


def compile_model(
    model: openvino.Model, precision: str, *, threads: int | None = None, shown: str = "The graph"
) -> openvino.CompiledModel:
    """Make a model ready to run in a precision.

    Args:
        model: of ``read_model``.
        precision: see ``run_options``.
        threads: how many compute one call; default: the physical cores that this process may use.
        shown: the model, for messages.

    Raises:
        EngineError: OpenVINO refuses it.
    """
    core = load_openvino().Core()
    try:
        return core.compile_model(model, DEVICE, run_options(precision, threads))
    except Exception as error:  # OpenVINO's exceptions share no base class but Exception
        raise EngineError(
            f"{shown} cannot be compiled by OpenVINO {_version()} on this machine ({_last_line(error)}). Install the version "
            "that the bundle's manifest names, or run the bundle's own graphs."
        ) from error


def run_options(precision: str, threads: int | None = None) -> dict[str, Any]:
    """What OpenVINO is told for a precision.

    All is stated, for by itself OpenVINO computes in bfloat16 wherever a CPU can, whatever the file holds. "fp16" and "bf16"
    compute in these where the CPU can, and in float32 elsewhere; the rest of an int8 graph is float32, so that its results do not
    depend on the CPU (in bfloat16 it was no faster).

    Args:
        precision: that the graph was made in.
        threads: how many compute one call; None: the physical cores that this process may use.
    """
    possible = HALF_CAPABILITIES.get(precision) in capabilities()
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision] if possible else _FLOAT,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": DYNAMIC_GROUP if precision == "int8-dynamic" else 0,
        "INFERENCE_NUM_THREADS": threads if threads is not None else available_cores(),
        "NUM_STREAMS": 1,
        # Pinned threads of two graphs, or of two processes, would sit on the same cores.
        "ENABLE_CPU_PINNING": False,
    }


def capabilities() -> frozenset[str]:
    """What OpenVINO says that this CPU computes in, such as "BF16"."""
    return frozenset(load_openvino().Core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"))


def _described(port: openvino.Output) -> OpenTensor:
    kind = port.get_element_type().get_type_name()
    sizes = (None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return OpenTensor(_DTYPES.get(kind, kind), tuple(sizes))


def _version() -> str:
    return str(load_openvino().get_version()).split("-")[0]


def _last_line(error: Exception) -> str:
    """What went wrong; before it OpenVINO lists where in its own code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
