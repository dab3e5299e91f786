"""AdamW as the paper uses it: no decay on biases and norms, a rate of their own for heads, linear warm-up, linear decay."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW, Optimizer

from hero_train.run_config import OptimisationSection

FINAL_RATE = 1e-8

ENCODERS = ("cross_modal.", "temporal.")
"""Where the names of the encoders' parameters begin; all others are a head's."""


def build_optimiser(model: nn.Module, config: OptimisationSection) -> AdamW:
    """AdamW over a model's parameters, in groups: encoders and heads, with and without weight decay.

    Each group has a ``factor`` on the learning rate of its step, see ``set_learning_rate``.
    """
    norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.LayerNorm)
        for parameter in module.parameters()
    }
    members: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decays = not (name.endswith("bias") or id(parameter) in norms)
        members.setdefault((name.startswith(ENCODERS), decays), []).append(parameter)
    groups = []
    for (in_encoders, decays), parameters in sorted(members.items(), reverse=True):
        factor = 1.0 if in_encoders else config.head_rate
        decay = config.weight_decay if decays else 0.0
        groups.append(
            {"params": parameters, "weight_decay": decay, "factor": factor, "lr": factor * config.learning_rate}
        )
    return AdamW(groups, betas=config.betas, eps=config.epsilon)


def learning_rate(step: int, config: OptimisationSection) -> float:
    """The learning rate of a step, counted from 0: linear warm-up, then linear decay to next to nothing."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    left = (config.steps - step) / max(1, config.steps - config.warmup)
    return max(FINAL_RATE, config.learning_rate * left)


def set_learning_rate(optimiser: Optimizer, rate: float) -> None:
    """Give every parameter group this learning rate times its factor."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]
