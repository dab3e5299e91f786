"""The transformer layer that all of HERO's encoders are made of: post-norm BERT, with the attention of the library."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

LAYER_NORM_EPS = 1e-12
"""Of the norms inside transformer layers; those of embeddings and heads have 1e-5 (the authors' defaults)."""


def segment_mask(segment_ids: Tensor) -> Tensor:
    """Who may look at whom: slots of one segment. (R, S) int -> (R, 1, S, S) bool, True where attention is allowed.

    Empty slots (id 0) see one another, so that no row of the softmax is empty.
    """
    return (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None]


class Attention(nn.Module):
    """Multi-head attention with its output projection, residual and norm."""

    def __init__(self, hidden_size: int, num_heads: int, hidden_dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(hidden_dropout)
        self.norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """What a sequence offers to those that attend to it: (R, K, hidden) -> twice (R, heads, K, width)."""
        return self._heads(self.key(source)), self._heads(self.value(source))

    def attend(self, hidden: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """(R, S, hidden) over keys and values (R, heads, K, width), mask (R or 1, 1, S or 1, K) bool -> (R, S, hidden)."""
        dropout = self.attention_dropout if self.training else 0.0
        query = self._heads(self.query(hidden))
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        attended = attended.transpose(1, 2).reshape(hidden.shape)
        return self.norm(hidden + self.dropout(self.output(attended)))

    def _heads(self, projected: Tensor) -> Tensor:
        rows, slots, width = projected.shape
        return projected.view(rows, slots, self.num_heads, width // self.num_heads).transpose(1, 2)


class SelfAttention(Attention):
    """Attention of a sequence to itself."""

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(R, S, hidden), mask (R or 1, 1, S or 1, S) bool -> (R, S, hidden)."""
        return self.attend(hidden, *self.keys_values(hidden), mask)


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward network, each with residual and norm after it."""

    recomputed = False
    """Whether ``run_layers`` forgets what lies between the input and the output, and computes it again for the gradients."""

    def __init__(
        self, hidden_size: int, num_heads: int, intermediate_size: int, hidden_dropout: float, attention_dropout: float
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(hidden_size, num_heads, hidden_dropout, attention_dropout)
        self.intermediate = nn.Linear(hidden_size, intermediate_size)
        self.output = nn.Linear(intermediate_size, hidden_size)
        self.dropout = nn.Dropout(hidden_dropout)
        self.norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(R, S, hidden), mask (R, 1, S or 1, S) bool -> (R, S, hidden)."""
        return self.feed_forward(self.attention(hidden, mask))

    def feed_forward(self, hidden: Tensor) -> Tensor:
        """The second half: (R, S, hidden) -> (R, S, hidden)."""
        return self.norm(hidden + self.dropout(self.output(F.gelu(self.intermediate(hidden)))))


class Projection(nn.Module):
    """Norm, dropout, linear map and ReLU: how frames enter the temporal encoder and words the query encoder."""

    def __init__(self, width: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, hidden_size)

    def forward(self, features: Tensor) -> Tensor:
        """(..., width) -> (..., hidden)."""
        return F.relu(self.linear(self.dropout(self.norm(features))))


def run_layers(layers: nn.ModuleList, hidden: Tensor, mask: Tensor) -> Tensor:
    """Pass hidden states through a stack of transformer layers."""
    for layer in layers:
        if layer.recomputed and torch.is_grad_enabled():
            hidden = checkpoint(layer, hidden, mask, use_reentrant=False)
        else:
            hidden = layer(hidden, mask)
    return hidden


def initialise(module: nn.Module, deviation: float) -> None:
    """Draw the weights of an encoder as BERT does: normal, biases zero, norms one."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=deviation)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


def gather_rows(table: Tensor, index: Tensor) -> Tensor:
    """Look up each row's indices in the row's own table: (R, F, width), (R, S) -> (R, S, width)."""
    rows, frames, width = table.shape
    offset = torch.arange(rows, device=table.device, dtype=index.dtype)[:, None] * frames
    return F.embedding(index + offset, table.reshape(rows * frames, width))
