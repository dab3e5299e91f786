"""Which number format a run computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from hero_train.run_config import Precision

# What Accelerate calls the formats.
_MIXED: dict[Precision, str] = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def mixed_precision(precision: Precision) -> str:
    """Accelerate's name of a format; "auto" takes bf16 only where the hardware multiplies it.

    On a CPU that means AMX or AVX-512 BF16: elsewhere it is emulated, and casting costs more than it saves.
    """
    if precision == "auto":
        if torch.cuda.is_available():
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        # torch has no public name for these two.
        return "bf16" if torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported() else "no"
    return _MIXED[precision]


def precision_name(mixed: str) -> Precision:
    """The name that a configuration gives to one of Accelerate's formats."""
    return next(name for name, theirs in _MIXED.items() if theirs == mixed)


def attention_kernels(device: torch.device) -> AbstractContextManager[object]:
    """The attention kernels to train with.

    On a CPU these are plain matrix products: torch's fused kernel saves memory that short rows do not need, and its backward pass
    takes twice as long in bf16.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
