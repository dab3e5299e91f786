"""The inputs on which exported encoders are compared with the model: packed by the SDK's own packing, random, at the edges.

Each case is a shape of input at which a graph of fixed shapes goes wrong if it goes wrong at all: rows without room, segments
of one slot, rows without anything in them, batches of one and of the largest size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hero_export.onnx.graphs import Graph
from hero_export.rows.geometry import reads_texts
from hero_export.verification.head_cases import Case, batch_sizes, head_cases, head_shapes, shape_name, with_empty_row
from hero_sdk.manifest import CROSS_MODAL_GRAPH, QUERY_GRAPH, TEMPORAL_GRAPH
from hero_sdk.rows import RowGeometry, Segment, VideoInput, pack_queries, pack_videos
from hero_sdk.tokens import BEGIN_ID, SEPARATOR_ID
from hero_sdk.types import IntArray
from hero_train.config import HeroConfig


class CaseMaker:
    """Makes the cases of one model and geometry.

    Args:
        config: of the model.
        geometry: of the rows.
        max_batch: the largest batch.
        seed: of the features, tokens and lengths.
    """

    def __init__(self, config: HeroConfig, geometry: RowGeometry, max_batch: int, seed: int = 0) -> None:
        self.config = config
        self.geometry = geometry
        self.max_batch = max_batch
        self.reads_texts = reads_texts(config)
        self._rng = np.random.default_rng(seed)

    def grid_of(self, graph: Graph) -> list[Case]:
        """The edge cases of one graph, and every batch size with rows from nearly empty to full."""
        return [*self.cases_of(graph), *self._shapes_of(graph)]

    def _shapes_of(self, graph: Graph) -> list[Case]:
        batches, half = batch_sizes(self.max_batch), max(1, self.config.clip_limit // 2)
        if graph.name == CROSS_MODAL_GRAPH:
            sizes = {"one-token segments": 2, "segments of half a row": self.geometry.slots // 2}
            sizes["full"] = self.geometry.slots
            return [
                self._cross_modal(shape_name(batch, what), [self._equal_segments(batch, max(2, size))])
                for batch in batches
                for what, size in sizes.items()
            ]
        if graph.name == TEMPORAL_GRAPH:
            clips = {"one-clip videos": 1, "videos of half the clip limit": half, "longest": self.config.clip_limit}
            return [
                self._temporal(shape_name(batch, what), self._equal_videos(batch, count))
                for batch in batches
                for what, count in clips.items()
            ]
        if graph.name == QUERY_GRAPH:
            limit = self.geometry.query_tokens
            lengths = {"one token": 1, "half full": max(1, limit // 2), "full": limit}
            return [
                self._query(shape_name(batch, what), [length] * batch)
                for batch in batches
                for what, length in lengths.items()
            ]
        return head_shapes(graph, self.config.vocab_size, self.max_batch, self._rng)

    def cases_of(self, graph: Graph) -> list[Case]:
        """The edge cases of one graph."""
        if graph.name == CROSS_MODAL_GRAPH:
            return self.cross_modal_cases()
        if graph.name == TEMPORAL_GRAPH:
            return self.temporal_cases()
        if graph.name == QUERY_GRAPH:
            return self.query_cases()
        return head_cases(graph, self.config.vocab_size, self.max_batch, self._rng)

    def cross_modal_cases(self) -> list[Case]:
        """Stage 1."""
        few = min(3, self.config.clip_limit)
        lone_token = VideoInput(self._features(1), (self._segment([], 1),))
        return [
            self._cross_modal("mixed rows", self.mixed_videos(3)),
            self._cross_modal("full row, one segment", [self._one_segment_row()]),
            self._cross_modal("full row, many segments", [self._many_segments_row()]),
            self._cross_modal("one-token segment", [lone_token], keep_frameless=True),
            self._cross_modal("one-frame video", [VideoInput(self._features(1), (self._segment([0], 1),))]),
            self._cross_modal(
                "frames without text", [VideoInput(self._features(few), (self._segment(range(few), 0),))]
            ),
            with_empty_row(self._cross_modal("empty tail row", self.mixed_videos(2))),
            self._cross_modal("batch of one", [self._filling_rows(1)]),
            self._cross_modal("maximal batch", [self._filling_rows(self.max_batch)]),
        ]

    def temporal_cases(self) -> list[Case]:
        """Stage 2; with a text behind each video where the model reads one."""
        limit, tokens = self.config.clip_limit, self.geometry.query_tokens if self.reads_texts else 0
        per_row, rest = divmod(self.geometry.temporal_slots, limit + tokens)
        full = [(limit, tokens)] * per_row
        if rest > self.reads_texts:
            clips = min(rest - self.reads_texts, limit)
            full.append((clips, rest - clips if self.reads_texts else 0))
        mixed = [(int(clips), self._text_length()) for clips in self._rng.integers(1, limit + 1, 5)]
        return [
            self._temporal("mixed rows", mixed),
            self._temporal("full row", full),
            self._temporal("one-frame video", [(1, self._text_length(1))]),
            with_empty_row(self._temporal("empty tail row", [(limit, self._text_length())])),
            self._temporal("batch of one", [(limit, self._text_length())]),
            self._temporal("maximal batch", full * self.max_batch),
        ]

    def query_cases(self) -> list[Case]:
        """Queries."""
        limit = self.geometry.query_tokens
        lengths = self._rng.integers(1, limit + 1, self.max_batch).tolist()
        return [
            self._query("mixed lengths", [min(length, limit) for length in (2, 5, 9, 15)]),
            self._query("full query", [limit]),
            self._query("query cut to the limit", [limit + 7]),
            self._query("one-token query", [1]),
            with_empty_row(self._query("empty tail row", [min(6, limit)])),
            self._query("batch of one", [min(8, limit)]),
            self._query("maximal batch", lengths),
        ]

    def _text_length(self, longest: int | None = None) -> int:
        """Of a text behind a video: at random, or 0 where there is none."""
        return int(self._rng.integers(1, (longest or self.geometry.query_tokens) + 1)) if self.reads_texts else 0

    def whole_path_cases(self, copies: int = 1) -> dict[str, list[VideoInput]]:
        """Videos for both stages with the regrouping between them.

        Args:
            copies: how often each video will be read, with another text each time.
        """
        bare = VideoInput(self._features(min(5, self.config.clip_limit)), ())
        return {
            "mixed videos": self.mixed_videos(3),
            "longest video": [self._video(self.config.clip_limit)],
            "one-frame video": [VideoInput(self._features(1), (self._segment([0], 3),))],
            "video without subtitles": [bare],
            "shared frames": [self._filling_rows(3)],
            "more rows than the maximal batch": [self._filling_rows(self.max_batch // copies + 1)],
        }

    def mixed_videos(self, count: int) -> list[VideoInput]:
        """Videos of random lengths, cut into subtitles of one to four frames and up to twenty tokens."""
        longest = min(self.config.clip_limit, 40)
        return [self._video(int(length)) for length in self._rng.integers(1, longest + 1, count)]

    def _video(self, frames: int) -> VideoInput:
        segments, start = [], 0
        while start < frames:
            stop = min(frames, start + int(self._rng.integers(1, 5)))
            segments.append(self._segment(range(start, stop), int(self._rng.integers(1, 21))))
            # A frame between two subtitles belongs to neither.
            start = stop + int(self._rng.integers(0, 2))
        return VideoInput(self._features(frames), tuple(segments))

    def _one_segment_row(self) -> VideoInput:
        """A segment with as many frames as fit and text in all other slots."""
        frames = min(self.geometry.frames, self.config.clip_limit, self.geometry.slots - 1)
        return VideoInput(self._features(frames), (self._segment(range(frames), self.geometry.slots - frames),))

    def _many_segments_row(self) -> VideoInput:
        """One-frame segments that fill a row to its last slot."""
        slots = self.geometry.slots
        count = min(self.geometry.frames, self.config.clip_limit, slots // 2)
        sizes = [slots // count + (number < slots % count) for number in range(count)]
        segments = [self._segment([number], size - 1) for number, size in enumerate(sizes)]
        return VideoInput(self._features(count), tuple(segments))

    def _filling_rows(self, rows: int) -> VideoInput:
        """Segments of more than half a row, so that each takes a row; they share the frames of a short video."""
        frames = min(4, self.config.clip_limit)
        tokens = min(self.geometry.slots // 2 + 1, self.geometry.slots - 1)
        return VideoInput(
            self._features(frames), tuple(self._segment([number % frames], tokens) for number in range(rows))
        )

    def _equal_segments(self, rows: int, size: int) -> VideoInput:
        """Segments of one frame and text in ``size`` slots, as many as fill so many rows, over the frames of a short video."""
        frames = min(4, self.config.clip_limit, self.geometry.frames)
        count = rows * (self.geometry.slots // size)
        segments = (self._segment([number % frames], size - 1) for number in range(count))
        return VideoInput(self._features(frames), tuple(segments))

    def _equal_videos(self, rows: int, clips: int) -> list[tuple[int, int]]:
        """Videos of so many clips, with a text as long as fits one of them where the model reads one, that fill so many rows."""
        tokens = min(self.geometry.query_tokens, clips) if self.reads_texts else 0
        return [(clips, tokens)] * (rows * (self.geometry.temporal_slots // (clips + tokens)))

    def _segment(self, frames: Sequence[int], tokens: int) -> Segment:
        """A segment with random text of ``tokens`` tokens, the separator in front."""
        return Segment(np.asarray(frames, dtype=np.int32), self.text(tokens))

    def texts(self, count: int) -> list[IntArray]:
        """Random texts for videos, the first as long as a text may be."""
        lengths = [self.geometry.query_tokens, *self._rng.integers(1, self.geometry.query_tokens + 1, count)]
        return [self.text(int(length)) for length in lengths[:count]]

    def text(self, tokens: int) -> IntArray:
        """Random text of ``tokens`` tokens, the separator in front."""
        ids = self._tokens(tokens)
        ids[:1] = SEPARATOR_ID
        return ids

    def _features(self, frames: int) -> np.ndarray:
        # Like pooled features of a convolutional network: not negative, mostly small.
        return self._rng.exponential(0.5, (frames, self.config.feature_dim)).astype(np.float32)

    def _tokens(self, count: int) -> IntArray:
        return self._rng.integers(0, self.config.vocab_size, count).astype(np.int32)

    def _cross_modal(self, name: str, videos: list[VideoInput], *, keep_frameless: bool = False) -> Case:
        rows = pack_videos(videos, self.geometry, keep_frameless=keep_frameless).cross_modal
        return Case(CROSS_MODAL_GRAPH, name, rows.arrays(), {"hidden": np.greater(rows.segment_ids, 0)})

    def _temporal(self, name: str, sizes: list[tuple[int, int]]) -> Case:
        """Videos of these numbers of clips, with texts of these numbers of tokens."""
        videos = [VideoInput(self._features(clips), ()) for clips, _ in sizes]
        texts = [self.text(tokens) for _, tokens in sizes] if self.reads_texts else None
        rows = pack_videos(videos, self.geometry, texts=texts).temporal
        used = np.greater(rows.segment_ids, 0)
        # Stage 1 ends in a norm, so its outputs are about this large; frames without a subtitle have zeros.
        matched = self._rng.standard_normal((*used.shape, self.config.hidden_size), dtype=np.float32)
        matched *= (used & (self._rng.random(used.shape) < 0.8))[..., None]
        return Case(TEMPORAL_GRAPH, name, rows.arrays() | {"matched": matched}, {"clip_embeddings": used})

    def _query(self, name: str, lengths: list[int]) -> Case:
        queries = [self._tokens(length) for length in lengths]
        for query in queries:
            query[0] = BEGIN_ID
        token_ids, segment_ids = pack_queries(queries, self.geometry.query_tokens)
        inputs: dict[str, np.ndarray] = {"token_ids": token_ids, "segment_ids": segment_ids}
        used = np.asarray(segment_ids.any(axis=1))
        return Case(QUERY_GRAPH, name, inputs, {"query_vector": used, "span_vector": used})
