"""``compile: true``: the same numbers to rounding, one program for all layers and batches, and a clear word without a compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, _dynamo

from hero_train.compilation import check_compiler, compile_layers
from hero_train.data.corpus import CorpusVideo, EncodedQuery
from hero_train.data.sampling import RetrievalSampler, SamplingConfig
from hero_train.errors import ConfigError
from hero_train.losses import RetrievalLossConfig
from hero_train.model.hero import HeroModel
from hero_train.tasks.retrieval import RetrievalTask
from tests.tiny_training import tiny_config
from tests.unit.test_activation_checkpointing import GEOMETRY, make_video


def make_task() -> RetrievalTask:
    torch.manual_seed(0)
    return RetrievalTask(HeroModel(tiny_config(cross_modal_layers=2)), RetrievalLossConfig(span_weight=1.0))


def make_batch(videos: int, words: int) -> Any:
    queries = [EncodedQuery(np.arange(words, dtype=np.int32), 2, 5, "vt")]
    corpus = [CorpusVideo(f"v{number}", 24.0, make_video(number), (), queries) for number in range(videos)]
    return RetrievalSampler(corpus, SamplingConfig(videos=videos), GEOMETRY, 1).batch(0)


def gradients(task: RetrievalTask, batch: Any) -> dict[str, Tensor]:
    task.zero_grad()
    task(batch).total.backward()
    return {name: weight.grad.clone() for name, weight in task.named_parameters() if weight.grad is not None}


@pytest.mark.slow  # A C++ compiler runs for each piece of the two programs.
@pytest.mark.filterwarnings("default")  # While it compiles, torch hides warnings of its own, and cannot hide errors.
def test_compiled_layers_have_the_same_gradients_and_are_compiled_once() -> None:
    eager, compiled = make_task(), make_task()
    names = list(compiled.state_dict())
    compile_layers(compiled)
    assert list(compiled.state_dict()) == names
    for number, batch in enumerate((make_batch(8, 12), make_batch(6, 9), make_batch(10, 14))):
        # After the first batch, other numbers of rows and lengths of queries compile nothing anew.
        with _dynamo.config.patch(error_on_recompile=number > 0):
            found = gradients(compiled, batch)
        expected = gradients(eager, batch)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)
    compiled.model.set_activation_checkpointing(True)
    for name, gradient in gradients(compiled, batch).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)


def test_without_a_compiler_a_run_does_not_begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_compiler()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no C\+\+ compiler: g\+\+ cannot be found\. Install g\+\+, .*CXX"):
        check_compiler()
