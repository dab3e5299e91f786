"""How many fused operators an architecture implies, in each of the two forms that a graph can have.

The **standard** form has operators of the ONNX standard, which every engine reads: ``Attention``, ``LayerNormalization`` and
``Gelu`` (opsets 23, 17 and 20). The **onnxruntime** form has ONNX Runtime's own: they take the bias of the product before them, and
a norm the sum before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Operators = Literal["standard", "onnxruntime"]

ATTENTION, NORM, GELU = "Attention", "LayerNormalization", "Gelu"
_MICROSOFT = "com.microsoft::"
FUSED_ATTENTION, FUSED_NORM, FUSED_GELU = (
    _MICROSOFT + name for name in ("MultiHeadAttention", "SkipLayerNormalization", "BiasGelu")
)
FUSED_OPERATORS = (ATTENTION, NORM, GELU, FUSED_ATTENTION, FUSED_NORM, FUSED_GELU)
"""All that are counted; a domain stands before the names of those that are not the standard's."""


@dataclass(frozen=True)
class FusedOperators:
    """What an architecture implies for one graph.

    Attributes:
        attentions: multi-head attentions.
        norms: layer norms.
        sums: how many of the norms are of a sum of two tensors of three dimensions, such as a residual.
        gelus: GELUs.
        biased: how many of the GELUs come after a product of three dimensions with a bias. (After one of two dimensions the bias
            is a part of the product, ``Gemm``.)
    """

    attentions: int = 0
    norms: int = 0
    sums: int = 0
    gelus: int = 0
    biased: int = 0

    def counts(self, form: Operators) -> dict[str, int]:
        """How many of each operator a graph of this form has; those that it has none of are left out."""
        if form == "standard":
            counts = {ATTENTION: self.attentions, NORM: self.norms, GELU: self.gelus}
        else:
            counts = {
                FUSED_ATTENTION: self.attentions,
                FUSED_NORM: self.sums,
                NORM: self.norms - self.sums,
                FUSED_GELU: self.biased,
                GELU: self.gelus - self.biased,
            }
        return {operator: count for operator, count in counts.items() if count}


def fused_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """How many of each fused operator there are among all operators of a graph; those that it has none of are left out."""
    return {operator: counts[operator] for operator in FUSED_OPERATORS if counts.get(operator)}
