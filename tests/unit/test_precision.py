"""Which number format "auto" takes on which hardware."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hero_train.precision import mixed_precision


def pretend(
    patch: pytest.MonkeyPatch, *, gpu: bool = False, gpu_bf16: bool = False, cpu: tuple[bool, bool] = (False, False)
) -> None:
    """Hardware with or without a GPU, bf16 on it, and AMX and AVX-512 BF16 on the CPU."""

    def supported(including_emulation: bool = True) -> bool:
        return gpu_bf16 or including_emulation

    answers: dict[str, Any] = {
        "torch.cuda.is_available": lambda: gpu,
        "torch.cuda.is_bf16_supported": supported,
        "torch.cpu._is_amx_tile_supported": lambda: cpu[0],
        "torch.cpu._is_avx512_bf16_supported": lambda: cpu[1],
    }
    for name, answer in answers.items():
        patch.setattr(name, answer)


@pytest.mark.parametrize(
    ("hardware", "expected"),
    [
        ({}, "no"),
        ({"cpu": (True, False)}, "bf16"),
        ({"cpu": (False, True)}, "bf16"),
        ({"gpu": True, "gpu_bf16": True}, "bf16"),
        ({"gpu": True, "cpu": (True, True)}, "fp16"),
    ],
)
def test_auto_takes_bf16_where_it_is_multiplied_in_hardware(
    monkeypatch: pytest.MonkeyPatch, hardware: dict[str, Any], expected: str
) -> None:
    pretend(monkeypatch, **hardware)
    assert mixed_precision("auto") == expected


def test_what_was_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpu=True, gpu_bf16=True)
    assert [mixed_precision("fp32"), mixed_precision("bf16"), mixed_precision("fp16")] == ["no", "bf16", "fp16"]


def test_the_hardware_can_be_asked() -> None:
    """The names of torch that are not public are there."""
    assert isinstance(torch.cpu._is_amx_tile_supported(), bool)
    assert isinstance(torch.cpu._is_avx512_bf16_supported(), bool)
