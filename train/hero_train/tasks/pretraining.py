"""Pre-training (MLM, MFM-NCE, MFFR, FOM, VSM): from a batch to its loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hero_train.data.pretraining import FrameBatch, OrderBatch, PretrainingBatch, WordBatch
from hero_train.losses import IGNORED_TARGET, RetrievalLossConfig
from hero_train.losses_pretraining import classification_loss, contrast_loss, regression_loss
from hero_train.model.pretraining import HeroForPretraining
from hero_train.tasks.retrieval import RetrievalTask


class PretrainingTask(nn.Module):
    """A model with the losses of pre-training, as one module: what distributed training wraps.

    Args:
        model: the model to train.
        matching: weights and shape of the loss of video-subtitle matching.
    """

    def __init__(self, model: HeroForPretraining, matching: RetrievalLossConfig) -> None:
        super().__init__()
        self.model = model
        self.matching = matching

    def forward(self, batch: PretrainingBatch) -> Tensor:
        """The loss of one batch, a scalar."""
        if isinstance(batch, WordBatch):
            return self._words(batch)
        if isinstance(batch, FrameBatch):
            return self._frames(batch)
        if isinstance(batch, OrderBatch):
            return self._order(batch)
        return RetrievalTask(self.model, self.matching)(batch).total

    # In half precision the losses would lose the small differences that they are made of, hence the float().

    def _words(self, batch: WordBatch) -> Tensor:
        model = self.model
        hidden = model.cross_modal(**model.tensors(batch.packed.cross_modal.arrays()))
        labels = torch.from_numpy(batch.labels).to(model.device)
        asked = labels != IGNORED_TARGET
        return classification_loss(model.word_logits(hidden[asked]).float(), labels[asked])

    def _frames(self, batch: FrameBatch) -> Tensor:
        model = self.model
        clips = model.encode_masked_videos(batch.packed, batch.masks)
        masked = torch.from_numpy(batch.masks["temporal"]).to(model.device)
        features = torch.from_numpy(batch.features).to(model.device)
        predicted = model.regression(clips[masked]).float()
        if batch.objective == "mffr":
            return regression_loss(predicted, features).mean()
        # The authors take the padding of their batch for frames, too; that makes a video's loss depend on the others' lengths.
        there = torch.from_numpy(batch.packed.temporal.segment_ids > 0).to(model.device)
        others = model.regression(clips[there & ~masked]).float()
        return contrast_loss(predicted, features, others).mean()

    def _order(self, batch: OrderBatch) -> Tensor:
        model = self.model
        labels = torch.from_numpy(batch.labels).to(model.device)
        asked = labels != IGNORED_TARGET
        return classification_loss(model.order(model.encode_videos(batch.packed)[asked]).float(), labels[asked])
