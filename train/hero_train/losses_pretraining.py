"""Objectives of pre-training on words, frames and frame order (paper, section 3.2); matching subtitles has the retrieval loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hero_train.gathering import ALONE, Processes
from hero_train.losses import IGNORED_TARGET


def classification_loss(logits: Tensor, targets: Tensor, processes: Processes = ALONE) -> Tensor:
    """The mean cross-entropy of masked words, or of the frames whose place was shuffled.

    Args:
        logits: (N, classes).
        targets: (N,) int; ``IGNORED_TARGET`` where nothing is asked.
        processes: over whose batches the mean is.

    Returns:
        A scalar; zero where nothing is asked at all. (There the authors' loss is not a number.)
    """
    total = F.cross_entropy(logits, targets.long(), ignore_index=IGNORED_TARGET, reduction="sum")
    return processes.mean(total, (targets != IGNORED_TARGET).sum())


def regression_loss(predicted: Tensor, features: Tensor) -> Tensor:
    """MFFR: the Euclidean distance of each masked frame's prediction from its feature, (M, D) each -> (M,)."""
    return torch.linalg.vector_norm(predicted - features, dim=1)


def contrast_loss(predicted: Tensor, features: Tensor, others: Tensor) -> Tensor:
    """MFM-NCE: find each masked frame's feature among those of all masked frames and the predictions at all other frames.

    Args:
        predicted: (M, D) predictions at masked frames.
        features: (M, D) what they were.
        others: (N, D) predictions at frames that are not masked.

    Returns:
        (M,) cross-entropy of each masked frame.
    """
    logits = predicted @ torch.cat([features, others]).T
    return F.cross_entropy(logits, torch.arange(len(predicted), device=logits.device), reduction="none")
