"""``torch.compile`` of the encoder layers, where the time is."""

from __future__ import annotations

import shutil

import torch
from torch import nn

from hero_train.errors import ConfigError
from hero_train.model.layers import TransformerLayer


def compile_layers(model: nn.Module) -> None:
    """Compile every transformer layer of a model in place; the names of its weights stay.

    All layers of one kind are the same program, so that it is compiled once, and not once per layer. The number of rows varies
    from batch to batch, and the number of slots with the length of the queries: both are dynamic. (One row alone, and evaluation,
    are compiled once more each.)

    Raises:
        ConfigError: no compiler.
    """
    if not torch.cuda.is_available():
        check_compiler()
    for module in model.modules():
        if isinstance(module, TransformerLayer):
            module.compile(dynamic=True)


def check_compiler() -> None:
    """Refuse a machine without the C++ compiler that torch compiles with, before the first step does it in its own words.

    Raises:
        ConfigError: none of the commands that torch tries is there.
    """
    from torch._inductor import config

    named = config.cpp.cxx
    tried = [name for name in (named if isinstance(named, list | tuple) else (named,)) if name]
    if not any(shutil.which(name) for name in tried):
        raise ConfigError(
            f"compile is on, and there is no C++ compiler: {', '.join(tried)} cannot be found. Install g++, name a compiler in "
            "the environment variable CXX, or leave compile out."
        )
