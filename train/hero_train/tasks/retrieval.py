"""Moment retrieval (VCMR, SVMR, VR): from a batch to its loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hero_train.data.sampling import RetrievalBatch
from hero_train.gathering import Processes
from hero_train.losses import JointQueries, RetrievalLoss, RetrievalLossConfig, retrieval_loss
from hero_train.model.hero import HeroModel


class RetrievalTask(nn.Module):
    """A model with its retrieval loss, as one module: what distributed training wraps.

    Args:
        model: the model to train.
        loss: weights and shape of the loss.
    """

    def __init__(self, model: HeroModel, loss: RetrievalLossConfig) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: RetrievalBatch) -> RetrievalLoss:
        """The loss of one batch; in training, that of the joint batch of all processes."""
        return matching_loss(self.model, batch, self.loss, Processes.in_training(self.training))


def matching_loss(
    model: HeroModel, batch: RetrievalBatch, config: RetrievalLossConfig, processes: Processes
) -> RetrievalLoss:
    """The loss of queries and videos, each query against the videos of all processes and each video against their queries.

    What travels between processes is a vector per query and a score per query and video, and no clip embeddings.
    """
    clips, mask = model.unpack(batch.packed, model.encode_videos(batch.packed))
    return clips_loss(model, clips, mask, batch, config, processes)


def clips_loss(
    model: HeroModel,
    clips: Tensor,
    mask: Tensor,
    batch: RetrievalBatch,
    config: RetrievalLossConfig,
    processes: Processes,
) -> RetrievalLoss:
    """``matching_loss`` of videos that are encoded: clips (V, L, hidden) and their mask (V, L) bool, False beyond a video's end."""
    inputs = model.tensors(
        {name: getattr(batch, name) for name in ("token_ids", "segment_ids", "targets", "marked", "query_video")}
    )
    queries = model.encode_queries(inputs["token_ids"], inputs["segment_ids"])
    owner = inputs["query_video"]
    start, end = model.moment.span_logits(queries.span_vector, clips, mask)
    own = (torch.arange(len(owner), device=owner.device), owner)
    joint = JointQueries(*processes.shares(len(owner), len(clips), device=owner.device))
    cosine = model.moment.clip_similarity(joint.queries.gather(queries.vector), clips, mask)
    # In half precision the losses would lose the small differences that they are made of.
    starts, ends = start[own].float(), end[own].float()
    return retrieval_loss(cosine.float(), starts, ends, inputs["targets"], owner, config, inputs["marked"], joint)
