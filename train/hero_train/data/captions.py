"""Captioned moments in the format of TVC (one JSON object per line and moment), and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hero_sdk.captioning import moment_span
from hero_sdk.rows import PackedVideos, RowGeometry, VideoInput, pack_queries, pack_videos
from hero_sdk.tokens import BEGIN_ID, SEPARATOR_ID, TextTokenizer
from hero_sdk.types import IntArray
from hero_train.config import HeroConfig
from hero_train.data.annotations import parse_moment, read_json_lines
from hero_train.data.corpus import build_input, read_all_subtitles
from hero_train.data.features import VideoFeatures
from hero_train.data.sampling import draw_part, video_rngs
from hero_train.errors import ConfigError, DataError

IGNORED_TOKEN = -1
"""The target where a caption has ended."""


@dataclass(frozen=True)
class CaptionedMoment:
    """A moment and the sentences that people wrote about it.

    Attributes:
        moment_id: of the annotation (``clip_id``).
        video_id: the video it lies in.
        start, end: in seconds.
        captions: the sentences; none in a split that is to be captioned.
    """

    moment_id: str
    video_id: str
    start: float
    end: float
    captions: tuple[str, ...]


def read_captioned_moments(path: Path, *, captioned: bool = True) -> list[CaptionedMoment]:
    """Read a TVC annotation file: ``clip_id``, ``vid_name``, ``ts`` [start, end], and ``descs``, a list of objects with ``desc``.

    Args:
        path: the file.
        captioned: whether every moment must have a caption; otherwise ``descs`` may be missing or empty, as in TVC's test split.

    Raises:
        DataError: a line without one of them, with a moment that is none, or with an id that an earlier line has; the message
            names the line.
    """
    moments: dict[str, CaptionedMoment] = {}
    for number, content in read_json_lines(path):
        where = f"Line {number} of {path}"
        moment = _captioned_moment(content, where, captioned)
        if moment.moment_id in moments:
            raise DataError(
                f"{where} has clip_id {moment.moment_id}, as an earlier line has; every moment has its own."
            )
        moments[moment.moment_id] = moment
    if not moments:
        raise DataError(f"{path} has no moment in it.")
    return list(moments.values())


def _captioned_moment(content: dict[str, Any], where: str, captioned: bool) -> CaptionedMoment:
    needed = ("clip_id", "vid_name", "ts", "descs") if captioned else ("clip_id", "vid_name", "ts")
    if missing := [name for name in needed if name not in content]:
        raise DataError(f"{where} has no {missing}; a captioned moment has {', '.join(needed)}.")
    described = content.get("descs", [])
    if not isinstance(described, list) or (captioned and not described):
        raise DataError(f"{where} has descs {described!r}; expected a list of captions, each an object with desc.")
    captions = []
    for entry in described:
        text = entry.get("desc") if isinstance(entry, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where} has the caption {entry!r}; expected an object with a sentence in desc.")
        captions.append(text)
    start, end = parse_moment(content["ts"], where)
    return CaptionedMoment(str(content["clip_id"]), str(content["vid_name"]), start, end, tuple(captions))


@dataclass(frozen=True)
class EncodedMoment:
    """A captioned moment as the model reads it.

    Attributes:
        annotation: as it was read.
        first, stop: its first clip, and the clip after its last one.
        captions: (tokens,) int32 each, without begin and end.
        reachable: whether it begins in what is read of the video. Another one has the last clip, and is not trained on.
    """

    annotation: CaptionedMoment
    first: int
    stop: int
    captions: tuple[IntArray, ...]
    reachable: bool = True


@dataclass
class CaptionVideo:
    """A video with its captioned moments; ``input`` is cut to the clip limit."""

    video_id: str
    input: VideoInput
    moments: list[EncodedMoment] = field(default_factory=list)


def build_caption_corpus(
    moments: Sequence[CaptionedMoment],
    features: dict[str, VideoFeatures],
    subtitles: Path | None,
    tokenizer: TextTokenizer,
    config: HeroConfig,
) -> list[CaptionVideo]:
    """The videos of a split with their captioned moments.

    A moment that begins beyond the clip limit is not trained on. It is evaluated all the same, with a caption of the last clip that
    is read. Captions are tokenised as queries are: one that is all upper case is lower-cased. (The authors leave it as it is.)

    Raises:
        DataError: a moment of a video without features.
    """
    videos: dict[str, CaptionVideo] = {}
    spoken = read_all_subtitles(subtitles, (moment.video_id for moment in moments))
    for moment in moments:
        name = moment.video_id
        if name not in videos:
            if name not in features:
                raise DataError(f"Moment {moment.moment_id} lies in the video {name}, which has no features.")
            videos[name] = CaptionVideo(name, build_input(features[name], spoken[name], tokenizer, config))
        video = videos[name]
        clips = len(video.input.features)
        first, stop = moment_span(moment.start, moment.end, config.clip_interval, clips)
        captions = tuple(tokenizer.encode(text) for text in moment.captions)
        reachable = moment.start < clips * config.clip_interval
        video.moments.append(EncodedMoment(moment, first, stop, captions, reachable))
    return list(videos.values())


@dataclass(frozen=True)
class CaptionBatch:
    """Videos, moments and captions of one step. ``M`` moments, ``K`` captions of at most ``T`` tokens.

    Attributes:
        packed: the videos.
        moments: (M, 3) int32 video, first clip, and the clip after the last one.
        token_ids: (K, T) int32 what the decoder reads: ``<s>`` and the caption, then padding.
        target_ids: (K, T) int32 what it is to say next: the caption and ``</s>``, then ``IGNORED_TOKEN``.
        caption_moment: (K,) int64 the moment of each caption.
    """

    packed: PackedVideos
    moments: IntArray
    token_ids: IntArray
    target_ids: IntArray
    caption_moment: np.ndarray


def collate_captions(videos: Sequence[CaptionVideo], geometry: RowGeometry, limit: int) -> CaptionBatch:
    """Make a batch of all moments of some videos, with all their captions.

    Args:
        videos: each may have any number of moments.
        geometry: rows to pack into.
        limit: most tokens of a caption, its end included; longer ones are cut and lose their end.

    Raises:
        InputError: as ``hero_sdk.rows.pack_videos``.
    """
    moments = [(number, moment) for number, video in enumerate(videos) for moment in video.moments]
    captions = [caption for _, moment in moments for caption in moment.captions]
    counts = np.array([len(moment.captions) for _, moment in moments], dtype=np.int64)
    length = min(max(map(len, captions), default=0) + 1, limit)
    token_ids, _ = pack_queries([np.insert(caption, 0, BEGIN_ID) for caption in captions], length)
    target_ids, told = pack_queries([np.append(caption, np.int32(SEPARATOR_ID)) for caption in captions], length)
    return CaptionBatch(
        packed=pack_videos([video.input for video in videos], geometry),
        moments=np.array([(video, one.first, one.stop) for video, one in moments], dtype=np.int32).reshape(-1, 3),
        token_ids=token_ids,
        target_ids=np.where(told, target_ids, np.int32(IGNORED_TOKEN)),
        caption_moment=np.repeat(np.arange(len(moments)), counts),
    )


@dataclass(frozen=True)
class CaptionSamplingConfig:
    """How batches are drawn.

    Attributes:
        videos: per batch and process.
        captions_per_video: at most; a video with fewer gives all it has.
        token_limit: most tokens of a caption, its end included.
    """

    videos: int = 32
    captions_per_video: int = 4
    token_limit: int = 60

    def __post_init__(self) -> None:
        for name in ("videos", "captions_per_video", "token_limit"):
            if getattr(self, name) < 1:
                raise ConfigError(f"sampling.{name} is {getattr(self, name)}; expected at least 1.")


class CaptionSampler:
    """Draws batches of captioned moments, each a pure function of the seed and the step.

    The joint batch of several processes is that of one process with as many videos.

    Args:
        corpus: the training videos; those without a caption to train on are left out.
        config: how to draw.
        geometry: rows to pack into.
        seed: of the run.
        rank, world: which part of each joint batch this process draws.

    Raises:
        DataError: fewer videos than a joint batch takes.
    """

    def __init__(
        self,
        corpus: Sequence[CaptionVideo],
        config: CaptionSamplingConfig,
        geometry: RowGeometry,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._config, self._geometry, self._seed, self._rank, self._world = config, geometry, seed, rank, world
        trained = [
            replace(video, moments=[moment for moment in video.moments if moment.reachable and moment.captions])
            for video in corpus
        ]
        self._videos = [video for video in trained if video.moments]
        if len(self._videos) < config.videos * world:
            raise DataError(
                f"The training set has {len(self._videos)} videos with captions and a batch takes {config.videos * world}; "
                "lower sampling.videos."
            )

    def batch(self, step: int) -> CaptionBatch:
        """The batch of a step."""
        size, count = self._config.videos, self._config.captions_per_video
        chosen = draw_part(len(self._videos), size, step, self._seed, self._rank, self._world)
        rngs = video_rngs(size, step, self._seed, self._rank)
        videos = [_with_some(self._videos[index], count, rng) for index, rng in zip(chosen, rngs, strict=True)]
        return collate_captions(videos, self._geometry, self._config.token_limit)


def _with_some(video: CaptionVideo, count: int, rng: np.random.Generator) -> CaptionVideo:
    """The video with at most ``count`` of its captions, and with the moments that they are of."""
    owners = np.repeat(np.arange(len(video.moments)), [len(moment.captions) for moment in video.moments])
    picked = np.sort(rng.permutation(len(owners))[:count])
    first = np.searchsorted(owners, np.arange(len(video.moments)))
    moments = []
    for number, moment in enumerate(video.moments):
        captions = tuple(moment.captions[place - first[number]] for place in picked[owners[picked] == number])
        if captions:
            moments.append(replace(moment, captions=captions))
    return replace(video, moments=moments)
