"""Weights and moments that are sharded over processes (FSDP): whole again, to be judged and written, and back into shares.

Whatever is not sharded passes through as it is, so that callers need not ask.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeVar

from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

Model = TypeVar("Model", bound=nn.Module)


def gather_whole(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Tensors that may be sharded, whole and on the CPU. All processes must call this.

    Args:
        tensors: the same names in every process.
        keep: whether this process wants them; without, it only gives its shares, and gets nothing.
    """
    whole = {}
    for name, tensor in tensors.items():
        gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keep:
            whole[name] = gathered.detach().cpu()
    return whole


def share_of(whole: Tensor, like: Tensor) -> Tensor:
    """What a process holds of a tensor: the share that it holds of a parameter of that shape, or all of it.

    Args:
        whole: of the same content in every process.
        like: the parameter.
    """
    whole = whole.to(like.device)
    if isinstance(like, DTensor):
        # Every process has the content, so that none needs to send any.
        return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
    return whole


class WholeModel(Generic[Model]):
    """A model as one process sees it whole, to judge and to save it, however it is trained.

    Args:
        model: before Accelerate prepares it.
        accelerator: of the run.
    """

    def __init__(self, model: Model, accelerator: Accelerator) -> None:
        self._model, self._accelerator = model, accelerator
        self._copy = copy.deepcopy(model).cpu() if accelerator.is_fsdp2 and accelerator.is_main_process else None

    @contextmanager
    def gathered(self) -> Iterator[Model | None]:
        """The model with its present weights, in the main process; None in the others, which must call this, too."""
        main = bool(self._accelerator.is_main_process)
        if not self._accelerator.is_fsdp2:
            yield self._model if main else None
            return
        weights = gather_whole(self._model.state_dict(), keep=main)
        if self._copy is None:
            yield None
            return
        self._copy.load_state_dict(weights)
        yield self._copy.to(self._accelerator.device)
        self._copy.cpu()
