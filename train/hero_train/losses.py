"""Objectives of moment retrieval: span cross-entropy and ranking against negatives (paper, section 3.3; VSM and VCMR)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hero_train.gathering import ALONE, Share

IGNORED_TARGET = -1

MASKED_LOGIT = -1e4
"""Instead of minus infinity, which has no gradient where everything is masked."""


@dataclass(frozen=True)
class RetrievalLossConfig:
    """Weights and shape of the retrieval loss; the defaults are the paper's for TVR.

    Attributes:
        span_weight: of the cross-entropy of start and end.
        video_weight: of each query against negative videos.
        query_weight: of each video against negative queries.
        clip_weight: of each of the moment's clips against all clips of the batch, a cross-entropy at ``scale``. Not the paper's:
            its ranking looks at the best clip of a video only, whichever that is, and from random weights it takes very long to
            find the right one.
        ranking: "hinge" is max(0, margin + negative - positive); "lse" is log(1 + exp(negative - positive)); both are the
            paper's. "nce" is the cross-entropy of the positive among all negatives at ``scale``; from scratch it learns much
            faster, since it looks at the negatives that are wrong.
        margin: of the hinge, in cosine.
        scale: on the cosines, for "nce" and clips; 20 is also the scale at which search compares videos.
        hard_negatives: the ``hard_pool`` highest-scoring negatives of each positive count ``hard_weight`` and the rest a tenth,
            instead of all alike; "nce" weighs by score anyway and takes no notice.
    """

    span_weight: float = 0.01
    video_weight: float = 8.0
    query_weight: float = 8.0
    clip_weight: float = 0.0
    ranking: Literal["hinge", "lse", "nce"] = "hinge"
    margin: float = 0.1
    scale: float = 20.0
    hard_negatives: bool = False
    hard_pool: int = 20
    hard_weight: float = 10.0


@dataclass(frozen=True)
class RetrievalLoss:
    """The weighted parts of the loss; each a scalar."""

    span: Tensor
    video: Tensor
    query: Tensor
    clip: Tensor

    @property
    def total(self) -> Tensor:
        """What training minimises."""
        return self.span + self.video + self.query + self.clip


@dataclass(frozen=True)
class JointQueries:
    """This process's share of the queries and of the videos of a joint batch."""

    queries: Share
    videos: Share

    @classmethod
    def alone(cls, cosine: Tensor) -> JointQueries:
        """Of a batch that one process has to itself, by its (Q, V, L) cosines."""
        return cls(*(Share(ALONE, (size,)) for size in cosine.shape[:2]))


def span_loss(start_logits: Tensor, end_logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of start plus that of end, per query.

    Args:
        start_logits, end_logits: (Q, L) of each query in its own video.
        targets: (Q, 2) first and last clip of the moment, both inclusive; ``IGNORED_TARGET`` where unknown.

    Returns:
        (Q,); zero for ignored targets.
    """
    start = F.cross_entropy(start_logits, targets[:, 0].long(), ignore_index=IGNORED_TARGET, reduction="none")
    end = F.cross_entropy(end_logits, targets[:, 1].long(), ignore_index=IGNORED_TARGET, reduction="none")
    return start + end


def ranking_losses(similarity: Tensor, query_video: Tensor, config: RetrievalLossConfig) -> tuple[Tensor, Tensor]:
    """Loss of each query's positive against negative videos, and against its video's negative queries.

    Args:
        similarity: (Q, V) cosine of every query with every video of the batch.
        query_video: (Q,) the video of each query.
        config: shape of the loss.

    Returns:
        Two tensors (Q,), the mean over negatives; zeros when the batch has a single video, which leaves no negative.
    """
    video_count = similarity.shape[1]
    if video_count == 1:
        zeros = similarity.new_zeros(len(similarity))
        return zeros, zeros
    own = F.one_hot(query_video, video_count).bool()
    positive = similarity[own][:, None]
    negative_videos = similarity[~own].view(len(similarity), video_count - 1)
    against_videos = _against(positive, negative_videos, torch.ones_like(negative_videos, dtype=torch.bool), config)
    # Row q: the scores of q's video with every query; those of its own queries are no negatives.
    by_video = similarity.T[query_video]
    against_queries = _against(positive, by_video, ~own.T[query_video], config)
    return against_videos, against_queries


def _against(positive: Tensor, scores: Tensor, negative: Tensor, config: RetrievalLossConfig) -> Tensor:
    """Ranking loss of (Q, 1) positives against the scores (Q, N) that are marked negative: (Q,)."""
    gap = scores - positive
    if config.ranking == "nce":
        # -log softmax of the positive: log(1 + sum of exp(gap)).
        return F.softplus((config.scale * gap).masked_fill(~negative, MASKED_LOGIT).logsumexp(dim=1))
    loss = F.relu(config.margin + gap) if config.ranking == "hinge" else F.softplus(gap)
    if config.hard_negatives:
        order = scores.masked_fill(~negative, -torch.inf).argsort(dim=1, descending=True)
        rank = order.argsort(dim=1)
        loss = loss * torch.where(rank < config.hard_pool, config.hard_weight, 0.1)
    return (loss * negative).sum(dim=1) / negative.sum(dim=1).clamp(min=1)


def _known(targets: Tensor) -> Tensor:
    """Which moments are known: (Q, 2) -> (Q,) bool."""
    return (targets != IGNORED_TARGET).all(dim=1)


def clip_loss(
    cosine: Tensor, targets: Tensor, query_video: Tensor, scale: float, joint: JointQueries | None = None
) -> Tensor:
    """Cross-entropy of each of a moment's clips among all clips of the batch, the mean over the moment.

    Args:
        cosine, targets, query_video, joint: as for ``retrieval_loss``.
        scale: on the cosines.

    Returns:
        (Q,); zero for ignored targets.
    """
    joint = joint or JointQueries.alone(cosine)
    logits = cosine * scale
    everything = joint.videos.gather(logits.logsumexp(dim=2).T).logsumexp(dim=0)[joint.queries.own]
    place = torch.arange(cosine.shape[2], device=cosine.device)
    within = (place >= targets[:, :1]) & (place <= targets[:, 1:])
    own = logits[joint.queries.own][torch.arange(len(targets), device=logits.device), query_video]
    positive = (own * within).sum(dim=1) / within.sum(dim=1).clamp(min=1)
    return (everything - positive).where(_known(targets), 0.0)


def retrieval_loss(
    cosine: Tensor,
    start_logits: Tensor | None,
    end_logits: Tensor | None,
    targets: Tensor,
    query_video: Tensor,
    config: RetrievalLossConfig,
    marked: Tensor | None = None,
    joint: JointQueries | None = None,
) -> RetrievalLoss:
    """The loss of VSM and VCMR on a batch.

    Args:
        cosine: (Q, V, L) of every query with every clip, very negative beyond a video's end. With several processes, the first
            dimension has the queries of all of them, and everything else is of this process alone.
        start_logits, end_logits: (Q, L) of each query in its own video, or None to leave the span loss out of this step.
        targets: (Q, 2).
        query_video: (Q,).
        config: weights and shape.
        marked: (Q,) bool, False where the targets are no moment that somebody marked, so that the span loss leaves them out;
            None counts all.
        joint: the queries and videos of all processes; None for a batch of one process. The loss is that of all of them.
    """
    joint = joint or JointQueries.alone(cosine)
    mean = joint.queries.processes.mean
    similarity = joint.videos.gather(cosine.amax(dim=2).T).T
    against_videos, against_queries = ranking_losses(
        similarity, joint.queries.gather(query_video + joint.videos.start), config
    )
    span = clip = cosine.new_zeros(())
    if start_logits is not None and end_logits is not None:
        spans = targets if marked is None else targets.where(marked[:, None], IGNORED_TARGET)
        span = mean(span_loss(start_logits, end_logits, spans).sum(), _known(spans).sum())
    if config.clip_weight:
        clips = clip_loss(cosine, targets, query_video, config.scale, joint)
        clip = mean(clips.sum(), _known(targets).sum())
    return RetrievalLoss(
        span=config.span_weight * span,
        video=config.video_weight * against_videos.mean(),
        query=config.query_weight * against_queries.mean(),
        clip=config.clip_weight * clip,
    )
