"""AdamW with the paper's groups and schedule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hero_train.model.hero import HeroModel
from hero_train.optimisation import build_optimiser, learning_rate, set_learning_rate
from hero_train.run_config import OptimisationSection
from tests.tiny_training import tiny_config


def groups(model: HeroModel, settings: OptimisationSection) -> dict[float, set[str]]:
    """Names of the parameters by their weight decay."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    found: dict[float, set[str]] = {}
    for group in build_optimiser(model, settings).param_groups:
        found.setdefault(group["weight_decay"], set()).update(names[parameter] for parameter in group["params"])
    return found


def test_every_parameter_is_trained_once() -> None:
    model = HeroModel(tiny_config())
    optimiser = build_optimiser(model, OptimisationSection())
    trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    assert len(trained) == len(set(map(id, trained))) == len(list(model.parameters()))


def test_biases_and_norms_do_not_decay_and_all_else_does() -> None:
    model = HeroModel(tiny_config())
    found = groups(model, OptimisationSection(weight_decay=0.25))
    assert set(found) == {0.25, 0.0}
    norms = {
        f"{name}.{leaf}"
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm)
        for leaf in ("weight", "bias")
    }
    biases = {name for name, _ in model.named_parameters() if name.split(".")[-1] == "bias"}
    assert found[0.0] == norms | biases
    assert {"cross_modal.text.word.weight", "moment.start.weight", "temporal.position.weight"} <= found[0.25]


def test_settings_reach_the_optimiser() -> None:
    settings = OptimisationSection(learning_rate=0.5, betas=(0.7, 0.8), epsilon=1e-3)
    for group in build_optimiser(HeroModel(tiny_config()), settings).param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.7, 0.8), 1e-3)


def test_a_step_is_adamws() -> None:
    """The first step of AdamW: decay, then the learning rate in the direction of the gradient's sign."""
    model = HeroModel(tiny_config())
    settings = OptimisationSection(learning_rate=0.1, weight_decay=0.5, epsilon=1e-12)
    optimiser = build_optimiser(model, settings)
    decayed, plain = model.moment.query.weight, model.moment.query.bias
    before = decayed.detach().clone(), plain.detach().clone()
    (3 * decayed.sum() - 2 * plain.sum()).backward()
    optimiser.step()
    torch.testing.assert_close(decayed.detach(), before[0] * (1 - 0.1 * 0.5) - 0.1)
    torch.testing.assert_close(plain.detach(), before[1] + 0.1)


def test_the_rate_rises_to_its_highest_and_falls_to_almost_nothing() -> None:
    settings = OptimisationSection(steps=10, warmup=4, learning_rate=1.0)
    rates = [learning_rate(step, settings) for step in range(10)]
    assert rates == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert learning_rate(10, settings) == 1e-8


@pytest.mark.parametrize(
    ("steps", "warmup", "expected"), [(3, 0, [1, 2 / 3, 1 / 3]), (2, 4, [1 / 4, 2 / 4]), (1, 1, [1])]
)
def test_the_rate_of_short_runs(steps: int, warmup: int, expected: list[float]) -> None:
    settings = OptimisationSection(steps=steps, warmup=warmup, learning_rate=1.0)
    assert [learning_rate(step, settings) for step in range(steps)] == pytest.approx(expected)


def test_heads_have_a_rate_of_their_own() -> None:
    """As in the paper's runs on TVQA, VIOLIN and TVC: all that is not of the two encoders."""
    model = HeroModel(tiny_config())
    optimiser = build_optimiser(model, OptimisationSection(head_rate=10, learning_rate=0.5))
    names = {parameter: name for name, parameter in model.named_parameters()}

    def rates() -> dict[str, float]:
        return {names[parameter]: group["lr"] for group in optimiser.param_groups for parameter in group["params"]}

    assert {name.split(".")[0] for name, rate in rates().items() if rate == 0.5} == {"cross_modal", "temporal"}
    assert {name.split(".")[0] for name, rate in rates().items() if rate == 5.0} == {"query", "moment"}
    set_learning_rate(optimiser, 0.125)
    assert set(rates().values()) == {0.125, 1.25}
