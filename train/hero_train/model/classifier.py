"""The classifier that ends most heads of HERO: two dense layers with GELU and a norm between them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """From hidden states to logits, or to the values of a feature.

    Args:
        hidden_size: width of the input.
        outputs: width of the output.
        inner_size: width in between; None takes twice the input's.
    """

    def __init__(self, hidden_size: int, outputs: int, inner_size: int | None = None) -> None:
        super().__init__()
        inner_size = inner_size or 2 * hidden_size
        self.inner = nn.Linear(hidden_size, inner_size)
        self.norm = nn.LayerNorm(inner_size)
        self.output = nn.Linear(inner_size, outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., hidden) -> (..., outputs)."""
        return self.output(self.norm(F.gelu(self.inner(hidden))))
