"""Real rows of a split as cases: what the SDK's own packing made of it, on the way to the task's metric.

The ranges of a graph in int8 are those that its calibration has seen. Random inputs lie outside of them, and what such a graph
makes of these says nothing of what it does.
"""

from __future__ import annotations

import numpy as np

from hero_export.precision.recording import RecordingEngine
from hero_export.verification.head_cases import Case
from hero_sdk.engines.batching import Arrays
from hero_sdk.manifest import GraphSpec, TensorSpec

KEPT = 64
"""Rows of each graph, drawn from all that came by."""

NAME = "rows of the split"


def real_cases(recorded: RecordingEngine) -> dict[str, Case]:
    """A case of each graph that the split went through, by the graph's name."""
    cases = {}
    for name, spec in recorded.manifest.graphs.items():
        if inputs := recorded.rows(name):
            used = {tensor.name: used_of(spec, tensor, inputs) for tensor in spec.outputs}
            cases[name] = Case(name, NAME, inputs, used)
    return cases


def used_of(spec: GraphSpec, output: TensorSpec, inputs: Arrays) -> np.ndarray:
    """Which vectors, or which logits, of an output mean something: as the output, but for its last dimensions.

    Args:
        spec: of the graph.
        output: of it.
        inputs: rows of the graph.
    """
    count = len(inputs[spec.inputs[0].name])
    if "segment_ids" in inputs:
        slots = np.asarray(inputs["segment_ids"] > 0)
        return slots if len(output.shape) == 3 else np.asarray(slots.any(axis=1))
    for mask in ("answer_mask", "clip_mask"):
        if mask in inputs and output.shape[1:] == inputs[mask].shape[1:]:
            return inputs[mask]
    if set(inputs) == {"clips"}:  # padded with zeros, and to keys and values of every layer
        clips = np.asarray(inputs["clips"].any(axis=-1))
        return np.broadcast_to(clips[:, None, None, None], (count, *output.shape[1:-1]))
    if "positions" in inputs and output.shape == _shape_of(
        spec, "cache"
    ):  # empty beyond the word that was written last
        written = np.arange(output.shape[4]) <= inputs["positions"]
        return np.broadcast_to(written[:, None, None, None], (count, *output.shape[1:-1]))
    return np.ones(count, dtype=bool)


def _shape_of(spec: GraphSpec, name: str) -> tuple[int, ...]:
    return next(tensor.shape for tensor in spec.inputs if tensor.name == name)
