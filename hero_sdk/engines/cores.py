"""How many cores this process has."""

from __future__ import annotations

import os
from pathlib import Path


def available_cores() -> int:
    """The physical cores that this process may use: its CPU affinity and its container's quota, hyper-threads counted once."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = len({_siblings(cpu) for cpu in cpus})
    quota = _container_quota(Path("/sys/fs/cgroup/cpu.max"))
    return max(1, min(cores, quota) if quota is not None else cores)


def _siblings(cpu: int) -> str:
    """The hyper-threads of the core that a CPU belongs to, as the kernel lists them; the CPU alone where it does not say."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return str(cpu)


def _container_quota(path: Path) -> int | None:
    """Whole CPUs of a cgroup v2 quota ("200000 100000" is two), or None where there is no limit or no such file."""
    try:
        limit, period = path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(1, int(limit) // int(period))
