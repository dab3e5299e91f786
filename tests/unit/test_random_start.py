"""What a model with random weights begins with: features that stand out, and a head that looks for edges."""

from __future__ import annotations

import pytest
import torch

from hero_train.model.hero import SMALLEST_DEVIATION, HeroModel
from tests.tiny_training import tiny_config


@pytest.fixture
def features() -> torch.Tensor:
    """Features with a large common part, as those of a convolutional network have."""
    generator = torch.Generator().manual_seed(0)
    common = torch.linspace(-30, 30, 6)
    return common + torch.randn(200, 6, generator=generator) * torch.linspace(2, 6, 6)


def test_every_feature_leaves_the_norms_with_mean_0_and_deviation_1(features: torch.Tensor) -> None:
    model = HeroModel(tiny_config())
    model.standardise_features(features)
    for norm in (model.cross_modal.frames.feature_norm, model.temporal.frames.norm):
        out = norm(features)
        torch.testing.assert_close(out.mean(dim=0), torch.zeros(6), rtol=0, atol=1e-4)
        torch.testing.assert_close(out.std(dim=0), torch.ones(6), rtol=1e-3, atol=0)


def test_a_feature_that_never_differs_is_not_blown_up(features: torch.Tensor) -> None:
    model = HeroModel(tiny_config())
    model.standardise_features(features[:1].repeat(50, 1))
    assert (model.temporal.frames.norm.weight <= 1 / SMALLEST_DEVIATION).all()
    assert model.temporal.frames.norm(features).isfinite().all()


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize(("first", "last"), [(6, 9), (4, 4), (8, 10)])
def test_start_and_end_are_highest_at_the_edges_of_a_moment(kernel: int, first: int, last: int) -> None:
    """Clips of a moment are like the query and all others unlike it; a kernel of one sees no edge, only the moment."""
    model = HeroModel(tiny_config(conv_kernel=kernel))
    model.moment.initialise_edges()
    hidden = model.config.hidden_size
    clips = torch.full((1, 16, hidden), -1.0)
    clips[0, first : last + 1] = 1.0
    vector = torch.ones(1, hidden)
    start, end = (part[0, 0] for part in model.moment.span_logits(vector, clips, torch.ones(1, 16, dtype=torch.bool)))
    if kernel == 1:
        assert set(torch.nonzero(start == start.max()).flatten().tolist()) == set(range(first, last + 1))
    else:
        assert int(start.argmax()) == first
        assert int(end.argmax()) == last
