"""The objectives of pre-training against their formulas, written out one frame at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hero_train.losses import IGNORED_TARGET
from hero_train.losses_pretraining import classification_loss, contrast_loss, regression_loss


def seeded(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def close(actual: Tensor, expected: list[float] | float) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def negative_log_likelihood(scores: list[float], target: int) -> float:
    return math.log(sum(math.exp(score) for score in scores)) - scores[target]


def test_classification_is_the_mean_over_what_is_asked() -> None:
    logits, targets = seeded(5, 7), torch.tensor([3, IGNORED_TARGET, 0, 6, IGNORED_TARGET])
    asked = [(logits[row].tolist(), int(targets[row])) for row in (0, 2, 3)]
    close(classification_loss(logits, targets), sum(negative_log_likelihood(*pair) for pair in asked) / 3)


def test_classification_of_nothing_is_zero_and_so_is_its_gradient() -> None:
    logits = seeded(2, 7).requires_grad_()
    for rows in (slice(None), slice(0, 0)):
        loss = classification_loss(logits[rows], torch.full((2,), IGNORED_TARGET)[rows])
        close(loss.detach(), 0.0)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert not gradient.any()


def test_regression_is_the_euclidean_distance() -> None:
    predicted, features = seeded(4, 6), seeded(4, 7)[:, :6]
    close(
        regression_loss(predicted, features),
        [math.dist(*pair) for pair in zip(predicted.tolist(), features.tolist(), strict=True)],
    )


def test_regression_that_is_right_has_a_gradient_of_zero() -> None:
    predicted = seeded(3, 4).requires_grad_()
    regression_loss(predicted, predicted.detach().clone()).sum().backward()
    assert predicted.grad is not None
    assert not predicted.grad.any()


def test_contrast_finds_each_feature_among_all_features_and_the_other_predictions() -> None:
    predicted, features, others = seeded(3, 5), seeded(3, 6)[:, :5], seeded(4, 5)
    expected = []
    for number, prediction in enumerate(predicted):
        scores = [float((prediction * candidate).sum()) for candidate in [*features, *others]]
        expected.append(negative_log_likelihood(scores, number))
    close(contrast_loss(predicted, features, others), expected)


def test_contrast_without_other_frames_is_among_the_masked_ones() -> None:
    predicted, features = seeded(2, 5), seeded(2, 6)[:, :5]
    expected = [negative_log_likelihood((predicted[row] @ features.T).tolist(), row) for row in range(2)]
    close(contrast_loss(predicted, features, predicted[:0]), expected)
