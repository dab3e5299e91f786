"""Captions of a video's moments, written word by word by the decoder of a bundle for captioning."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hero_sdk.encoding import pad_clips
from hero_sdk.engines import Graphs
from hero_sdk.errors import InputError
from hero_sdk.manifest import PREFILL_GRAPH, STEP_GRAPH, TensorSpec
from hero_sdk.sentence_search import BeamConfig, beam_search, greedy_search
from hero_sdk.tokens import TextTokenizer
from hero_sdk.types import Caption, EncodedVideo, FloatArray, IntArray

WRITTEN_TOGETHER = 16
"""Moments whose captions are written at the same time: enough to keep an engine busy; each holds keys and values of its clips."""


def moment_span(start: float, end: float, clip_interval: float, clips: int) -> tuple[int, int]:
    """First clip of a moment and the clip after its last one: what the decoder reads (the authors' rule, at least one clip).

    Args:
        start, end: in seconds; a moment that starts after the last clip gets that clip.
        clip_interval: seconds per clip.
        clips: of the video; the moment is cut to it.
    """
    first = min(math.floor(start / clip_interval), clips - 1)
    return first, min(max(round(end / clip_interval), first + 1), clips)


class GraphStep:
    """The decoder's graphs as the ``Step`` of a search (see ``hero_sdk.sentence_search``).

    Args:
        engine: runs the graphs.
        clips: (clips, hidden) float32 clip embeddings of each moment.

    Raises:
        InputError: a moment of more clips than the decoder reads.
        EngineError: a graph failed.
    """

    def __init__(self, engine: Graphs, clips: Sequence[FloatArray]) -> None:
        self._engine = engine
        self._cache_spec = _input_of(engine, STEP_GRAPH, "cache")
        room = _input_of(engine, PREFILL_GRAPH, "clips").shape[1]
        if (longest := max(map(len, clips))) > room:
            raise InputError(
                f"A moment has {longest} clips and the bundle captions moments of up to {room} "
                f"({room * engine.manifest.model.clip_interval:g} s). Choose a shorter moment."
            )
        padded, self._mask = pad_clips(clips, room)
        self._memory = engine.run(PREFILL_GRAPH, {"clips": padded})["memory"]
        self._cache = np.zeros((len(clips), *self._cache_spec.shape[1:]), dtype=self._cache_spec.dtype)
        self._moment = np.arange(len(clips))

    @property
    def limit(self) -> int:
        """Most tokens of a caption, its end included: the places of the cache."""
        return self._cache_spec.shape[4]

    def __call__(self, tokens: IntArray, position: int, source: IntArray) -> FloatArray:
        """See ``hero_sdk.sentence_search.Step``."""
        if not np.array_equal(source, np.arange(len(self._cache))):
            self._cache = self._cache[source]
            # Beams of one moment change places all the time, and read the same clips.
            if not np.array_equal(moment := self._moment[source], self._moment):
                self._memory, self._mask, self._moment = self._memory[source], self._mask[source], moment
        output = self._engine.run(
            STEP_GRAPH,
            {
                "token_ids": tokens[:, None],
                "positions": np.full((len(tokens), 1), position, dtype=np.int32),
                "cache": self._cache,
                "memory": self._memory,
                "clip_mask": self._mask,
            },
        )
        self._cache = output["next_cache"]
        return output["logits"]


def write_captions(engine: Graphs, clips: Sequence[FloatArray], beam: BeamConfig | None = None) -> list[IntArray]:
    """A caption for each moment.

    Args:
        engine: runs the graphs.
        clips: (clips, hidden) float32 clip embeddings of each moment, in the context of its whole video.
        beam: search with a beam; None takes the most probable word each time.

    Returns:
        For each moment its tokens, (tokens,) int32, without begin and end.

    Raises:
        InputError: a moment of more clips than the decoder reads.
        EngineError: a graph failed.
    """
    written: list[IntArray] = []
    for start in range(0, len(clips), WRITTEN_TOGETHER):
        part = clips[start : start + WRITTEN_TOGETHER]
        step = GraphStep(engine, part)
        if beam is None:
            written += greedy_search(step, len(part), step.limit)
        else:
            written += [sentences[0].tokens for sentences in beam_search(step, len(part), step.limit, beam)]
    return written


def caption_moments(
    engine: Graphs,
    tokenizer: TextTokenizer,
    video: EncodedVideo,
    moments: Sequence[tuple[float, float]],
    beam: BeamConfig | None,
) -> list[Caption]:
    """Caption moments of a video; see ``Hero.caption``."""
    interval, clips = video.clip_interval, len(video.clip_embeddings)
    spans = []
    for start, end in moments:
        if not 0 <= start < end < math.inf or start >= min(video.duration, clips * interval):
            raise InputError(
                f"The moment is {start} to {end} s of a video of {video.duration:.1f} s; expected 0 <= start < end and a start "
                "within the video."
            )
        spans.append(moment_span(start, end, interval, clips))
    tokens = write_captions(engine, [video.clip_embeddings[first:stop] for first, stop in spans], beam)
    return [
        Caption(tokenizer.decode(ids), first * interval, min(stop * interval, video.duration))
        for ids, (first, stop) in zip(tokens, spans, strict=True)
    ]


def _input_of(engine: Graphs, graph: str, name: str) -> TensorSpec:
    return next(tensor for tensor in engine.manifest.graphs[graph].inputs if tensor.name == name)
