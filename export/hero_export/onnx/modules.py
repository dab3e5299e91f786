"""The modules that become graphs: tensors in, tensors out, the batch in front of each and nothing else that may vary.

Each takes its inputs in the order of its graph; see ``hero_export.onnx.graphs`` for their names and shapes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements, HeroWithText
from hero_train.model.captioning import HeroForCaptioning
from hero_train.model.hero import HeroEncoders, HeroModel


class CrossModalGraph(nn.Module):
    """Stage 1: the arrays of ``CrossModalRows`` to ``hidden``."""

    def __init__(self, model: HeroEncoders) -> None:
        super().__init__()
        self.cross_modal = model.cross_modal

    def forward(
        self, frame_features: Tensor, frame_index: Tensor, token_ids: Tensor, position_ids: Tensor, segment_ids: Tensor
    ) -> Tensor:
        """(R, F, feature_dim) and four of (R, S) int32 -> (R, S, hidden)."""
        return self.cross_modal(frame_features, frame_index, token_ids, position_ids, segment_ids)


class TemporalGraph(nn.Module):
    """Stage 2: the arrays of ``TemporalRows`` and the regrouped stage-1 output to ``clip_embeddings``."""

    def __init__(self, model: HeroEncoders) -> None:
        super().__init__()
        self.temporal = model.temporal

    def forward(self, frame_features: Tensor, position_ids: Tensor, segment_ids: Tensor, matched: Tensor) -> Tensor:
        """(R, S, feature_dim), two of (R, S) int32, (R, S, hidden) -> (R, S, hidden)."""
        return self.temporal(frame_features, matched, position_ids, segment_ids)


class TextTemporalGraph(nn.Module):
    """Stage 2 over frames and text: the arrays of ``TextTemporalRows`` and the regrouped output to ``clip_embeddings``."""

    def __init__(self, model: HeroWithText) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, frame_features: Tensor, position_ids: Tensor, segment_ids: Tensor, token_ids: Tensor, matched: Tensor
    ) -> Tensor:
        """(R, S, feature_dim), three of (R, S) int32, (R, S, hidden) -> (R, S, hidden)."""
        return self.model.encode_rows(frame_features, position_ids, segment_ids, token_ids, matched)


class QueryGraph(nn.Module):
    """Queries as ``pack_queries`` lays them out to ``query_vector`` and ``span_vector``."""

    def __init__(self, model: HeroModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, token_ids: Tensor, segment_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Two of (Q, T) int32 -> (Q, hidden), (Q, hidden)."""
        encoded = self.model.encode_queries(token_ids, segment_ids)
        return encoded.vector, encoded.span_vector


class MomentGraph(nn.Module):
    """A query and the clips of one video each to ``start`` and ``end``, as ``hero_sdk.spans.span_logits`` computes them.

    For engines that keep the clips where the encoders ran; the SDK searches in numpy. Clips beyond a video's end have the logit
    ``MASKED_LOGIT``, where numpy has minus infinity.
    """

    def __init__(self, model: HeroModel) -> None:
        super().__init__()
        self.head = model.moment

    def forward(self, span_vector: Tensor, clips: Tensor, clip_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, hidden), (B, L, hidden), (B, L) bool -> twice (B, L)."""
        # Clips beyond the end are zeroed, and so are their products.
        products = torch.matmul(clips, span_vector[:, :, None]).squeeze(-1)
        return self.head.edge_logits(products.masked_fill(~clip_mask, 0.0), clip_mask)


class AnswerGraph(nn.Module):
    """The clips of a video, encoded once with each answer, to logits of the answers and of the moment's first and last clip."""

    def __init__(self, model: HeroForQuestionAnswering) -> None:
        super().__init__()
        self.model = model

    def forward(self, clips: Tensor, clip_mask: Tensor, answer_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(Q, A, L, hidden), (Q, L) bool, (Q, A) bool -> (Q, A), (Q, L), (Q, L)."""
        logits = self.model.head(clips, clip_mask, answer_mask)
        return logits.answer, logits.start, logits.end


class StatementGraph(nn.Module):
    """The clips of a video, encoded with a statement, to the logit that it is true."""

    def __init__(self, model: HeroForStatements) -> None:
        super().__init__()
        self.model = model

    def forward(self, clips: Tensor, clip_mask: Tensor) -> Tensor:
        """(V, L, hidden), (V, L) bool -> (V, 1)."""
        return self.model.head(clips, clip_mask)[:, None]


class PrefillGraph(nn.Module):
    """The clips of moments to what every step of the caption decoder reads of them."""

    def __init__(self, model: HeroForCaptioning) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(self, clips: Tensor) -> Tensor:
        """(N, C, hidden) -> (N, layers, 2, heads, C, width)."""
        return self.decoder.prefill(clips)


class StepGraph(nn.Module):
    """One word of each caption to the logits of the next, and to the cache with this word in it."""

    first: Tensor

    def __init__(self, model: HeroForCaptioning, clips: int) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("first", torch.arange(clips) == 0, persistent=False)

    def forward(
        self, token_ids: Tensor, positions: Tensor, cache: Tensor, memory: Tensor, clip_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One step of ``N`` captions with ``P`` places in the cache and ``C`` clips.

        Args:
            token_ids, positions: (N, 1) int32, the last word of each caption and its place.
            cache: (N, layers, 2, heads, P, width).
            memory: (N, layers, 2, heads, C, width).
            clip_mask: (N, C) bool.

        Returns:
            (N, vocabulary), and the cache for the next step.
        """
        # A moment has a first clip. A row that only fills a batch has none, and attention to nothing is no number.
        seen = clip_mask | self.first
        return self.model.step(token_ids[:, 0], positions[:, 0], cache, memory, seen)
