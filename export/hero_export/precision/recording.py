"""An engine that keeps some of what goes through it: the real inputs of each graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hero_sdk.engines import Engine
from hero_sdk.engines.batching import Arrays
from hero_sdk.manifest import Manifest


class RecordingEngine:
    """Runs graphs with another engine, and keeps rows of their inputs, each row that comes by with the same probability.

    Args:
        engine: does the work, and stays the caller's.
        most: rows that are kept of each graph.
        seed: of the choice.
    """

    def __init__(self, engine: Engine, most: int, seed: int) -> None:
        self._engine = engine
        self._most = most
        self._rng = np.random.default_rng(seed)
        self._kept: dict[str, list[Arrays]] = {}
        self.seen: dict[str, int] = dict.fromkeys(engine.manifest.graphs, 0)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle that the engine serves."""
        return self._engine.manifest

    @property
    def tokenizer_json(self) -> str:
        """The bundle's tokenizer."""
        return self._engine.tokenizer_json

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run one graph; see ``hero_sdk.engines.Engine.run``."""
        outputs = self._engine.run(graph, inputs)
        self.keep(graph, inputs)
        return outputs

    def keep(self, graph: str, inputs: Mapping[str, np.ndarray]) -> None:
        """Take notice of rows without running them."""
        kept = self._kept.setdefault(graph, [])
        for number in range(len(next(iter(inputs.values())))):
            self.seen[graph] += 1
            # Reservoir sampling: the n-th row takes a place with the probability most / n.
            place = len(kept) if len(kept) < self._most else int(self._rng.integers(self.seen[graph]))
            if place < self._most:
                row = {name: array[number].copy() for name, array in inputs.items()}
                kept[place : place + 1] = [row]

    def rows(self, graph: str) -> Arrays:
        """The rows that were kept, (rows, ...) by input; empty where there are none."""
        kept = self._kept.get(graph, [])
        return {name: np.stack([row[name] for row in kept]) for name in kept[0]} if kept else {}

    def close(self) -> None:
        """Nothing to free: the engine is the caller's."""
