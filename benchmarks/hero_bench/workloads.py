"""What the measurements run on: sentences, videos, pictures and a corpus, made from a seed.

Sizes follow television series, the data HERO was made for (TVR: a video has 51 clips on average, a query 12 words). Values are
random: the time of a call depends on the shapes and not on what is in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hero_sdk.corpus import Corpus
from hero_sdk.corpus.rows import Identity, video_row
from hero_sdk.corpus.table import VideoTable
from hero_sdk.decoding import ImageArray
from hero_sdk.errors import require
from hero_sdk.hero import Hero, VideoFeatures
from hero_sdk.manifest import Manifest
from hero_sdk.tokens import TextTokenizer
from hero_sdk.types import EncodedVideo, FloatArray, Query, Subtitle

QUERY_TOKENS = 15
SUBTITLE_TOKENS = 12
"""Tokens of a subtitle on average. Their number varies as a gamma distribution of shape 2 does: many short, few long."""

LONGEST_SUBTITLE = 40

TYPICAL_CLIPS, TYPICAL_SUBTITLES = 50, 25
LONG_WINDOWS = 4
"""A long video has so many times the clips that the model reads at once."""

CLUSTERS = 50
INSERT_TOGETHER = 250

_COMMON_WORDS = (
    "the a he she they we you it is was are were not and but then so because when who what where how why that this there here "
    "about after again always before could door down ever every find friend get give go good guy hand have hear her him his house "
    "just keep know last leave let like little look make man maybe mean mind more need never night nothing now off old only open "
    "out over people please put really right room said say see should sit something sorry stand still talk tell thank thing think "
    "time try turn two very wait walk want water way well will with woman work would yeah yes your"
)
WORDS = tuple(_COMMON_WORDS.split())


@dataclass(frozen=True)
class Workloads:
    """Inputs that fit one bundle; the same arguments always give the same input.

    Args:
        manifest: of the bundle.
        tokenizer_json: of the bundle.
        seed: of everything.
    """

    manifest: Manifest
    tokenizer_json: str
    seed: int = 0

    def queries(self, count: int) -> list[str]:
        """Sentences of up to 15 tokens (fewer where the bundle's queries are shorter), ``<s>`` included."""
        tokens = min(QUERY_TOKENS, self.manifest.geometry.query_tokens) - 1
        rng = self._rng(1, count)
        return [self._sentence(rng, tokens) for _ in range(count)]

    def video(self, clips: int, subtitles: int, number: int = 0) -> VideoFeatures:
        """A video with subtitles all through it.

        Args:
            clips: how many.
            subtitles: how many; each is spoken over 70 to 90 % of its equal share of the time.
            number: another one gives another video.
        """
        rng = self._rng(2, clips, subtitles, number)
        model = self.manifest.model
        # Like pooled features of a convolutional network: not negative, mostly small.
        features = rng.exponential(0.5, (clips, model.feature_dim)).astype(np.float32)
        share = clips * model.clip_interval / max(subtitles, 1)
        # With its context and its frames a subtitle must fit a row.
        limit = min(LONGEST_SUBTITLE, self.manifest.geometry.slots // 2 // (model.subtitle_context + 1))
        lengths = np.clip(rng.gamma(2.0, SUBTITLE_TOKENS / 2, subtitles).round(), 1, max(limit - 1, 1)).astype(int)
        lines = []
        for index, tokens in enumerate(lengths):
            start = (index + rng.uniform(0, 0.1)) * share
            end = start + rng.uniform(0.7, 0.9) * share
            lines.append(Subtitle(start, end, self._sentence(rng, int(tokens))))
        return VideoFeatures(features, tuple(lines), clips * model.clip_interval)

    def typical_video(self, number: int = 0) -> VideoFeatures:
        """50 clips (75 s at the paper's 1.5 s) and 25 subtitles."""
        return self.video(TYPICAL_CLIPS, TYPICAL_SUBTITLES, number)

    def long_video(self) -> VideoFeatures:
        """Four times the clips that the model reads at once, with a subtitle for every two."""
        clips = LONG_WINDOWS * self.manifest.model.clip_limit
        return self.video(clips, max(clips // 2, 1))

    def images(self, count: int) -> ImageArray:
        """(count, size, size, 3) uint8, for the frame encoder."""
        size = self.manifest.frame_encoder.image_size
        return self._rng(3, count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)

    def encoded_videos(self, count: int, first: int = 0) -> list[EncodedVideo]:
        """Videos of 20 to 80 clips as a corpus keeps them, without subtitles.

        Their embeddings are clustered: a video lies around one of 50 centres, its clips around the video.

        Args:
            count: how many.
            first: number of the first one; each number has its own video.
        """
        model = self.manifest.model
        videos = []
        for number in range(first, first + count):
            rng = self._rng(4, number)
            middle = self._centres[rng.integers(CLUSTERS)] + 0.5 * rng.standard_normal(model.hidden_size)
            clips = int(rng.integers(20, 81))
            embeddings = middle + 0.5 * rng.standard_normal((clips, model.hidden_size))
            videos.append(
                EncodedVideo(embeddings.astype(np.float32), model.clip_interval, clips * model.clip_interval, ())
            )
        return videos

    def corpus_query(self) -> Query:
        """A query that lies near one of the centres of ``encoded_videos``."""
        rng = self._rng(5)
        centre = self._centres[0]
        vector, span = (centre + rng.standard_normal(len(centre)) for _ in range(2))
        scale = 1 / np.sqrt(len(centre))
        return Query("made", vector.astype(np.float32), (scale * span).astype(np.float32))

    @cached_property
    def _centres(self) -> FloatArray:
        return self._rng(6).standard_normal((CLUSTERS, self.manifest.model.hidden_size)).astype(np.float32)

    @cached_property
    def _tokenizer(self) -> TextTokenizer:
        return TextTokenizer(self.tokenizer_json)

    def _rng(self, *what: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *what))

    def _sentence(self, rng: np.random.Generator, tokens: int) -> str:
        """Words until there are so many tokens; one word less where the last one has too many, but at least one."""
        text = str(rng.choice(WORDS))
        for _ in range(tokens):
            longer = f"{text} {rng.choice(WORDS)}"
            if len(self._tokenizer.encode(longer)) > tokens:
                break
            text = longer
        return text


def write_corpus(workloads: Workloads, hero: Hero, folder: Path, videos: int) -> Corpus:
    """Write a new corpus of made videos, many per commit, and open it.

    Args:
        workloads: of the bundle that ``hero`` runs.
        hero: whose corpus it is to be.
        folder: where; it must not exist.
        videos: how many, at least 1.
    """
    arrow = require("pyarrow", "corpus", "keep a corpus")
    manifest = hero.manifest
    identity = Identity(manifest.fingerprint, manifest.model.hidden_size, manifest.model.clip_interval)
    table = VideoTable.open(folder, create=identity)
    for first in range(0, videos, INSERT_TOGETHER):
        some = workloads.encoded_videos(min(INSERT_TOGETHER, videos - first), first)
        rows = [video_row(f"video {first + number}", video, None, identity) for number, video in enumerate(some)]
        table.insert(arrow.concat_tables(rows).combine_chunks(), replace=False)
    table.optimize()
    return hero.corpus(folder, create=False)
