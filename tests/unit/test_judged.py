"""An engine is judged by the evaluation that judges the model: the same inputs, the same metrics."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hero_sdk.errors import InputError
from hero_sdk.manifest import QUERY_GRAPH, STEP_GRAPH
from hero_sdk.rows import pack_videos
from hero_train import judged
from hero_train.evaluate import evaluate_retrieval, search_corpus
from hero_train.evaluation import evenly
from hero_train.metrics import query_hits, recalls
from hero_train.model.hero import HeroModel
from hero_train.model.layers import initialise
from tests.tiny_training import tiny_config
from tests.unit.test_evaluate_retrieval import GEOMETRY, make_corpus


class TorchEngine:
    """A model as an engine: the graphs of retrieval, computed by PyTorch."""

    def __init__(self, model: HeroModel) -> None:
        self._model = model
        self.asked: list[str] = []
        spec, config = model.moment_spec(), model.config

        class Manifest:
            geometry = GEOMETRY
            model = config

            @staticmethod
            def require_moment() -> object:
                return spec

        self.manifest = Manifest()

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.asked.append(graph)
        tensors = self._model.tensors(dict(inputs))
        with torch.no_grad():
            if graph == QUERY_GRAPH:
                output = self._model.encode_queries(**tensors)
                return {"query_vector": output.vector.numpy(), "span_vector": output.span_vector.numpy()}
            if graph == "cross_modal":
                return {"hidden": self._model.cross_modal(**tensors).numpy()}
            return {"clip_embeddings": self._model.temporal(**tensors).numpy()}


@pytest.fixture
def model() -> HeroModel:
    torch.manual_seed(0)
    model = HeroModel(tiny_config(min_span_clips=1, max_span_clips=4))
    initialise(model, 0.3)
    return model.eval()


def test_an_engine_reaches_what_the_model_reaches(model: HeroModel) -> None:
    corpus = make_corpus(((0.0, 3.0),), ((1.5, 4.5),))
    engine = TorchEngine(model)
    found = evaluate_retrieval(engine, corpus, GEOMETRY)  # type: ignore[arg-type]
    assert found == evaluate_retrieval(model, corpus, GEOMETRY)
    assert set(engine.asked) == {"cross_modal", "temporal", "query"}


def test_a_model_is_in_evaluation_mode_for_the_time_of_the_question(model: HeroModel) -> None:
    model.train()
    with judged.evaluating(model):
        assert not model.training
        assert torch.is_inference_mode_enabled()
    assert model.training
    with pytest.raises(ZeroDivisionError), judged.evaluating(model):
        raise ZeroDivisionError
    assert model.training


def test_recalls_are_means_over_the_queries_that_were_answered_right(model: HeroModel) -> None:
    results = search_corpus(model, make_corpus(((0.0, 3.0),), ((1.5, 4.5),)), GEOMETRY).results
    hits, means = query_hits(results), recalls(results)
    assert set(hits) == {name for name in means if "AveR" not in name}
    for name, values in hits.items():
        assert len(values) == len(results)
        assert means[name] == pytest.approx(np.mean(values))


def test_an_engine_writes_captions_of_its_own_length_only() -> None:
    cache = SimpleNamespace(name="cache", shape=(-1, 1, 2, 2, 10, 4))
    step = SimpleNamespace(inputs=(cache,))
    engine: Any = SimpleNamespace(manifest=SimpleNamespace(graphs={STEP_GRAPH: step}))
    packed = pack_videos([make_corpus(((0.0, 3.0),))[0].input], GEOMETRY)
    with pytest.raises(InputError, match="Captions of up to 30 tokens were asked for; the bundle writes up to 10"):
        judged.write_captions(engine, packed, np.array([[0, 0, 2]], np.int32), limit=30)


def test_some_items_are_taken_evenly() -> None:
    assert evenly(range(10), None) == evenly(range(10), 12) == list(range(10))
    assert evenly(range(10), 3) == [0, 3, 6]
    assert evenly(range(10), 10) == list(range(10))
