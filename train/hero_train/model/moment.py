"""The moment head: which video, and from which clip to which (paper, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hero_train.config import HeroConfig

MASKED_LOGIT = -1e4
COSINE_EPS = 1e-5


class MomentHead(nn.Module):
    """Similarity of queries with videos, and start and end logits over clips."""

    def __init__(self, config: HeroConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        kernel, padding = config.conv_kernel, config.conv_kernel // 2
        self.start = nn.Conv1d(1, 1, kernel, padding=padding, bias=False)
        self.end = nn.Conv1d(1, 1, kernel, padding=padding, bias=False)

    @torch.no_grad()
    def initialise_edges(self) -> None:
        """Let the convolutions begin as detectors of a rise (start) and a fall (end) of the similarity, instead of as noise.

        A handful of weights under a large loss: from noise they take longer to turn round than the encoders take to learn.
        """
        half = self.start.kernel_size[0] // 2
        rise = torch.zeros_like(self.start.weight)
        rise[..., :half], rise[..., half], rise[..., half + 1 : half + 2] = -0.5 / max(half, 1), 0.5, 0.25
        self.start.weight.copy_(rise)
        self.end.weight.copy_(rise.flip(-1))

    def span_logits(self, span_vectors: Tensor, clips: Tensor, clip_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Start and end logits of every query in every video.

        Clips beyond a video's end are zeroed first, so that the logits do not depend on how far a batch was padded. (In the
        authors' code the convolution sees the embeddings of the padding, which changes the last two clips of a video.)

        Args:
            span_vectors: (Q, hidden), from ``query``.
            clips: (V, L, hidden).
            clip_mask: (V, L) bool, False beyond a video's end.

        Returns:
            Start and end logits, (Q, V, L) each, ``MASKED_LOGIT`` beyond the end.
        """
        return self.edge_logits(torch.einsum("qh,vlh->qvl", span_vectors, clips * clip_mask[..., None]), clip_mask)

    def edge_logits(self, similarity: Tensor, clip_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Start and end logits from the products of span vectors and clips, zero beyond a video's end: twice (..., L)."""
        flat = similarity.reshape(-1, 1, similarity.shape[-1])
        start, end = (conv(flat).view_as(similarity) for conv in (self.start, self.end))
        return start.masked_fill(~clip_mask, MASKED_LOGIT), end.masked_fill(~clip_mask, MASKED_LOGIT)

    def clip_similarity(self, query_vectors: Tensor, clips: Tensor, clip_mask: Tensor) -> Tensor:
        """Cosine of each query with each clip: (Q, hidden), (V, L, hidden), (V, L) -> (Q, V, L); ``MASKED_LOGIT`` beyond the end.

        The best clip of a video gives the video's similarity.
        """
        query_vectors = F.normalize(query_vectors, dim=-1, eps=COSINE_EPS)
        cosine = torch.einsum("qh,vlh->qvl", query_vectors, F.normalize(clips, dim=-1, eps=COSINE_EPS))
        return cosine.masked_fill(~clip_mask, MASKED_LOGIT)
