"""The Hero object: videos and sentences in, embeddings and moments out, with or without a server."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from hero_sdk.answering import answer_questions, judge_statements
from hero_sdk.captioning import caption_moments
from hero_sdk.encoding import encode_packed
from hero_sdk.engines import Engine
from hero_sdk.errors import BundleError, InputError
from hero_sdk.manifest import (
    CAPTIONING,
    FRAME_GRAPH,
    QUERY_GRAPH,
    QUESTION_ANSWERING,
    RETRIEVAL,
    STATEMENTS,
    Manifest,
)
from hero_sdk.media import embedded_subtitles, iterate_clip_frames
from hero_sdk.moments import make_moments
from hero_sdk.rows import pack_queries, pack_videos
from hero_sdk.sentence_search import BeamConfig
from hero_sdk.spans import search_spans, video_similarity
from hero_sdk.subtitles import read_subtitles
from hero_sdk.tokens import TextTokenizer
from hero_sdk.types import Answer, Caption, EncodedVideo, FloatArray, Judgement, Moment, Query, Subtitle
from hero_sdk.video_features import SubtitleSource, VideoFeatures, check_features, checked_subtitles
from hero_sdk.video_files import find_sidecar
from hero_sdk.video_inputs import video_inputs
from hero_sdk.windows import merge_windows

if TYPE_CHECKING:
    from hero_sdk.corpus import Corpus

logger = logging.getLogger(__name__)

FRAME_BATCH = 32
"""Images per call of the frame encoder: enough to keep an engine busy, 5 MB at 224 pixels."""

VideoSource = str | os.PathLike[str] | VideoFeatures
"""A video file, whose subtitles are found as in ``Hero.read_video``, or what ``Hero.read_video`` made of one."""


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
        self._require("encode_query", RETRIEVAL)
        texts = list(texts)
        spoken = _sentences(texts, "query")
        if not texts:
            return []
        limit = self.manifest.geometry.query_tokens
        tokens = [self._tokenizer.encode_query(text) for text in spoken]
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
        return self.encode_many([VideoFeatures(features, checked_subtitles(subtitles), duration)])[0]

    def encode_many(self, videos: Sequence[VideoFeatures]) -> list[EncodedVideo]:
        """Encode several videos together: their segments share rows, so that few slots stay empty.

        Raises:
            InputError: as ``encode_features``.
            BundleError: the bundle reads videos only together with a text about them.
        """
        self._require("encode_video", RETRIEVAL, CAPTIONING)
        model = self.manifest.model
        for number, video in enumerate(videos):
            check_features(video, number, model.feature_dim)
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
        parts: list[list[tuple[range, FloatArray]]] = [[] for _ in videos]
        for (number, clips, _), embeddings in zip(windows, encode_packed(self._engine, packed), strict=True):
            parts[number].append((clips, embeddings))
        encoded = []
        for video, pieces in zip(videos, parts, strict=True):
            duration = video.seconds(model.clip_interval)
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
        clips = self._clips(video)
        spans = search_spans(
            encoded.vector, encoded.span_vector, clips, [len(clips)], self.manifest.require_moment(), top_k
        )
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

    def answer(self, video: VideoSource, question: str, answers: Sequence[str]) -> Answer:
        """Answer a question about a video.

        Args:
            video: a video file, or what ``read_video`` made of one, which spares decoding it for the next question.
            question: a sentence.
            answers: at least two, at most as many as the bundle was exported for.

        Returns:
            Which answer is right, how probable each is, and the moment of the video that shows it.

        Raises:
            BundleError: the bundle is for another task than question answering.
            InputError: an empty question or answer, or a number of answers that the bundle does not take.
            MediaError, SubtitleError: as ``read_video``.
            EngineError: a graph failed.
        """
        return self.answer_many(video, [(question, answers)])[0]

    def answer_many(self, video: VideoSource, questions: Iterable[tuple[str, Sequence[str]]]) -> list[Answer]:
        """Answer several questions about one video, each with its answers, in one go; see ``answer``."""
        self._require("answer", QUESTION_ANSWERING)
        asked = []
        for question, answers in questions:
            offered = _sentences(answers, "answer")
            if len(offered) < 2:
                raise InputError(f"The question {question!r} has {len(offered)} answers; expected at least two.")
            asked.append((_sentences([question], "question")[0], offered))
        return answer_questions(self._engine, self._tokenizer, self._features(video), asked) if asked else []

    def judge(self, video: VideoSource, statement: str) -> Judgement:
        """Say whether a statement about a video is true.

        Args:
            video: a video file, or what ``read_video`` made of one, which spares decoding it for the next statement.
            statement: a sentence.

        Raises:
            BundleError: the bundle is for another task than statements.
            InputError: an empty statement.
            MediaError, SubtitleError: as ``read_video``.
            EngineError: a graph failed.
        """
        return self.judge_many(video, [statement])[0]

    def judge_many(self, video: VideoSource, statements: Iterable[str]) -> list[Judgement]:
        """Judge several statements about one video in one go; see ``judge``."""
        self._require("judge", STATEMENTS)
        texts = _sentences(statements, "statement")
        return judge_statements(self._engine, self._tokenizer, self._features(video), texts) if texts else []

    def caption(self, video: VideoSource | EncodedVideo, start: float, end: float, *, beams: int = 1) -> Caption:
        """Describe a moment of a video in a sentence.

        Args:
            video: a video file, what ``read_video`` made of one, or what ``encode_video`` did, which spares encoding it again.
            start, end: of the moment, in seconds from the start of the video; it is cut to the video.
            beams: sentences that the search keeps at each word; 1 takes the most probable word each time.

        Raises:
            BundleError: the bundle is for another task than captioning.
            InputError: a moment outside the video, longer than the bundle captions, or fewer than one beam.
            MediaError, SubtitleError: as ``read_video``.
            EngineError: a graph failed.
        """
        return self.caption_many(video, [(start, end)], beams=beams)[0]

    def caption_many(
        self, video: VideoSource | EncodedVideo, moments: Iterable[tuple[float, float]], *, beams: int = 1
    ) -> list[Caption]:
        """Caption several moments of one video, each as (start, end) in seconds, in one go; see ``caption``."""
        self._require("caption", CAPTIONING)
        beam = None if beams == 1 else BeamConfig(beams)
        spans = list(moments)
        if not spans:
            return []
        encoded = video if isinstance(video, EncodedVideo) else self.encode_many([self._features(video)])[0]
        self._clips(encoded)
        return caption_moments(self._engine, self._tokenizer, encoded, spans, beam)

    def corpus(self, path: str | os.PathLike[str], create: bool = True) -> Corpus:
        """Open the corpus in a folder.

        Args:
            path: the folder.
            create: make it when it is not there; otherwise that is an error.

        Raises:
            CorpusError: no corpus there, or one that cannot be read.
            FingerprintError: embedded by a bundle with another fingerprint.
            BundleError: this bundle is for another task than retrieval.
        """
        from hero_sdk.corpus import Corpus

        self._require("corpus", RETRIEVAL)
        return Corpus(self, path, create=create)

    def _features(self, video: VideoSource) -> VideoFeatures:
        if isinstance(video, VideoFeatures):
            check_features(video, 0, self.manifest.model.feature_dim)
            return video
        return self.read_video(video)

    def _clips(self, video: EncodedVideo) -> FloatArray:
        """The clip embeddings of a video; those of another width than the model's are refused."""
        clips, width = video.clip_embeddings, self.manifest.model.hidden_size
        if np.ndim(clips) != 2 or np.shape(clips)[1] != width:
            raise InputError(
                f"The video has clip embeddings of shape {np.shape(clips)}; the bundle's have (clips, {width}). "
                "Encode the video with this bundle."
            )
        return clips

    def _require(self, call: str, *tasks: str) -> None:
        """Refuse a call that needs a bundle of one of these tasks."""
        if self.manifest.task not in tasks:
            raise BundleError(
                f"The bundle is for {self.manifest.task}, and Hero.{call} needs one for {' or '.join(tasks)}. "
                "Use a bundle that `hero-export onnx` made from a checkpoint of that task."
            )

    def _run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if graph not in self.manifest.graphs:
            raise BundleError(
                f"The bundle has the graphs {sorted(self.manifest.graphs)} and this call needs '{graph}'. "
                "Export the bundle again."
            )
        return self._engine.run(graph, inputs)

    @staticmethod
    def _subtitles(video: Path, source: SubtitleSource) -> tuple[Subtitle, ...]:
        if isinstance(source, (str, os.PathLike)):
            return read_subtitles(Path(source))
        if source is not None:
            return checked_subtitles(source)
        sidecar = find_sidecar(video)
        return embedded_subtitles(video) if sidecar is None else read_subtitles(sidecar)


def _sentences(texts: Iterable[str], what: str) -> list[str]:
    """Texts without white space at their ends; one that is none or empty is refused."""
    texts = list(texts)
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"The {what} is {text!r}; expected a sentence with at least one word.")
    return [text.strip() for text in texts]


def check_top_k(top_k: int) -> None:
    """Refuse a number of results that is not a positive integer, with an InputError."""
    if isinstance(top_k, bool) or not isinstance(top_k, (int, np.integer)) or top_k < 1:
        raise InputError(f"top_k is {top_k!r}; expected an integer of at least 1.")
