"""The language head: from hidden states back to words, in masked language modelling and captioning."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hero_train.config import HeroConfig


class LanguageHead(nn.Module):
    """Dense layer, GELU and norm; the last projection is the table of word embeddings itself."""

    def __init__(self, config: HeroConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        """Logits of every word: (..., hidden), word embeddings (vocabulary, hidden) -> (..., vocabulary)."""
        return F.linear(self.norm(F.gelu(self.dense(hidden))), words, self.bias)
