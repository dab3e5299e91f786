"""Which number format a run computes in."""

from __future__ import annotations

import torch

from hero_train.run_config import Precision

# What Accelerate calls the formats.
_MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def mixed_precision(precision: Precision) -> str:
    """Accelerate's name of a format; "auto" takes bf16 only where the hardware multiplies it.

    On a CPU that means AMX: with AVX-512 alone, casting costs more than the products save.
    """
    if precision == "auto":
        if torch.cuda.is_available():
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return "bf16" if torch.cpu._is_amx_tile_supported() else "no"
    return _MIXED[precision]
