"""How a run is spread over processes: whole weights in each of them (DDP), or a share of the weights in each (FSDP).

FSDP shards weights, gradients and the optimiser's moments, layer by layer, and gathers the weights of a layer when it computes.
Both take the mean of the gradients over processes, and compute in the run's precision by autocast, so they give the same results.
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
)
from torch.distributed.fsdp import MixedPrecisionPolicy

from hero_train.model.layers import TransformerLayer
from hero_train.precision import mixed_precision
from hero_train.run_config import BaseRunConfig

WAIT = timedelta(hours=12)
"""How long processes wait for one another: one of them extracts all features, and judges, while the others do nothing."""


def make_accelerator(config: BaseRunConfig) -> Accelerator:
    """The accelerator of a run.

    On CPUs, Accelerate takes no notice of FSDP and would train by DDP. What it does with FSDP works there, too (torch has it, over
    gloo), so it is told.
    """
    sharding = None
    # The configuration decides, whatever a launcher or an earlier run of this process left there.
    os.environ["ACCELERATE_USE_FSDP"] = "false"
    if config.distributed == "fsdp":
        sharding = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=[TransformerLayer.__name__],
            # Weights stay fp32, and autocast decides what is computed in less, as it does without FSDP.
            mixed_precision_policy=MixedPrecisionPolicy(),
        )
    accelerator = Accelerator(
        # Without this, several processes on CPUs would each train a model of their own.
        cpu=not torch.accelerator.is_available(),
        mixed_precision=mixed_precision(config.precision),
        gradient_accumulation_steps=config.optimisation.accumulation,
        log_with=list(config.trackers) or None,
        project_dir=config.output,
        fsdp_plugin=sharding,
        kwargs_handlers=[
            # A step may leave heads without a gradient: those of pre-training's other tasks. It also keeps the order in which
            # gradients are added from changing after the first step, so that a resumed run adds as the first one did.
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=WAIT),
        ],
    )
    if sharding is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        for state in (PartialState(), accelerator.state):
            state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = sharding
    return accelerator
