"""The values that go in and out of the SDK: frozen, typed and printable."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Subtitle:
    """One subtitle: what is said from ``start`` to ``end`` (seconds from the start of the video)."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Moment:
    """A moment of a video that answers a query.

    Attributes:
        video_id: the id under which the video was added to the corpus.
        start: where the moment begins, in seconds.
        end: where it ends, in seconds.
        score: probability of the span times the (scaled) similarity of the video, in [0, 1]; comparable within one corpus.
        subtitle: what is said during the moment, subtitles joined by a space; empty when nothing is.
    """

    video_id: str
    start: float
    end: float
    score: float
    subtitle: str = ""


@dataclass(frozen=True)
class VideoHit:
    """A video that answers a query, with the similarity of its best clip (cosine, in [-1, 1])."""

    video_id: str
    score: float


@dataclass(frozen=True)
class Query:
    """An encoded sentence.

    Attributes:
        text: the sentence.
        vector: (hidden,) compared with clip embeddings by cosine (video retrieval).
        span_vector: (hidden,) multiplied with clip embeddings, unnormalised (span search).
    """

    text: str
    vector: FloatArray = field(repr=False)
    span_vector: FloatArray = field(repr=False)


@dataclass(frozen=True)
class EncodedVideo:
    """A video as a corpus keeps it.

    Attributes:
        clip_embeddings: (clips, hidden) one contextual embedding per clip of ``clip_interval`` seconds.
        clip_interval: seconds per clip.
        duration: length of the video in seconds.
        subtitles: the subtitles that went in, sorted by start.
    """

    clip_embeddings: FloatArray = field(repr=False)
    clip_interval: float
    duration: float
    subtitles: tuple[Subtitle, ...] = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """The answer to a question about a video.

    Attributes:
        index: its place among the answers that were offered, counted from 0.
        text: the answer.
        probabilities: of each answer that was offered, in their order; their sum is 1.
        start: where the moment begins that shows it, in seconds.
        end: where it ends, in seconds.
    """

    index: int
    text: str
    probabilities: tuple[float, ...]
    start: float
    end: float


@dataclass(frozen=True)
class Judgement:
    """Whether a statement about a video is true, and the probability that it is, in [0, 1]; above 0.5 it is taken for true."""

    true: bool
    probability: float


@dataclass(frozen=True)
class Caption:
    """A sentence about a moment of a video.

    Attributes:
        text: the sentence.
        start, end: of the clips that the model read for it, in seconds.
    """

    text: str
    start: float
    end: float
