"""AdamW as the paper uses it: no decay on biases and norms, linear warm-up, linear decay."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW, Optimizer

from hero_train.run_config import OptimisationSection

FINAL_RATE = 1e-8


def build_optimiser(model: nn.Module, config: OptimisationSection) -> AdamW:
    """AdamW over a model's parameters, in two groups: with and without weight decay."""
    plain: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.LayerNorm)
        for parameter in module.parameters()
    }
    for name, parameter in model.named_parameters():
        (plain if name.endswith("bias") or id(parameter) in norms else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon)


def learning_rate(step: int, config: OptimisationSection) -> float:
    """The learning rate of a step, counted from 0: linear warm-up, then linear decay to next to nothing."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    left = (config.steps - step) / max(1, config.steps - config.warmup)
    return max(FINAL_RATE, config.learning_rate * left)


def set_learning_rate(optimiser: Optimizer, rate: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate
