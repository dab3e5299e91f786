"""The inputs on which the heads of tasks are compared with the model: random clips at the edges of what a row of them can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hero_export.onnx.graphs import Graph
from hero_sdk.engines.batching import Arrays
from hero_sdk.manifest import PREFILL_GRAPH, STEP_GRAPH
from hero_sdk.rows import PAD_TOKEN

EMPTY_SLOT = {"frame_index": -1, "token_ids": PAD_TOKEN}
"""What an input of an encoder holds in a slot that nothing takes, where that is not 0."""


@dataclass(frozen=True)
class Case:
    """One input of one graph.

    Attributes:
        graph: name in the manifest.
        name: what is special about it.
        inputs: by name, as the graph takes them.
        used: by output, bool, the vectors that mean something: as the output, but for its last dimensions. The rest is only
            required to be finite.
    """

    graph: str
    name: str
    inputs: Arrays
    used: Mapping[str, np.ndarray]


def with_empty_row(case: Case) -> Case:
    """The case with one more row, which holds nothing."""
    inputs = {
        name: np.concatenate([array, np.full_like(array[:1], EMPTY_SLOT.get(name, 0))])
        for name, array in case.inputs.items()
    }
    used = {name: np.concatenate([array, np.zeros_like(array[:1])]) for name, array in case.used.items()}
    return Case(case.graph, case.name, inputs, used)


def batch_sizes(max_batch: int) -> list[int]:
    """One, an odd one near the middle, and the largest."""
    return sorted({1, min(max_batch // 2 | 1, max_batch), max_batch})


def shape_name(batch: int, what: str) -> str:
    """What a case of the grid of shapes is called."""
    return f"batch of {batch}, {what}"


def head_shapes(graph: Graph, vocabulary: int, max_batch: int, rng: np.random.Generator) -> list[Case]:
    """Every batch size with one clip in each row, with rows half full and full; arguments as for ``head_cases``."""
    room = _clips_of(graph)
    fills = {"one clip": 1, "half full": max(1, room // 2), "full": room}
    return [
        _maker(graph)(graph, shape_name(batch, what), np.full(batch, clips), vocabulary, rng)
        for batch in batch_sizes(max_batch)
        for what, clips in fills.items()
    ]


def _maker(graph: Graph) -> Callable[..., Case]:
    return {PREFILL_GRAPH: _prefill, STEP_GRAPH: _step}.get(graph.name, _pooled)


def head_cases(graph: Graph, vocabulary: int, max_batch: int, rng: np.random.Generator) -> list[Case]:
    """The edge cases of a graph that reads clips of one video, or of one moment, in each row.

    Args:
        graph: the moment head, the head of answers or of statements, or one of the caption decoder's.
        vocabulary: number of token ids.
        max_batch: the largest batch.
        rng: draws everything.
    """
    room = _clips_of(graph)

    def case(name: str, lengths: list[int], **options: bool) -> Case:
        return _maker(graph)(graph, name, np.array(lengths), vocabulary, rng, **options)

    lengths = rng.integers(1, room + 1, max_batch).tolist()
    found = [
        case("mixed lengths", [min(room, length) for length in (3, 7, 1, 20)]),
        case("longest", [room]),
        case("one clip", [1]),
        with_empty_row(case("empty tail row", [room])),
        case("batch of one", [max(1, room // 2)]),
        case("maximal batch", lengths),
    ]
    if "answer_mask" in _shapes(graph):
        found.append(case("fewer answers", lengths[:3], all_answers=False))
    if graph.name == STEP_GRAPH:
        found += [
            case(name, lengths[:3], **{option: True})
            for name, option in (("first word", "first"), ("last word", "last"))
        ]
    return found


def _shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in graph.inputs}


def _clips_of(graph: Graph) -> int:
    """Clips of a row, the last but one dimension of what holds them."""
    shapes = _shapes(graph)
    return (shapes["memory"] if graph.name == STEP_GRAPH else shapes["clips"])[-2]


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _mask(lengths: np.ndarray, room: int) -> np.ndarray:
    return np.arange(room) < lengths[:, None]


def _pooled(
    graph: Graph, name: str, lengths: np.ndarray, vocabulary: int, rng: np.random.Generator, all_answers: bool = True
) -> Case:
    """Clips with what else the graph takes: a query, or which answers a question has."""
    shapes, count = _shapes(graph), len(lengths)
    mask = _mask(lengths, _clips_of(graph))
    inputs: Arrays = {"clips": _normal(rng, count, *shapes["clips"][1:]), "clip_mask": mask}
    used = {tensor.name: mask for tensor in graph.outputs if tensor.shape[1:] == mask.shape[1:]}
    if "span_vector" in shapes:
        inputs["span_vector"] = _normal(rng, count, *shapes["span_vector"][1:])
    if "answer_mask" in shapes:
        answers = shapes["answer_mask"][1]
        least = answers if all_answers else 1
        inputs["answer_mask"] = _mask(rng.integers(least, answers + 1, count), answers)
        used["answer"] = inputs["answer_mask"]
    if "truth" in {tensor.name for tensor in graph.outputs}:
        used["truth"] = np.ones(count, dtype=bool)
    # Beyond their end, clips are zero, as the SDK pads them.
    inputs["clips"] *= mask[(..., None) if inputs["clips"].ndim == 3 else (slice(None), None, slice(None), None)]
    return Case(graph.name, name, inputs, used)


def _prefill(graph: Graph, name: str, lengths: np.ndarray, vocabulary: int, rng: np.random.Generator) -> Case:
    shape, mask = _shapes(graph)["clips"], _mask(lengths, _clips_of(graph))
    clips = _normal(rng, len(lengths), *shape[1:]) * mask[..., None]
    (memory,) = graph.outputs
    used = np.broadcast_to(mask[:, None, None, None], (len(lengths), *memory.shape[1:-1]))
    return Case(graph.name, name, {"clips": clips}, {memory.name: used})


def _step(
    graph: Graph,
    name: str,
    lengths: np.ndarray,
    vocabulary: int,
    rng: np.random.Generator,
    first: bool = False,
    last: bool = False,
) -> Case:
    shapes, count = _shapes(graph), len(lengths)
    places = shapes["cache"][-2]
    positions = rng.integers(0, places, (count, 1)) * (not first)
    inputs: Arrays = {
        "token_ids": rng.integers(0, vocabulary, (count, 1)).astype(np.int32),
        "positions": np.where(last, places - 1, positions).astype(np.int32),
        # What the cache holds from the position on must not be read, so it holds something.
        "cache": _normal(rng, count, *shapes["cache"][1:]),
        "memory": _normal(rng, count, *shapes["memory"][1:]),
        "clip_mask": _mask(lengths, _clips_of(graph)),
    }
    used = np.ones(count, dtype=bool)
    return Case(graph.name, name, inputs, {"logits": used, "next_cache": used})
