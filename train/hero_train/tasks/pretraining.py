"""Pre-training (MLM, MFM-NCE, MFFR, FOM, VSM): from a batch to its loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hero_train.data.pretraining import FrameBatch, OrderBatch, PretrainingBatch, WordBatch
from hero_train.gathering import Processes
from hero_train.losses import IGNORED_TARGET, RetrievalLossConfig
from hero_train.losses_pretraining import classification_loss, contrast_loss, regression_loss
from hero_train.model.pretraining import HeroForPretraining
from hero_train.tasks.retrieval import matching_loss


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
        """The loss of one batch, a scalar; in training, that of the joint batch of all processes."""
        processes = Processes.in_training(self.training)
        if isinstance(batch, WordBatch):
            return self._words(batch, processes)
        if isinstance(batch, FrameBatch):
            return self._frames(batch, processes)
        if isinstance(batch, OrderBatch):
            return self._order(batch, processes)
        return matching_loss(self.model, batch, self.matching, processes).total

    # In half precision the losses would lose the small differences that they are made of, hence the float().

    def _words(self, batch: WordBatch, processes: Processes) -> Tensor:
        model = self.model
        hidden = model.cross_modal(**model.cross_modal_inputs(batch.packed))
        labels = torch.from_numpy(batch.labels).to(model.device)
        asked = labels != IGNORED_TARGET
        return classification_loss(model.word_logits(hidden[asked]).float(), labels[asked], processes)

    def _frames(self, batch: FrameBatch, processes: Processes) -> Tensor:
        model = self.model
        clips = model.encode_masked_videos(batch.packed, batch.masks)
        masked = torch.from_numpy(batch.masks["temporal"]).to(model.device)
        features = torch.from_numpy(batch.features).to(model.device)
        predicted = model.regression(clips[masked]).float()
        asked = masked.sum()
        if batch.objective == "mffr":
            return processes.mean(regression_loss(predicted, features).sum(), asked)
        # As in the authors' code, what a frame is told apart from are the frames of its own process.
        # The authors take the padding of their batch for frames, too; that makes a video's loss depend on the others' lengths.
        there = torch.from_numpy(batch.packed.temporal.segment_ids > 0).to(model.device)
        others = model.regression(clips[there & ~masked]).float()
        return processes.mean(contrast_loss(predicted, features, others).sum(), asked)

    def _order(self, batch: OrderBatch, processes: Processes) -> Tensor:
        model = self.model
        labels = torch.from_numpy(batch.labels).to(model.device)
        asked = labels != IGNORED_TARGET
        places = model.order(model.encode_videos(batch.packed)[asked]).float()
        return classification_loss(places, labels[asked], processes)
