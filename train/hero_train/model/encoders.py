"""HERO's three encoders: cross-modal, temporal, query (paper, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hero_train.config import HeroConfig
from hero_train.model.layers import Projection, SelfAttention, TransformerLayer, gather_rows, run_layers, segment_mask

MODALITY_TYPE = 1
"""The row of the type table that text and frames alike use, as in the authors' code."""


def _layers(config: HeroConfig, count: int) -> nn.ModuleList:
    return nn.ModuleList(
        TransformerLayer(
            config.hidden_size,
            config.num_heads,
            config.intermediate_size,
            config.hidden_dropout,
            config.attention_dropout,
        )
        for _ in range(count)
    )


class TextEmbeddings(nn.Module):
    """Word, position and type embeddings of tokens."""

    def __init__(self, config: HeroConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.text_positions, config.hidden_size)
        self.token_type = nn.Embedding(2, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, token_ids: Tensor, position_ids: Tensor) -> Tensor:
        """(R, S), (R, S) or (S,) -> (R, S, hidden)."""
        summed = self.word(token_ids) + self.position(position_ids) + self.token_type.weight[MODALITY_TYPE]
        return self.dropout(self.norm(summed))


class FrameEmbeddings(nn.Module):
    """Frame features, projected, with their position within the subtitle. The type embedding is the text's."""

    def __init__(self, config: HeroConfig) -> None:
        super().__init__()
        self.feature_norm = nn.LayerNorm(config.feature_dim)
        self.linear = nn.Linear(config.feature_dim, config.hidden_size)
        self.position = nn.Embedding(config.frame_positions, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, features: Tensor, frame_index: Tensor, position_ids: Tensor, type_embedding: Tensor) -> Tensor:
        """Embed a row's slots.

        Args:
            features: (R, F, feature_dim) the row's table.
            frame_index: (R, S) each slot's frame in the table, at least 0.
            position_ids: (R, S) each frame's place in its subtitle.
            type_embedding: (hidden,).

        Returns:
            (R, S, hidden).
        """
        # Projected once per frame of the table, not once per slot: the table is shorter than the row.
        projected = gather_rows(self.linear(self.feature_norm(features)), frame_index)
        return self.dropout(self.norm(projected + self.position(position_ids) + type_embedding))


class CrossModalEncoder(nn.Module):
    """Stage 1: each subtitle together with the frames it is spoken over."""

    def __init__(self, config: HeroConfig) -> None:
        super().__init__()
        self.text = TextEmbeddings(config)
        self.frames = FrameEmbeddings(config)
        self.layers = _layers(config, config.cross_modal_layers)

    def embed(self, frame_features: Tensor, frame_index: Tensor, token_ids: Tensor, position_ids: Tensor) -> Tensor:
        """Embeddings of a packed row's slots, (R, S, hidden); see ``hero_sdk.rows.CrossModalRows`` for the inputs."""
        is_frame = frame_index >= 0
        frame_positions = position_ids.clamp(max=self.frames.position.num_embeddings - 1)
        frames = self.frames(
            frame_features, frame_index.clamp(min=0), frame_positions, self.text.token_type.weight[MODALITY_TYPE]
        )
        return torch.where(is_frame[..., None], frames, self.text(token_ids, position_ids))

    def forward(
        self, frame_features: Tensor, frame_index: Tensor, token_ids: Tensor, position_ids: Tensor, segment_ids: Tensor
    ) -> Tensor:
        """Encode packed rows, (R, S, hidden); see ``hero_sdk.rows.CrossModalRows`` for the inputs."""
        hidden = self.embed(frame_features, frame_index, token_ids, position_ids)
        return run_layers(self.layers, hidden, segment_mask(segment_ids))

    def encode_text(self, token_ids: Tensor, segment_ids: Tensor) -> Tensor:
        """Encode text without frames, one sequence per row: (Q, T), (Q, T) -> (Q, T, hidden)."""
        positions = torch.arange(token_ids.shape[1], device=token_ids.device, dtype=token_ids.dtype)
        return run_layers(self.layers, self.text(token_ids, positions), segment_mask(segment_ids))


class TemporalEncoder(nn.Module):
    """Stage 2: all frames of a video, after what stage 1 found in them."""

    def __init__(self, config: HeroConfig) -> None:
        super().__init__()
        self.frames = Projection(config.feature_dim, config.hidden_size, config.hidden_dropout)
        self.position = nn.Embedding(config.temporal_positions, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = _layers(config, config.temporal_layers)

    def embed(self, frame_features: Tensor, matched: Tensor, position_ids: Tensor) -> Tensor:
        """Projected features plus the matched stage-1 outputs plus positions, normalised: (R, S, hidden)."""
        return self.dropout(self.norm(self.frames(frame_features) + matched + self.position(position_ids)))

    def forward(self, frame_features: Tensor, matched: Tensor, position_ids: Tensor, segment_ids: Tensor) -> Tensor:
        """Encode packed rows.

        Args:
            frame_features, position_ids, segment_ids: as in ``hero_sdk.rows.TemporalRows``.
            matched: (R, S, hidden) stage-1 output of each frame, zero where no subtitle owns it.

        Returns:
            (R, S, hidden) clip embeddings.
        """
        return run_layers(self.layers, self.embed(frame_features, matched, position_ids), segment_mask(segment_ids))


class QueryEncoder(nn.Module):
    """From the words of a query, as the cross-modal encoder sees them, to one vector."""

    def __init__(self, config: HeroConfig) -> None:
        super().__init__()
        self.projection = Projection(config.hidden_size, config.hidden_size, config.hidden_dropout)
        self.position = nn.Embedding(config.query_positions, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.attention = SelfAttention(
            config.hidden_size, config.num_heads, config.hidden_dropout, config.attention_dropout
        )
        self.pooling = nn.Linear(config.hidden_size, 1, bias=False)

    def embed(self, words: Tensor) -> Tensor:
        """Projected words with positions: (Q, T, hidden) -> (Q, T, hidden)."""
        positions = self.position.weight[: words.shape[1]]
        return self.dropout(self.norm(self.projection(words) + positions))

    def forward(self, words: Tensor, segment_ids: Tensor) -> Tensor:
        """(Q, T, hidden), (Q, T) -> (Q, hidden): self-attention, then attention pooling over the query's own words."""
        attended = self.attention(self.embed(words), segment_mask(segment_ids))
        weights = self.pooling(attended).masked_fill(segment_ids[..., None] == 0, -1e4).softmax(dim=1)
        return (weights * attended).sum(dim=1)
