"""Engines: what runs the graphs of a bundle, in this process or on a server.

An engine is the only part that differs between ``hero_sdk.load`` and ``hero_sdk.connect``. All else (tokenising, packing,
regrouping, span search) is the same code on the same arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from hero_sdk.manifest import Manifest

__all__ = ["Engine", "Graphs"]


class Graphs(Protocol):
    """Runs the graphs of one bundle: all that comes after the tokenizer asks for."""

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle that the graphs are of."""

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one graph.

        Args:
            graph: name in the manifest.
            inputs: the arrays by input name, with the dtypes and shapes of the manifest and any batch size from 1 on.

        Returns:
            The outputs by name.

        Raises:
            EngineError: the graph failed, or the server did.
        """


class Engine(Graphs, Protocol):
    """The graphs of one bundle with its tokenizer, and what they hold."""

    @property
    def tokenizer_json(self) -> str:
        """The bundle's tokenizer in the format of the ``tokenizers`` library."""

    def close(self) -> None:
        """Free what the engine holds; it cannot run afterwards. A second call does nothing."""
