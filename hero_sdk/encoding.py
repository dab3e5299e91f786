"""Both stages on packed videos: from what the encoder reads to clip embeddings, the same for every task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hero_sdk.engines import Graphs
from hero_sdk.manifest import CROSS_MODAL_GRAPH, TEMPORAL_GRAPH
from hero_sdk.rows import PackedVideos
from hero_sdk.types import BoolArray, FloatArray


def encode_packed(engine: Graphs, packed: PackedVideos) -> list[FloatArray]:
    """Clip embeddings (clips, hidden) of each packed video.

    Args:
        engine: runs the graphs.
        packed: with the geometry of the engine's bundle; with texts for a bundle that reads texts together with videos, and
            without for the others.

    Raises:
        EngineError: a graph failed.
        InputError: packed for another geometry or task.
    """
    hidden = engine.run(CROSS_MODAL_GRAPH, packed.cross_modal.arrays())["hidden"]
    matched = packed.regrouping.apply(hidden, packed.temporal)
    return packed.unpack(
        engine.run(TEMPORAL_GRAPH, {**packed.temporal.arrays(), "matched": matched})["clip_embeddings"]
    )


def pad_clips(parts: Sequence[FloatArray], clips: int) -> tuple[FloatArray, BoolArray]:
    """One row of clips per sequence, as the heads of tasks read them.

    Args:
        parts: (clips, hidden) each, at least one and none longer than ``clips``.
        clips: of a row.

    Returns:
        (N, clips, hidden) float32 with zeros beyond each end, and the mask (N, clips) bool.
    """
    padded = np.zeros((len(parts), clips, parts[0].shape[1]), dtype=np.float32)
    mask = np.zeros((len(parts), clips), dtype=bool)
    for number, part in enumerate(parts):
        padded[number, : len(part)] = part
        mask[number, : len(part)] = True
    return padded, mask
