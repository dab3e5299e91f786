"""Prefill and step as ONNX graphs: onnxruntime, with no torch behind it, writes the authors' captions through the same search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from hero_export.graphs import BATCH, Graph
from hero_export.onnx_export import export_graph
from hero_sdk.engines.session import open_session
from hero_sdk.manifest import TensorSpec
from hero_sdk.sentence_search import BeamConfig, beam_search, greedy_search
from hero_train.model.captioning import CachedStep, HeroForCaptioning
from tests.parity.oracle import OracleBatch, read_dump
from tests.parity.test_captioning import PACKED, moments_of, read_captioner

CLIPS = 16


class Prefill(nn.Module):
    def __init__(self, model: HeroForCaptioning) -> None:
        super().__init__()
        self.model = model

    def forward(self, clips: Tensor) -> Tensor:
        return self.model.decoder.prefill(clips)


class Step(nn.Module):
    def __init__(self, model: HeroForCaptioning) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, token_ids: Tensor, positions: Tensor, cache: Tensor, memory: Tensor, clip_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.model.step(token_ids, positions, cache, memory, clip_mask)


class SessionStep:
    """The step of a search, all numpy: what serving would do."""

    def __init__(self, prefill: onnxruntime.InferenceSession, step: onnxruntime.InferenceSession) -> None:
        self.prefill, self.step = prefill, step

    def begin(self, clips: np.ndarray, mask: np.ndarray) -> SessionStep:
        (memory,) = self.prefill.run(None, {"clips": clips})
        shape = {tensor.name: tensor.shape for tensor in self.step.get_inputs()}["cache"]
        self.state = {"cache": np.zeros((len(clips), *shape[1:]), np.float32), "memory": memory, "clip_mask": mask}
        return self

    def __call__(self, tokens: np.ndarray, position: int, source: np.ndarray) -> np.ndarray:
        self.state = {name: values[source] for name, values in self.state.items()}
        positions = np.full_like(tokens, position)
        logits, self.state["cache"] = self.step.run(None, {"token_ids": tokens, "positions": positions, **self.state})
        return np.asarray(logits)


@pytest.fixture(scope="module")
def model() -> HeroForCaptioning:
    return read_captioner()


@pytest.fixture(scope="module")
def greedy() -> dict[str, object]:
    return dict(read_dump("tvc_io")["greedy"])


@pytest.fixture(scope="module")
def session(model: HeroForCaptioning, greedy: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> SessionStep:
    folder: Path = tmp_path_factory.mktemp("graphs")
    config = model.config
    limit, heads, width = greedy["max_step"], config.num_heads, config.hidden_size // config.num_heads
    cache = TensorSpec("cache", "float32", (BATCH, config.decoder_layers, 2, heads, limit, width))
    memory = TensorSpec("memory", "float32", (BATCH, config.decoder_layers, 2, heads, CLIPS, width))
    clips = TensorSpec("clips", "float32", (BATCH, CLIPS, config.hidden_size))
    words = tuple(TensorSpec(name, "int32", (BATCH,)) for name in ("token_ids", "positions"))
    mask = TensorSpec("clip_mask", "bool", (BATCH, CLIPS))
    grown = TensorSpec("grown", cache.dtype, cache.shape)
    logits = TensorSpec("logits", "float32", (BATCH, config.vocab_size))
    sessions = []
    for graph in (
        Graph("prefill", Prefill(model).eval(), (clips,), (memory,)),
        Graph("step", Step(model).eval(), (*words, cache, memory, mask), (logits, grown)),
    ):
        export_graph(graph, folder / f"{graph.name}.onnx")
        sessions.append(open_session(folder / f"{graph.name}.onnx", threads=1))
    return SessionStep(*sessions)


@pytest.fixture(scope="module")
def shown(model: HeroForCaptioning, greedy: dict[str, dict[str, object]]) -> tuple[np.ndarray, np.ndarray]:
    """Clips and mask of the moments, padded to the graphs' shape."""
    packed = OracleBatch(greedy["batch"]).pack(PACKED)
    with torch.no_grad():
        clips, mask = model.encode_moments(packed, moments_of(greedy["batch"]))
    room = CLIPS - clips.shape[1]
    assert room >= 0
    return np.pad(clips.numpy(), ((0, 0), (0, room), (0, 0))), np.pad(mask.numpy(), ((0, 0), (0, room)))


def test_greedy_captions_are_the_authors(
    session: SessionStep, greedy: dict[str, object], shown: tuple[np.ndarray, np.ndarray]
) -> None:
    limit = greedy["max_step"]
    assert isinstance(limit, int)
    captions = greedy_search(session.begin(*shown), len(shown[0]), limit)
    assert [caption.tolist() for caption in captions] == greedy["outputs"]


def test_a_beam_finds_what_it_finds_with_torch(
    session: SessionStep, model: HeroForCaptioning, shown: tuple[np.ndarray, np.ndarray]
) -> None:
    count, config = len(shown[0]), BeamConfig(width=4)
    found = beam_search(session.begin(*shown), count, 8, config)
    expected = beam_search(CachedStep(model, *map(torch.from_numpy, shown), 8), count, 8, config)
    for ours, theirs in zip(found, expected, strict=True):
        assert [one.tokens.tolist() for one in ours] == [one.tokens.tolist() for one in theirs]
        np.testing.assert_allclose(
            [one.log_probability for one in ours], [one.log_probability for one in theirs], rtol=0, atol=1e-4
        )
