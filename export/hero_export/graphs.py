"""The graphs of a bundle: what goes in, what comes out, and the module that computes it.

Names, order and dtypes are the contract with ``hero_sdk``: the inputs are the arrays of ``hero_sdk.rows``, as they are packed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hero_sdk.manifest import CROSS_MODAL_GRAPH, QUERY_GRAPH, TEMPORAL_GRAPH, TensorSpec
from hero_sdk.rows import RowGeometry
from hero_train.model.hero import HeroModel

BATCH = -1
"""Stands for the batch in a ``TensorSpec``, the only dimension that may vary."""


class CrossModalGraph(nn.Module):
    """Stage 1: the arrays of ``CrossModalRows`` to ``hidden``."""

    def __init__(self, model: HeroModel) -> None:
        super().__init__()
        self.cross_modal = model.cross_modal

    def forward(
        self, frame_features: Tensor, frame_index: Tensor, token_ids: Tensor, position_ids: Tensor, segment_ids: Tensor
    ) -> Tensor:
        """(R, F, feature_dim) and four of (R, S) int32 -> (R, S, hidden)."""
        return self.cross_modal(frame_features, frame_index, token_ids, position_ids, segment_ids)


class TemporalGraph(nn.Module):
    """Stage 2: the arrays of ``TemporalRows`` and the regrouped stage-1 output to ``clip_embeddings``."""

    def __init__(self, model: HeroModel) -> None:
        super().__init__()
        self.temporal = model.temporal

    def forward(self, frame_features: Tensor, position_ids: Tensor, segment_ids: Tensor, matched: Tensor) -> Tensor:
        """(R, S, feature_dim), two of (R, S) int32, (R, S, hidden) -> (R, S, hidden)."""
        return self.temporal(frame_features, matched, position_ids, segment_ids)


class QueryGraph(nn.Module):
    """Queries as ``pack_queries`` lays them out to ``query_vector`` and ``span_vector``."""

    def __init__(self, model: HeroModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, token_ids: Tensor, segment_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Two of (Q, T) int32 -> (Q, hidden), (Q, hidden)."""
        encoded = self.model.encode_queries(token_ids, segment_ids)
        return encoded.vector, encoded.span_vector


@dataclass(frozen=True)
class Graph:
    """One graph to export.

    Attributes:
        name: in the manifest.
        module: computes it; in evaluation mode, float32, on the CPU.
        inputs, outputs: in the order of the module.
    """

    name: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def file(self) -> str:
        """Path in the bundle."""
        return f"graphs/{self.name}.onnx"

    def example(self, batch: int) -> tuple[Tensor, ...]:
        """Inputs to trace the module with: zeros, which are valid ids everywhere."""
        return tuple(
            torch.zeros((batch, *tensor.shape[1:]), dtype=getattr(torch, tensor.dtype)) for tensor in self.inputs
        )


def model_graphs(model: HeroModel, geometry: RowGeometry) -> tuple[Graph, ...]:
    """The three graphs of a model for one row geometry. The model is put into evaluation mode, float32, on the CPU."""
    model = model.eval().float().cpu()
    config = model.config
    rows, clips, tokens = geometry.slots, geometry.temporal_slots, geometry.query_tokens
    return (
        Graph(
            CROSS_MODAL_GRAPH,
            CrossModalGraph(model).eval(),
            inputs=(
                TensorSpec("frame_features", "float32", (BATCH, geometry.frames, config.feature_dim)),
                TensorSpec("frame_index", "int32", (BATCH, rows)),
                TensorSpec("token_ids", "int32", (BATCH, rows)),
                TensorSpec("position_ids", "int32", (BATCH, rows)),
                TensorSpec("segment_ids", "int32", (BATCH, rows)),
            ),
            outputs=(TensorSpec("hidden", "float32", (BATCH, rows, config.hidden_size)),),
        ),
        Graph(
            TEMPORAL_GRAPH,
            TemporalGraph(model).eval(),
            inputs=(
                TensorSpec("frame_features", "float32", (BATCH, clips, config.feature_dim)),
                TensorSpec("position_ids", "int32", (BATCH, clips)),
                TensorSpec("segment_ids", "int32", (BATCH, clips)),
                TensorSpec("matched", "float32", (BATCH, clips, config.hidden_size)),
            ),
            outputs=(TensorSpec("clip_embeddings", "float32", (BATCH, clips, config.hidden_size)),),
        ),
        Graph(
            QUERY_GRAPH,
            QueryGraph(model).eval(),
            inputs=(
                TensorSpec("token_ids", "int32", (BATCH, tokens)),
                TensorSpec("segment_ids", "int32", (BATCH, tokens)),
            ),
            outputs=(
                TensorSpec("query_vector", "float32", (BATCH, config.hidden_size)),
                TensorSpec("span_vector", "float32", (BATCH, config.hidden_size)),
            ),
        ),
    )
