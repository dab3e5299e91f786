"""The Hero object: videos and sentences in, embeddings and moments out, with or without a server."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from hero_sdk.engines import Engine
from hero_sdk.errors import BundleError, InputError
from hero_sdk.manifest import CROSS_MODAL_GRAPH, FRAME_GRAPH, QUERY_GRAPH, TEMPORAL_GRAPH, Manifest
from hero_sdk.media import embedded_subtitles, iterate_clip_frames
from hero_sdk.moments import make_moments
from hero_sdk.rows import pack_queries, pack_videos
from hero_sdk.signature import PublicKeys
from hero_sdk.spans import search_spans, video_similarity
from hero_sdk.subtitles import read_subtitles, sort_subtitles
from hero_sdk.tokens import TextTokenizer
from hero_sdk.types import EncodedVideo, FloatArray, Moment, Query, Subtitle
from hero_sdk.video_files import find_sidecar
from hero_sdk.video_inputs import video_inputs
from hero_sdk.windows import merge_windows

if TYPE_CHECKING:
    from hero_sdk.corpus import Corpus

logger = logging.getLogger(__name__)

FRAME_BATCH = 32
"""Images per call of the frame encoder: enough to keep an engine busy, 5 MB at 224 pixels."""

SubtitleSource = str | os.PathLike[str] | Sequence[Subtitle] | None
"""Where subtitles come from: a file, the subtitles themselves (``()`` for none), or None to look for them."""


@dataclass(frozen=True)
class VideoFeatures:
    """A video as the encoder reads it, before any encoding.

    Attributes:
        features: (clips, feature_dim) float32, one frame feature per clip.
        subtitles: sorted by start.
        duration: seconds. None: clips times the clip interval.
    """

    features: FloatArray = field(repr=False)
    subtitles: tuple[Subtitle, ...] = field(default=(), repr=False)
    duration: float | None = None


class Hero:
    """Encodes sentences and videos, and finds moments.

    Made by ``hero_sdk.load`` (in this process) or ``hero_sdk.connect`` (a Triton server); both give the same object with
    the same methods and, to rounding, the same results. May be shared between threads.

    Args:
        engine: what runs the graphs. The object owns it: closing the one closes the other.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        try:
            self._tokenizer = TextTokenizer(engine.tokenizer_json)
        except BaseException:
            engine.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle."""
        return self._engine.manifest

    def close(self) -> None:
        """Free the engine. A second call does nothing."""
        self._engine.close()

    def __enter__(self) -> Hero:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def encode_query(self, text: str) -> Query:
        """Encode one sentence.

        Raises:
            InputError: not a string, or nothing but white space.
            EngineError: the graph failed.
        """
        return self.encode_queries([text])[0]

    def encode_queries(self, texts: Iterable[str]) -> list[Query]:
        """Encode several sentences in one go; see ``encode_query``. A sentence that is too long is cut, with a log warning."""
        if isinstance(texts, str):
            raise InputError("encode_queries takes a list of sentences and got one string; use encode_query.")
        texts = list(texts)
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"The query is {text!r}; expected a sentence with at least one word.")
        if not texts:
            return []
        limit = self.manifest.geometry.query_tokens
        tokens = [self._tokenizer.encode_query(text.strip()) for text in texts]
        for text, ids in zip(texts, tokens, strict=True):
            if len(ids) > limit:
                logger.warning(
                    "A query has %d tokens and the model reads %d; the rest is cut: %.60s...", len(ids), limit, text
                )
        token_ids, segment_ids = pack_queries(tokens, limit)
        output = self._run(QUERY_GRAPH, {"token_ids": token_ids, "segment_ids": segment_ids})
        return [Query(*parts) for parts in zip(texts, output["query_vector"], output["span_vector"], strict=True)]

    def as_query(self, query: str | Query) -> Query:
        """Encode a sentence; one that was encoded before is checked and comes back as it is.

        Raises:
            InputError: as ``encode_query``, or vectors of another width than the model's.
        """
        if not isinstance(query, Query):
            return self.encode_query(query)
        width = self.manifest.model.hidden_size
        for name, vector in (("vector", query.vector), ("span vector", query.span_vector)):
            if np.shape(vector) != (width,):
                raise InputError(
                    f"The {name} of the query {query.text!r} has the shape {np.shape(vector)}; the bundle's have ({width},). "
                    "Encode the sentence with this bundle."
                )
        return query

    def read_video(self, video: str | os.PathLike[str], subtitles: SubtitleSource = None) -> VideoFeatures:
        """Decode a video and encode its frames, without looking at subtitles and frames together yet.

        Args:
            video: a file that PyAV decodes, of any length.
            subtitles: an .srt or .vtt file, or the subtitles themselves (``()`` for none). None: the file of the same
                name beside the video (see ``video_files.find_sidecar``), else those embedded in the video, else none.

        Raises:
            MediaError: the video cannot be decoded or has no frames.
            SubtitleError: the subtitle file cannot be read.
        """
        lines = self._subtitles(Path(video), subtitles)
        spec = self.manifest.frame_encoder
        frames = iterate_clip_frames(Path(video), self.manifest.model.clip_interval, spec.image_size, FRAME_BATCH)
        features = [self._run(FRAME_GRAPH, {"images": images})["features"] for images in frames]
        return VideoFeatures(np.concatenate(features), lines, frames.duration)

    def encode_video(self, video: str | os.PathLike[str], subtitles: SubtitleSource = None) -> EncodedVideo:
        """Encode a video file with its subtitles; arguments and errors as in ``read_video``."""
        return self.encode_many([self.read_video(video, subtitles)])[0]

    def encode_features(
        self, features: FloatArray, subtitles: Sequence[Subtitle] = (), duration: float | None = None
    ) -> EncodedVideo:
        """Encode a video whose frame features exist already.

        Args:
            features: (clips, feature_dim) float32 from the frame encoder that the model was trained with, one per clip.
            subtitles: in any order.
            duration: seconds. None: clips times the clip interval.

        Raises:
            InputError: features of another width, without clips or not finite, or a subtitle that ends before it starts.
        """
        return self.encode_many([VideoFeatures(features, _checked_subtitles(subtitles), duration)])[0]

    def encode_many(self, videos: Sequence[VideoFeatures]) -> list[EncodedVideo]:
        """Encode several videos together: their segments share rows, so that few slots stay empty."""
        model = self.manifest.model
        for number, video in enumerate(videos):
            _check_features(video, number, model.feature_dim)
        windows = [
            (number, clips, window)
            for number, video in enumerate(videos)
            for clips, window in video_inputs(video.features, video.subtitles, self._tokenizer, model)
        ]
        if not windows:
            return []
        packed = pack_videos([window for _, _, window in windows], self.manifest.geometry)
        if packed.cut_tokens:
            logger.warning("%d subtitle tokens did not fit their row and were cut.", packed.cut_tokens)
        hidden = self._run(CROSS_MODAL_GRAPH, packed.cross_modal.arrays())["hidden"]
        matched = packed.regrouping.apply(hidden, packed.temporal)
        output = self._run(TEMPORAL_GRAPH, {**packed.temporal.arrays(), "matched": matched})["clip_embeddings"]

        parts: list[list[tuple[range, FloatArray]]] = [[] for _ in videos]
        for (number, clips, _), embeddings in zip(windows, packed.unpack(output), strict=True):
            parts[number].append((clips, embeddings))
        encoded = []
        for video, pieces in zip(videos, parts, strict=True):
            duration = len(video.features) * model.clip_interval if video.duration is None else video.duration
            encoded.append(EncodedVideo(merge_windows(pieces), model.clip_interval, duration, video.subtitles))
        return encoded

    def moments(self, query: str | Query, video: EncodedVideo, top_k: int = 10) -> list[Moment]:
        """Find the moments of one video that a sentence describes, without any corpus.

        Args:
            query: a sentence, or one that was encoded.
            video: from ``encode_video`` or ``encode_features``.
            top_k: how many at most; overlapping ones are suppressed.

        Returns:
            Best first, with an empty ``video_id``.

        Raises:
            InputError: an empty sentence, or a sentence or video that another bundle encoded and whose width shows it.
        """
        check_top_k(top_k)
        encoded = self.as_query(query)
        clips = video.clip_embeddings
        width = self.manifest.model.hidden_size
        if np.ndim(clips) != 2 or np.shape(clips)[1] != width:
            raise InputError(
                f"The video has clip embeddings of shape {np.shape(clips)}; the bundle's have (clips, {width}). "
                "Encode the video with this bundle."
            )
        spans = search_spans(encoded.vector, encoded.span_vector, clips, [len(clips)], self.manifest.moment, top_k)
        return make_moments(spans, lambda number: ("", video))

    def relevance(self, query: str | Query, video: EncodedVideo) -> FloatArray:
        """How well each clip of a video fits a sentence: the curve that a user sees under a player.

        Args:
            query: a sentence, or one that was encoded.
            video: from ``encode_video`` or ``encode_features``.

        Returns:
            (clips,) float32, cosines in [-1, 1]; the maximum is the similarity of the video.
        """
        encoded = query if isinstance(query, Query) else self.encode_query(query)
        clips = video.clip_embeddings
        return video_similarity(encoded.vector, clips, np.ones(len(clips), dtype=np.int64))

    def corpus(self, path: str | os.PathLike[str], create: bool = True) -> Corpus:
        """Open the corpus in a folder.

        Args:
            path: the folder.
            create: make it when it is not there; otherwise that is an error.

        Raises:
            CorpusError: no corpus there, or one that cannot be read.
            FingerprintError: embedded by a bundle with another fingerprint.
        """
        from hero_sdk.corpus import Corpus

        return Corpus(self, path, create=create)

    def _run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if graph not in self.manifest.graphs:
            raise BundleError(
                f"The bundle has the graphs {sorted(self.manifest.graphs)} and this call needs '{graph}'. "
                "Use a bundle that `hero-export onnx` made for retrieval."
            )
        return self._engine.run(graph, inputs)

    @staticmethod
    def _subtitles(video: Path, source: SubtitleSource) -> tuple[Subtitle, ...]:
        if isinstance(source, (str, os.PathLike)):
            return read_subtitles(Path(source))
        if source is not None:
            return _checked_subtitles(source)
        sidecar = find_sidecar(video)
        return embedded_subtitles(video) if sidecar is None else read_subtitles(sidecar)


def check_top_k(top_k: int) -> None:
    """Refuse a number of results that is not a positive integer, with an InputError."""
    if isinstance(top_k, bool) or not isinstance(top_k, (int, np.integer)) or top_k < 1:
        raise InputError(f"top_k is {top_k!r}; expected an integer of at least 1.")


def _checked_subtitles(subtitles: Sequence[Subtitle]) -> tuple[Subtitle, ...]:
    for number, subtitle in enumerate(subtitles):
        if not isinstance(subtitle, Subtitle):
            raise InputError(f"Subtitle {number} is {subtitle!r}; expected a hero_sdk.Subtitle(start, end, text).")
    return sort_subtitles(subtitles)


def _check_features(video: VideoFeatures, number: int, width: int) -> None:
    shape = np.shape(video.features)
    if len(shape) != 2 or shape[0] < 1 or shape[1] != width:
        raise InputError(
            f"Video {number} has features of shape {shape}; the model reads (clips, {width}) with at least one clip. "
            "Extract the features with the frame encoder of the bundle."
        )
    if not np.isfinite(video.features).all():
        raise InputError(f"The features of video {number} have values that are not finite. Extract them again.")
    if video.duration is not None and not (math.isfinite(video.duration) and video.duration > 0):
        raise InputError(f"Video {number} has a duration of {video.duration!r} s; expected a positive number.")


def load(
    bundle: str | os.PathLike[str],
    *,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    require_signature: PublicKeys | None = None,
) -> Hero:
    """Run a bundle in this process.

    Args:
        bundle: folder that ``hero-export onnx`` wrote, or ``hub:OWNER/NAME`` for one on the Hugging Face hub, with ``@REVISION``
            behind it for a branch, tag or commit; it is kept in the hub's cache.
        threads: of the engine. None: one per core that this process may use.
        providers: onnxruntime execution providers, in order of preference. None: CUDA where it is, then CPU.
        require_signature: public keys (PEM files or texts) of which one must have signed the bundle. None asks for no signature.

    Raises:
        BundleError: the bundle is incomplete or altered.
        SignatureError: none of the required keys signed it.
        HubError: the hub cannot be reached, or has no such bundle.
        MissingPackageError: onnxruntime, or what the hub or a signature needs, is not installed.
    """
    from hero_sdk.engines.local import LocalEngine
    from hero_sdk.hub import local_bundle

    folder = local_bundle(bundle, require_signature=require_signature)
    return Hero(LocalEngine(folder, threads=threads, providers=providers, require_signature=require_signature))


def connect(url: str, *, timeout: float = 60.0, retries: int = 3) -> Hero:
    """Use a Triton server that runs a repository of ``hero-export triton``.

    Args:
        url: ``grpc://host:8001`` or ``host:8001``.
        timeout: seconds for one request.
        retries: how often a call is tried again when the server cannot be reached.

    Raises:
        ServerError: the server cannot be reached or is not ready.
    """
    from hero_sdk.engines.triton import TritonEngine

    return Hero(TritonEngine(url, timeout=timeout, retries=retries))
