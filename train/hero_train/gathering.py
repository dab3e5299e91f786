"""The joint batch: what the batches of all processes make together, as one process would have it.

Every process holds a part of the joint batch and computes the loss of the whole, from its own part and from what it gathers of
the others'. A gradient that arrives at something gathered goes back to the process that it came from, where those of all
processes are added up. Each process has the same loss L, so what reaches a weight is the gradient of ``count * L``, spread over
the processes; the mean over processes that distributed training takes is then the gradient of L: that of one process on the joint
batch. (``docs/decisions/0004-loss-of-the-joint-batch.md``)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional as F


@dataclass(frozen=True)
class Processes:
    """The processes whose batches make a joint batch. All of them must call the same methods in the same order.

    Attributes:
        count: how many there are.
        rank: which of them this is.
    """

    count: int = 1
    rank: int = 0

    @classmethod
    def in_training(cls, training: bool = True) -> Processes:
        """Those that train together; this one alone where it judges, as then the others need not follow."""
        if training and distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_world_size(), distributed.get_rank())
        return ALONE

    def shares(self, *sizes: int, device: torch.device) -> list[Share]:
        """For each list that the processes hold parts of, this one's share of it.

        Args:
            sizes: of this process's parts.
            device: that the processes exchange tensors on.
        """
        held = self.gather(torch.tensor([sizes], device=device))
        return [Share(self, tuple(part)) for part in held.T.tolist()]

    def gather(self, part: Tensor) -> Tensor:
        """The parts of all processes in the order of their ranks, with gradient.

        Args:
            part: (N, ...) of this process, of one shape everywhere.

        Returns:
            (count * N, ...).
        """
        return part if self.count == 1 else _Gather.apply(part, self)

    def mean(self, total: Tensor, count: Tensor) -> Tensor:
        """The mean over the items of all processes, with gradient.

        Args:
            total: the sum over this process's items, a scalar.
            count: how many these are, a scalar.

        Returns:
            A scalar; zero where there is no item at all.
        """
        # Both in one exchange; a float32 counts to 16 million.
        total, count = self.gather(torch.stack([total, count.to(total.dtype)])[None]).sum(dim=0).unbind()
        return total / count.clamp(min=1)


ALONE = Processes()


@dataclass(frozen=True)
class Share:
    """A process's share of a list that all processes hold parts of.

    Attributes:
        processes: that hold them.
        sizes: of the parts, in the order of the ranks.
    """

    processes: Processes
    sizes: tuple[int, ...]

    @property
    def start(self) -> int:
        """The place of this process's first item in the whole list."""
        return sum(self.sizes[: self.processes.rank])

    @property
    def own(self) -> slice:
        """The places of this process's items in the whole list."""
        return slice(self.start, self.start + self.sizes[self.processes.rank])

    def gather(self, part: Tensor) -> Tensor:
        """The whole list, with gradient: this process's part (N, ...) -> (sum of the sizes, ...)."""
        longest = max(self.sizes)
        if min(self.sizes) == longest:
            return self.processes.gather(part)
        padded = F.pad(part, (0, 0) * (part.ndim - 1) + (0, longest - len(part)))
        parts = self.processes.gather(padded).split(longest)
        return torch.cat([held[:size] for held, size in zip(parts, self.sizes, strict=True)])


class _Gather(torch.autograd.Function):
    """Concatenate equal parts of all processes; backwards, add up what all processes have for this one's part.

    Written with the two collectives that every backend and every version of torch has.
    """

    @staticmethod
    def forward(ctx: Any, part: Tensor, processes: Processes) -> Tensor:
        ctx.processes = processes
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(processes.count)]
        distributed.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # A copy: the sum is written into it, and autograd may still need what it passed.
        summed = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed)
        return summed.chunk(ctx.processes.count)[ctx.processes.rank], None
