"""Captioning (TVC): from a batch to its loss."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from hero_train.data.captions import IGNORED_TOKEN, CaptionBatch
from hero_train.errors import ConfigError
from hero_train.gathering import Processes
from hero_train.model.captioning import HeroForCaptioning


def caption_loss(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Divergence of the predicted word from the right one, softened: KL(softened || predicted) per token.

    The softened target gives the right word ``1 - smoothing`` and shares the rest equally among all others.

    Args:
        logits: (..., vocabulary).
        targets: (...) int token ids; ``IGNORED_TOKEN`` where there is none.
        smoothing: at least 0, and less than 1.

    Returns:
        (tokens,) in the order of the targets, without those that are ignored. It is 0 where the prediction is the softened
        target itself; without smoothing it is the cross-entropy.
    """
    known = targets != IGNORED_TOKEN
    vocabulary = logits.shape[-1]
    # The library shares its smoothing among all words, the right one included.
    shared = smoothing * vocabulary / (vocabulary - 1)
    crossed = F.cross_entropy(logits[known], targets[known].long(), reduction="none", label_smoothing=shared)
    entropy = 0.0
    if smoothing:
        entropy = -(1 - smoothing) * math.log(1 - smoothing) - smoothing * math.log(smoothing / (vocabulary - 1))
    return crossed - entropy


class CaptioningTask(nn.Module):
    """A model with its captioning loss, as one module: what distributed training wraps.

    Args:
        model: the model to train.
        smoothing: of the targets; 0.1 in the paper.

    Raises:
        ConfigError: a smoothing out of range.
    """

    def __init__(self, model: HeroForCaptioning, smoothing: float = 0.1) -> None:
        super().__init__()
        limit = 1 - 1 / model.config.vocab_size
        if not 0 <= smoothing <= limit:
            raise ConfigError(f"The label smoothing is {smoothing}; expected 0 to {limit:.4f}.")
        self.model = model
        self.smoothing = smoothing

    def forward(self, batch: CaptionBatch) -> Tensor:
        """The mean over the tokens of one batch, a scalar; in training, over those of the joint batch of all processes."""
        model = self.model
        clips, mask = model.encode_moments(batch.packed, batch.moments)
        inputs = model.tensors({name: getattr(batch, name) for name in ("token_ids", "target_ids", "caption_moment")})
        owner = inputs["caption_moment"]
        logits = model.scores(inputs["token_ids"], clips[owner], mask[owner])
        # In half precision the loss would lose the small differences that it is made of.
        losses = caption_loss(logits.float(), inputs["target_ids"], self.smoothing)
        count = (inputs["target_ids"] != IGNORED_TOKEN).sum()
        return Processes.in_training(self.training).mean(losses.sum(), count)
