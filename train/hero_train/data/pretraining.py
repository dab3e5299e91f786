"""Batches of pre-training: one task each, drawn in the paper's proportions, each a pure function of the seed and the step.

The joint batch of several processes is that of one process with as many videos.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from hero_sdk.rows import PackedVideos, RowGeometry, Segment, VideoInput, pack_queries, pack_videos
from hero_sdk.tokens import BEGIN_ID
from hero_sdk.types import IntArray
from hero_train.data.masking import (
    SHARE,
    WordIds,
    hide_frames,
    mask_frames,
    mask_words,
    move_frames,
    shuffle_places,
    take_subtitles_out,
)
from hero_train.data.sampling import RetrievalBatch, draw_part, video_rngs
from hero_train.errors import ConfigError, DataError
from hero_train.losses import IGNORED_TARGET

PretrainingTaskName = Literal["mlm", "mfm_nce", "mffr", "fom", "vsm"]
TASKS: tuple[PretrainingTaskName, ...] = get_args(PretrainingTaskName)


@dataclass(frozen=True)
class WordBatch:
    """Masked language modelling (MLM).

    Attributes:
        packed: the subtitles, words masked, ``<s>`` in front.
        labels: (R1, S1) int32 the word that was masked in a slot of stage 1, ``IGNORED_TARGET`` elsewhere.
    """

    packed: PackedVideos
    labels: IntArray


@dataclass(frozen=True)
class FrameBatch:
    """Masked frame modelling, by contrast (MFM-NCE) or by regression (MFFR).

    Attributes:
        packed: the videos, zeros for the features of masked frames.
        masks: which frames are masked, bool: "cross_modal" (R1, F) in the tables of stage 1, "temporal" (R2, S2) in stage 2.
        features: (M, feature_dim) float32 what was masked, in the order of ``masks["temporal"]``.
        objective: which of the two.
    """

    packed: PackedVideos
    masks: dict[str, np.ndarray]
    features: np.ndarray
    objective: Literal["mfm_nce", "mffr"] = "mfm_nce"


@dataclass(frozen=True)
class OrderBatch:
    """Frame order modelling (FOM).

    Attributes:
        packed: the videos, some frames at one another's places.
        labels: (R2, S2) int32 for each slot of stage 2 whose frame was drawn its true place, ``IGNORED_TARGET`` elsewhere.
    """

    packed: PackedVideos
    labels: IntArray


PretrainingBatch = WordBatch | FrameBatch | OrderBatch | RetrievalBatch


def word_batch(
    videos: Sequence[VideoInput],
    ids: WordIds,
    rngs: Sequence[np.random.Generator],
    geometry: RowGeometry,
    share: float = SHARE,
) -> WordBatch:
    """Mask words of every subtitle; subtitles without a word are left out, as stage 1 sees each on its own.

    Here and below, each video has a generator of its own, so that what chance does to it does not depend on the others.
    """
    shown: list[VideoInput] = []
    labels: list[list[IntArray]] = []
    for video, rng in zip(videos, rngs, strict=True):
        segments, asked = [], []
        for part in video.segments:
            tokens, words = mask_words(part.tokens, ids, rng, share)
            if (words != IGNORED_TARGET).any():
                tokens[0] = BEGIN_ID
                segments.append(Segment(part.frames, tokens))
                asked.append(words)
        shown.append(VideoInput(video.features, tuple(segments)))
        labels.append(asked)
    packed = pack_videos(shown, geometry, keep_frameless=True)
    return WordBatch(packed, _lay_words(packed, labels))


def _lay_words(packed: PackedVideos, labels: Sequence[Sequence[IntArray]]) -> IntArray:
    """Labels of each segment's tokens at the slots of those tokens."""
    frame_index = packed.cross_modal.frame_index
    laid = np.full(frame_index.shape, IGNORED_TARGET, dtype=np.int32)
    for spans, texts in zip(packed.segments, labels, strict=True):
        for span, words in zip(spans, texts, strict=True):
            assert span is not None  # every segment has tokens, so none was left out
            (places,) = (frame_index[span.row, span.start : span.start + span.length] < 0).nonzero()
            laid[span.row, span.start + places] = words[: len(places)]
    return laid


def frame_batch(
    videos: Sequence[VideoInput],
    rngs: Sequence[np.random.Generator],
    geometry: RowGeometry,
    objective: Literal["mfm_nce", "mffr"] = "mfm_nce",
    share: float = SHARE,
) -> FrameBatch:
    """Mask frames of every video, in both stages."""
    masked = [mask_frames(len(video.features), rng, share) for video, rng in zip(videos, rngs, strict=True)]
    pairs = list(zip(videos, masked, strict=True))
    packed = pack_videos([hide_frames(video, mask) for video, mask in pairs], geometry)
    # The same packing of a feature of width 1 tells which frames of it are masked.
    marks = pack_videos(
        [VideoInput(mask[:, None].astype(np.float32), video.segments) for video, mask in pairs], geometry
    )
    order = sorted(range(len(videos)), key=lambda number: (packed.videos[number].row, packed.videos[number].start))
    return FrameBatch(
        packed=packed,
        masks={name: getattr(marks, name).frame_features[..., 0] > 0 for name in ("cross_modal", "temporal")},
        features=np.concatenate([videos[number].features[masked[number]] for number in order]),
        objective=objective,
    )


def order_batch(
    videos: Sequence[VideoInput], rngs: Sequence[np.random.Generator], geometry: RowGeometry, share: float = SHARE
) -> OrderBatch:
    """Shuffle frames of every video."""
    drawn = [shuffle_places(len(video.features), rng, share) for video, rng in zip(videos, rngs, strict=True)]
    packed = pack_videos(
        [move_frames(video, places) for video, (places, _) in zip(videos, drawn, strict=True)], geometry
    )
    labels = np.full(packed.temporal.segment_ids.shape, IGNORED_TARGET, dtype=np.int32)
    for span, (_, origins) in zip(packed.videos, drawn, strict=True):
        labels[span.row, span.start : span.start + span.length] = origins
    return OrderBatch(packed, labels)


def matching_batch(
    videos: Sequence[VideoInput],
    rngs: Sequence[np.random.Generator],
    geometry: RowGeometry,
    queries_per_video: int = 5,
    spans: bool = True,
) -> RetrievalBatch:
    """Take subtitles out of every video and ask for them (VSM).

    A video with fewer subtitles than ``queries_per_video`` asks for those that it has, each once; the authors ask for the last
    one again, which counts it several times.

    Args:
        videos: without subtitle context, at least one with a subtitle that has words and frames.
        rngs: one for each video; they decide which.
        geometry: rows to pack into.
        queries_per_video: at most.
        spans: whether the span loss counts in this batch.
    """
    drawn = [take_subtitles_out(video, rng, queries_per_video) for video, rng in zip(videos, rngs, strict=True)]
    queries = [query for _, asked in drawn for query in asked]
    owners = [number for number, (_, asked) in enumerate(drawn) for _ in asked]
    longest = max(len(query.tokens) for query in queries)
    token_ids, segment_ids = pack_queries([query.tokens for query in queries], min(longest, geometry.query_tokens))
    return RetrievalBatch(
        packed=pack_videos([video for video, _ in drawn], geometry),
        token_ids=token_ids,
        segment_ids=segment_ids,
        targets=np.array([(query.first, query.last) for query in queries], dtype=np.int64),
        marked=np.full(len(queries), spans),
        query_video=np.array(owners, dtype=np.int64),
    )


@dataclass(frozen=True)
class TaskMix:
    """Relative frequency of each task; the defaults are the paper's for TV."""

    mlm: float = 2.0
    mfm_nce: float = 2.0
    mffr: float = 0.0
    fom: float = 1.0
    vsm: float = 2.0

    def __post_init__(self) -> None:
        weights = dataclasses.astuple(self)
        if min(weights) < 0 or not 0 < sum(weights) < math.inf:
            raise ConfigError(f"The tasks have the frequencies {weights}; expected at least 0, and one above.")

    def probabilities(self) -> list[float]:
        """In the order of ``TASKS``."""
        weights = [getattr(self, name) for name in TASKS]
        return [weight / sum(weights) for weight in weights]


@dataclass(frozen=True)
class PretrainingSampling:
    """How batches are drawn; the defaults are the paper's for TV.

    Attributes:
        videos: per batch and process.
        share: of words masked, of frames masked, and of frames shuffled.
        queries_per_video: of VSM, at most.
        span_dropout: share of VSM batches in which the span loss does not count.
        mix: how often each task comes.
    """

    videos: int = 32
    share: float = SHARE
    queries_per_video: int = 5
    span_dropout: float = 0.8
    mix: TaskMix = field(default_factory=TaskMix)

    def __post_init__(self) -> None:
        for name in ("videos", "queries_per_video"):
            if getattr(self, name) < 1:
                raise ConfigError(f"sampling.{name} is {getattr(self, name)}; expected at least 1.")
        for name in ("share", "span_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"sampling.{name} is {getattr(self, name)}; expected a share from 0 to 1.")


class PretrainingSampler:
    """Draws batches from videos with subtitles.

    Args:
        videos: the training videos, cut to the clip limit; their segments without subtitle context, so that words that are hidden
            do not show in the next segment.
        ids: of the tokenizer.
        config: how to draw.
        geometry: rows to pack into.
        seed: of the run.
        accumulation: batches per optimiser step; all of a step have the same task.
        rank, world: which part of each joint batch this process draws.

    Raises:
        DataError: fewer videos than a joint batch of one of the tasks takes.
    """

    def __init__(
        self,
        videos: Sequence[VideoInput],
        ids: WordIds,
        config: PretrainingSampling,
        geometry: RowGeometry,
        seed: int,
        accumulation: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._ids, self._config, self._geometry = ids, config, geometry
        self._seed, self._accumulation, self._rank, self._world = seed, accumulation, rank, world
        self._probabilities = config.mix.probabilities()
        spoken = [video for video in videos if any(_can_be_asked(part, ids) for part in video.segments)]
        self._videos = {name: spoken if name in ("mlm", "vsm") else list(videos) for name in TASKS}
        for name, probability in zip(TASKS, self._probabilities, strict=True):
            if probability and len(self._videos[name]) < config.videos * world:
                kind = "videos with subtitles" if name in ("mlm", "vsm") else "videos"
                raise DataError(
                    f"The training set has {len(self._videos[name])} {kind} and a batch of {name} takes {config.videos * world}; "
                    f"lower sampling.videos, or set sampling.mix.{name} to 0."
                )

    def task(self, step: int) -> PretrainingTaskName:
        """The task of an optimiser step, the same in every process."""
        rng = np.random.default_rng([self._seed, 4, step])
        return TASKS[rng.choice(len(TASKS), p=self._probabilities)]

    def batch(self, step: int, part: int = 0) -> PretrainingBatch:
        """A batch of an optimiser step; the same for the same seed, step, part and place in the joint batch."""
        config, geometry, task = self._config, self._geometry, self.task(step)
        number = step * self._accumulation + part
        drawn = draw_part(len(self._videos[task]), config.videos, number, self._seed, self._rank, self._world)
        videos = [self._videos[task][index] for index in drawn]
        rngs = video_rngs(config.videos, number, self._seed, self._rank, stream=5)
        if task == "mlm":
            return word_batch(videos, self._ids, rngs, geometry, config.share)
        if task == "fom":
            return order_batch(videos, rngs, geometry, config.share)
        if task == "vsm":
            spans = bool(np.random.default_rng([self._seed, 6, number]).random() >= config.span_dropout)
            return matching_batch(videos, rngs, geometry, config.queries_per_video, spans)
        return frame_batch(videos, rngs, geometry, task, config.share)


def _can_be_asked(segment: Segment, ids: WordIds) -> bool:
    return len(segment.frames) > 0 and bool(np.isin(segment.tokens, ids.words).any())
