"""An engine of the SDK that runs a tiny model's graphs as the modules that they are exported from: all but the export itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from hero_export.onnx.graphs import Graph, graphs_of
from hero_sdk import Hero
from hero_sdk.engines.batching import Arrays, run_in_batches
from hero_sdk.manifest import RETRIEVAL, FrameEncoderSpec, GraphSpec, Manifest, ModelSpec
from hero_sdk.rows import RowGeometry
from hero_train.model.hero import HeroEncoders, HeroModel
from hero_train.model.tasks import task_of
from hero_train.tokenizer import train_tokenizer_json
from tests.tiny_checkpoint import ANSWERS, CAPTION_TOKENS, GEOMETRY, IMAGE, MAX_BATCH, SENTENCES, TEXT_GEOMETRY


class TorchEngine:
    """Runs the graphs of a model and notes which, with the batch of each call."""

    def __init__(self, model: HeroEncoders) -> None:
        geometry = GEOMETRY if task_of(model) == RETRIEVAL else TEXT_GEOMETRY
        self.graphs = graphs_of(model, geometry, answers=ANSWERS, caption_tokens=CAPTION_TOKENS)
        self.manifest = manifest_of(model, geometry, self.graphs)
        self.tokenizer_json = train_tokenizer_json(SENTENCES, model.config.vocab_size - 10)
        self.calls: list[tuple[str, int]] = []

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        def call(piece: Arrays) -> Arrays:
            self.calls.append((graph, len(next(iter(piece.values())))))
            with torch.no_grad():
                outputs = self.graphs[graph].module(*(torch.from_numpy(array) for array in piece.values()))
            tensors = outputs if isinstance(outputs, tuple) else (outputs,)
            names = [tensor.name for tensor in self.graphs[graph].outputs]
            return {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}

        return run_in_batches(self.manifest.graphs[graph], graph, inputs, call)

    def close(self) -> None: ...


def manifest_of(model: HeroEncoders, geometry: RowGeometry, graphs: Mapping[str, Graph]) -> Manifest:
    """A manifest of graphs that are in no bundle."""
    config = model.config
    return Manifest(
        task=task_of(model),
        fingerprint="f" * 64,
        model=ModelSpec(config.feature_dim, config.hidden_size, config.clip_interval, config.clip_limit),
        geometry=geometry,
        moment=model.moment_spec() if isinstance(model, HeroModel) else None,
        tokenizer="tokenizer.json",
        frame_encoder=FrameEncoderSpec("none", IMAGE, config.feature_dim, "0" * 64),
        graphs={name: spec_of(graph) for name, graph in graphs.items()},
        files={},
    )


def spec_of(graph: Graph) -> GraphSpec:
    return GraphSpec(graph.file, "fp32", MAX_BATCH, graph.inputs, graph.outputs)


def torch_hero(model: HeroEncoders) -> tuple[Hero, TorchEngine]:
    """The SDK on a model, and the engine that it runs on."""
    engine = TorchEngine(model)
    return Hero(engine), engine
