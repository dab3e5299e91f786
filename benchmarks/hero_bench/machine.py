"""What a measurement ran on: a number without its machine says nothing."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from hero_sdk.engines.cores import available_cores

FLAGS = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""Instruction sets that matrix products use."""

DISTRIBUTIONS = (
    "hero-video-sdk",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "numpy",
    "tokenizers",
    "tritonclient",
    "lancedb",
)


BUSY_LOAD = 0.5
"""Waiting processes per core from which on a machine counts as busy."""


@dataclass(frozen=True)
class Machine:
    """The machine and the software of a run.

    Attributes:
        cpu: model of the processor.
        cores: physical ones that this process may use.
        logical_cpus: all of the machine.
        flags: which of ``FLAGS`` the processor has.
        memory_bytes: of the machine; 0 where the system does not say.
        system: operating system and architecture.
        load: processes that wanted to run, mean over the minute before the run; 0 where the system does not say.
        versions: of Python, of the installed engines, and of what else runs.
    """

    cpu: str
    cores: int
    logical_cpus: int
    flags: tuple[str, ...]
    memory_bytes: int
    system: str
    load: float
    versions: dict[str, str]

    @property
    def busy(self) -> bool:
        """Whether something else took much of the machine before the run; times are then of little use."""
        return self.load > BUSY_LOAD * self.cores

    def with_version(self, name: str, version: str) -> Machine:
        """The same machine with the version of what runs elsewhere, such as a server."""
        return dataclasses.replace(self, versions={**self.versions, name: version})


def describe_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """Describe this machine, as it is now.

    Args:
        cpuinfo: the kernel's file about the processor.
    """
    facts = _cpu_facts(cpuinfo)
    present = set(facts.get("flags", facts.get("Features", "")).split())
    return Machine(
        cpu=facts.get("model name") or platform.processor() or platform.machine(),
        cores=available_cores(),
        logical_cpus=os.cpu_count() or 1,
        flags=tuple(flag for flag in FLAGS if flag in present),
        memory_bytes=_memory_bytes(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
        versions={"python": platform.python_version(), **_versions()},
    )


def _cpu_facts(cpuinfo: Path) -> dict[str, str]:
    """The entries of the first processor; empty where there is no such file."""
    try:
        first = cpuinfo.read_text(encoding="utf-8", errors="replace").strip().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _versions() -> dict[str, str]:
    versions = {}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
