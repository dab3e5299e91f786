"""Activation checkpointing: the same gradients, bit for bit, from less memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from hero_sdk.rows import RowGeometry, Segment, VideoInput
from hero_train.config import HeroConfig
from hero_train.data.answers import EncodedStatement, collate_statements
from hero_train.data.corpus import CorpusVideo, EncodedQuery
from hero_train.data.sampling import RetrievalSampler, SamplingConfig
from hero_train.losses import RetrievalLossConfig
from hero_train.model.answers import HeroForStatements
from hero_train.model.hero import HeroModel
from hero_train.tasks.answers import StatementTask
from hero_train.tasks.retrieval import RetrievalTask
from tests.tiny_training import tiny_config

GEOMETRY = RowGeometry(slots=64, frames=32, temporal_slots=32, query_tokens=16)


def config() -> HeroConfig:
    return tiny_config(cross_modal_layers=3, temporal_layers=2, hidden_dropout=0.2, attention_dropout=0.2)


def make_video(number: int) -> VideoInput:
    rng = np.random.default_rng(number)
    words = np.concatenate([[2], rng.integers(4, 39, 7)]).astype(np.int32)
    segments = tuple(Segment(np.arange(start, start + 4, dtype=np.int32), words) for start in (0, 4, 8, 12))
    return VideoInput(rng.standard_normal((16, 6), dtype=np.float32), segments)


def retrieval() -> tuple[RetrievalTask, Any]:
    queries = [EncodedQuery(np.arange(12, dtype=np.int32), 2, 5, "vt")]
    corpus = [CorpusVideo(f"v{number}", 24.0, make_video(number), (), queries) for number in range(8)]
    torch.manual_seed(0)
    task = RetrievalTask(HeroModel(config()), RetrievalLossConfig(span_weight=1.0))
    return task, RetrievalSampler(corpus, SamplingConfig(videos=8), GEOMETRY, 1).batch(0)


def statements() -> tuple[StatementTask, Any]:
    text = np.arange(2, 10, dtype=np.int32)
    items = [EncodedStatement(f"s{number}", make_video(number), text, number % 2 == 0) for number in range(4)]
    torch.manual_seed(0)
    return StatementTask(HeroForStatements(config())), collate_statements(items, GEOMETRY)


def gradients(case: Any, enabled: bool, precision: torch.dtype) -> dict[str, Tensor]:
    task, batch = case()
    task.model.set_activation_checkpointing(enabled)
    torch.manual_seed(7)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        loss = task(batch)
    (loss if isinstance(loss, Tensor) else loss.total).backward()
    return {name: weight.grad for name, weight in task.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", [retrieval, statements])
def test_the_gradients_are_the_same_bits_with_dropout(case: Any, precision: torch.dtype) -> None:
    kept, recomputed = (gradients(case, enabled, precision) for enabled in (False, True))
    assert kept.keys() == recomputed.keys()
    assert any(gradient.any() for gradient in kept.values())
    for name, gradient in kept.items():
        assert gradient.numpy().tobytes() == recomputed[name].numpy().tobytes(), name


def held_after_forward(enabled: bool) -> int:
    """Bytes that the forward pass allocated and did not give back: what it keeps for the gradients."""
    task, batch = retrieval()
    task.model.set_activation_checkpointing(enabled)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss = task(batch)
    assert loss.total.requires_grad
    return sum(event.self_cpu_memory_usage for event in profiler.events())


def test_the_forward_pass_keeps_much_less() -> None:
    kept, recomputed = held_after_forward(False), held_after_forward(True)
    assert 0 < recomputed < kept / 2, (kept, recomputed)


def test_it_can_be_turned_off_again_and_changes_no_weight_name() -> None:
    task, batch = retrieval()
    names = list(task.model.state_dict())
    task.model.set_activation_checkpointing(True)
    assert list(task.model.state_dict()) == names
    task.model.set_activation_checkpointing(False)
    assert not any(getattr(module, "recomputed", False) for module in task.modules())
    assert task(batch).total.requires_grad
