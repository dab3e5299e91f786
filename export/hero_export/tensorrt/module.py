"""Which TensorRT builds the plans, and everything that its modules and releases differ in.

| | ``tensorrt_rtx`` | ``tensorrt`` 11 | ``tensorrt`` 10 |
|---|---|---|---|
| builds for | any GPU that is named, without one | the GPU of this machine | the GPU of this machine |
| networks are strongly typed | always | always | when asked to be |
| chooses kernels | on the user's machine | by timing them, with a cache | by timing them, with a cache |
| plan for all newer GPUs | when none is named | hardware-compatible | hardware-compatible |
| plan for later releases | no | version-compatible | version-compatible |
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from hero_sdk.engines.cuda import Cuda
from hero_sdk.engines.tensorrt import EXTRAS, import_tensorrt
from hero_sdk.errors import EngineError, InputError, MissingPackageError
from hero_sdk.variants import TENSORRT, TENSORRT_RTX

ModuleName = Literal["tensorrt_rtx", "tensorrt"]

PORTABLE = "sm80+"
"""The target of a plan that runs on every GPU of compute capability 8.0 or higher."""

_PURPOSE = "build TensorRT plans"


@dataclass(frozen=True)
class PlanOptions:
    """What a plan is built for, beside its graph.

    Attributes:
        target: the GPUs, such as "sm86", or ``PORTABLE``.
        max_batch: the largest batch; the smallest is 1.
        opt_batch: the batch that it is to be fastest with.
        version_compatible: later releases of the module can run it.
    """

    target: str
    max_batch: int
    opt_batch: int
    version_compatible: bool = False


@dataclass(frozen=True)
class TensorRT:
    """An installed TensorRT."""

    name: str
    api: ModuleType

    @property
    def version(self) -> str:
        """Of the module."""
        return str(self.api.__version__)

    @property
    def builder(self) -> str:
        """Module and version, as a manifest names them."""
        return f"{self.name} {self.version}"

    @property
    def ahead_of_time(self) -> bool:
        """Whether it builds for GPUs that are named, and needs none."""
        return hasattr(self.api, "ComputeCapability")

    def targets(self) -> tuple[str, ...]:
        """The compute capabilities that can be named; of a module that needs a GPU, that of this machine's.

        Raises:
            EngineError: it needs a GPU, and there is none.
            MissingPackageError: it needs a GPU, and CUDA's bindings are not installed.
        """
        if self.ahead_of_time:
            names = self.api.ComputeCapability.__members__
            return tuple(name.lower() for name in names if name.startswith("SM"))
        return (Cuda(EXTRAS[self.name]).compute_capability(),)

    def check(self, options: PlanOptions, timing_cache: Path | None) -> None:
        """Refuse what this module cannot do.

        Raises:
            InputError: says which option, and what to do.
            EngineError, MissingPackageError: as ``targets``.
        """
        if not 1 <= options.opt_batch <= options.max_batch:
            raise InputError(
                f"The plans are to be fastest with a batch of {options.opt_batch}; expected 1 to {options.max_batch}, the "
                "largest batch of the graph. Change --opt-batch."
            )
        targets = self.targets()
        if options.target not in (*targets, PORTABLE):
            where = (
                "compute capabilities that it knows" if self.ahead_of_time else "GPU of this machine, which it needs"
            )
            raise InputError(
                f"{self.builder} cannot build for {options.target!r}; expected {', '.join(targets)}, the {where}, or "
                f"--hardware-compatible for {PORTABLE}. Change --target, or --module."
            )
        if self.ahead_of_time and timing_cache is not None:
            raise InputError(
                f"{self.name} times no kernels when it builds, so a timing cache has no effect, and would make it look for a GPU. "
                f"Leave --timing-cache out, or build with --module {TENSORRT} on a machine with the GPU."
            )
        if self.ahead_of_time and options.version_compatible:
            raise InputError(
                f"{self.name} comes without the lean runtime that a version-compatible plan carries. Leave --version-compatible "
                f"out and build again with each release (it takes seconds), or build with --module {TENSORRT}."
            )

    def create_network(self, builder: Any) -> Any:
        """An empty network whose tensors have the types that the graph gives them, and no others."""
        flags = self.api.NetworkDefinitionCreationFlag.__members__
        # Releases after 10 have no other networks, and keep the flag for compatibility or not at all.
        typed = flags.get("STRONGLY_TYPED")
        return builder.create_network(0 if typed is None else 1 << int(typed))

    def create_config(self, builder: Any, options: PlanOptions) -> Any:
        """What to build for; the profile and the timing cache are not in it yet."""
        config = builder.create_builder_config()
        # The names and types of layers stay in the plan, where the engine inspector finds them.
        config.profiling_verbosity = self.api.ProfilingVerbosity.DETAILED
        if self.ahead_of_time:
            if options.target != PORTABLE:  # without a name it builds for all from 8.0 on
                config.num_compute_capabilities = 1
                config.set_compute_capability(getattr(self.api.ComputeCapability, options.target.upper()), 0)
        elif options.target == PORTABLE:
            config.hardware_compatibility_level = self.api.HardwareCompatibilityLevel.AMPERE_PLUS
        if options.version_compatible:
            config.set_flag(self.api.BuilderFlag.VERSION_COMPATIBLE)
        return config


def find_tensorrt(name: str | None = None) -> TensorRT:
    """Import a TensorRT.

    Args:
        name: which module; None takes the one that is installed, and of two ``tensorrt_rtx``, which needs no GPU.

    Raises:
        InputError: no such module.
        MissingPackageError: it is not installed.
        EngineError: its libraries cannot be loaded.
    """
    names = get_args(ModuleName)
    if name is None:
        name = next((each for each in names if importlib.util.find_spec(each) is not None), None)
    if name is None:
        raise MissingPackageError(
            f"Neither '{TENSORRT_RTX}' nor '{TENSORRT}' is installed; one of them is needed to {_PURPOSE}. Install with: "
            f'pip install "hero-video-sdk[{EXTRAS[TENSORRT_RTX]}]" (builds without a GPU), or "hero-video-sdk[{EXTRAS[TENSORRT]}]" '
            "(on a machine with the GPU)"
        )
    if name not in names:
        raise InputError(f"There is no TensorRT module {name!r}; expected one of {', '.join(names)}. Change --module.")
    api = import_tensorrt(name, _PURPOSE)
    if not hasattr(api, "Builder"):
        raise EngineError(
            f"The package '{name}' is installed without its bindings: it has no Builder. "
            f'Install it again: pip install --force-reinstall "hero-video-sdk[{EXTRAS[name]}]"'
        )
    return TensorRT(name, api)
