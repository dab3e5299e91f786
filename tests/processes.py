"""Several processes that compute together, over gloo and files, without a network port to choose."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing
from torch.multiprocessing.spawn import ProcessContext

LIMIT = 400.0
"""Seconds that processes may take; they are short of it by far, unless one waits for another for ever."""

PRELOADED = ["torch", "accelerate", "transformers", "hero_train.training", "hero_train.recipes.retrieval"]

Work = Callable[[int, int], Any]
"""Takes the rank and the number of processes, and returns tensors and numbers; a name of its module, as each process imports it."""


def together(work: Work, count: int, folder: Path) -> list[Any]:
    """What a function returns in each of several processes.

    Args:
        work: what they do.
        count: how many processes.
        folder: an empty one.

    Raises:
        TimeoutError: they did not come to an end.
        torch.multiprocessing.ProcessRaisedException: one of them failed.
    """
    with _started(work, count, folder) as (context, ends):
        while not context.join(timeout=1):
            if time.monotonic() > ends:
                raise TimeoutError(f"{count} processes did not end within {LIMIT} seconds.")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]


def killed(work: Work, count: int, folder: Path, when: Callable[[], bool]) -> None:
    """Kill all processes at once, as soon as something is true, by a signal that they cannot see.

    Raises:
        TimeoutError: it did not become true.
        torch.multiprocessing.ProcessRaisedException: a process failed.
        AssertionError: they came to their end before.
    """
    with _started(work, count, folder) as (context, ends):
        while not when():
            assert not context.join(timeout=0.005), "they came to their end"
            if time.monotonic() > ends:
                raise TimeoutError(f"There was nothing to kill for within {LIMIT} seconds.")
        for process in context.processes:
            os.kill(process.pid, signal.SIGKILL)
        for process in context.processes:
            process.join()
            assert process.exitcode == -signal.SIGKILL, process.exitcode


@contextmanager
def _started(work: Work, count: int, folder: Path) -> Iterator[tuple[ProcessContext, float]]:
    # They begin as copies of one that has imported what takes long, and done nothing else.
    multiprocessing.set_forkserver_preload(PRELOADED)
    context = multiprocessing.start_processes(
        _start, (work, count, folder), count, join=False, start_method="forkserver"
    )
    assert context is not None
    try:
        yield context, time.monotonic() + LIMIT
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
            process.join()


def _start(rank: int, work: Work, count: int, folder: Path) -> None:
    torch.set_num_threads(1)
    # As torchrun tells Accelerate.
    os.environ.update(RANK=f"{rank}", LOCAL_RANK=f"{rank}", WORLD_SIZE=f"{count}", LOCAL_WORLD_SIZE=f"{count}")
    join_group(folder / "store", rank, count)
    torch.save(work(rank, count), folder / f"{rank}.pt")
    if distributed.is_initialized():
        distributed.destroy_process_group()


def join_group(store: Path, rank: int, count: int) -> None:
    """Make this process a member of a new group, which meets at a file, in place of one that it may be in."""
    if distributed.is_initialized():
        # A process that has left would break off the others that are not yet in.
        distributed.barrier()
        distributed.destroy_process_group()
    wait = timedelta(seconds=LIMIT / 2)
    distributed.init_process_group("gloo", init_method=store.as_uri(), rank=rank, world_size=count, timeout=wait)
