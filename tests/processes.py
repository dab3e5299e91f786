"""Several processes that compute together, over gloo and files, without a network port to choose."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

LIMIT = 120.0
"""Seconds that processes may take; they are short of it by far, unless one waits for another for ever."""


def together(work: Callable[[int, int], Any], count: int, folder: Path) -> list[Any]:
    """What a function returns in each of several processes.

    Args:
        work: takes the rank and the number of processes, and returns tensors and numbers; a name of its module, as each process
            imports it.
        count: how many processes.
        folder: an empty one.

    Raises:
        TimeoutError: they did not come to an end.
        torch.multiprocessing.ProcessRaisedException: one of them failed.
    """
    context = multiprocessing.start_processes(_start, (work, count, folder), count, join=False, start_method="spawn")
    assert context is not None
    ends = time.monotonic() + LIMIT
    try:
        while not context.join(timeout=1):
            if time.monotonic() > ends:
                raise TimeoutError(f"{count} processes did not end within {LIMIT} seconds.")
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
                process.join()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]


def _start(rank: int, work: Callable[[int, int], Any], count: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=(folder / "store").as_uri(),
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=LIMIT / 2),
    )
    torch.save(work(rank, count), folder / f"{rank}.pt")
    distributed.destroy_process_group()
