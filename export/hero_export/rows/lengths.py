"""How long the videos, subtitles and texts of a corpus are: all that decides how many slots its rows leave empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from hero_export.bundles.sources import ModelSource
from hero_export.errors import ExportError
from hero_sdk.manifest import CAPTIONING, QUESTION_ANSWERING, RETRIEVAL, STATEMENTS, ModelSpec
from hero_sdk.media import video_duration
from hero_sdk.tokens import TextTokenizer, separated
from hero_sdk.video_files import find_videos
from hero_sdk.video_inputs import window_segments
from hero_train.data.annotations import read_hidden_queries
from hero_train.data.answer_annotations import read_questions, read_statements
from hero_train.data.captions import read_captioned_moments
from hero_train.data.corpus import read_all_subtitles
from hero_train.data.features import FEATURES_FOLDER, PREPARED_FILE
from hero_train.model.tasks import task_of
from hero_train.prepare.preparation import ANNOTATION_FOLDER, SUBTITLE_FILE

_FEATURES = "*.safetensors"


@dataclass(frozen=True)
class WindowLengths:
    """What the encoder reads at once: a video, or a window of a long one.

    Attributes:
        clips: how many there are.
        segments: frames and tokens (with the separator) of each subtitle that owns a frame.
    """

    clips: int
    segments: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TextLengths:
    """The texts that are read with one video for one answer: a statement, or a question with each of its answers.

    Attributes:
        video: number of the video in the corpus.
        tokens: of each text, before any is cut.
    """

    video: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class CorpusLengths:
    """A corpus.

    Attributes:
        videos: the windows of each video.
        queries: tokens of each query with its ``<s>`` (retrieval).
        texts: texts about videos (question answering, statements).
        captions: tokens of each caption, its end included (captioning).
    """

    videos: tuple[tuple[WindowLengths, ...], ...]
    queries: tuple[int, ...] = ()
    texts: tuple[TextLengths, ...] = ()
    captions: tuple[int, ...] = ()


def read_corpus_lengths(
    data: Path,
    source: ModelSource,
    *,
    subtitles: Path | None = None,
    annotations: Sequence[Path] = (),
) -> CorpusLengths:
    """Measure a corpus. No feature is read and no video decoded.

    Args:
        data: a prepared set, a folder of features (``<video id>.safetensors``), or a folder of videos.
        source: the model that will read it.
        subtitles: a folder of .srt and .vtt files, or a JSONL file of the field's format; None takes a prepared set's.
        annotations: JSONL files of the task; none takes a prepared set's.

    Raises:
        ExportError: no such folder, nothing in it, or an annotation about a video that is not there.
        HeroError: a file that cannot be read; the message names the place.
    """
    if not data.is_dir():
        raise ExportError(f"There is no folder {data}; expected a prepared set, a folder of features or one of videos.")
    folder = data
    if (data / PREPARED_FILE).is_file():
        folder = data / FEATURES_FOLDER
        if subtitles is None and (data / SUBTITLE_FILE).is_file():
            subtitles = data / SUBTITLE_FILE
        annotations = annotations or sorted((data / ANNOTATION_FOLDER).glob("*.jsonl"))
    config, tokenizer = source.config, TextTokenizer(source.tokenizer.read_text(encoding="utf-8"))
    clips = _clips(folder, config.clip_interval)
    spoken = read_all_subtitles(subtitles, clips)
    model = ModelSpec(
        config.feature_dim, config.hidden_size, config.clip_interval, config.clip_limit, config.subtitle_context
    )
    videos = tuple(
        tuple(
            WindowLengths(
                len(window),
                # Those that own no frame are left out of the rows.
                tuple((len(one.frames), len(one.tokens)) for one in segments if len(one.frames)),
            )
            for window, segments in window_segments(clips[video_id], spoken[video_id], tokenizer, model)
        )
        for video_id in clips
    )
    numbers = {video_id: number for number, video_id in enumerate(clips)}
    return _with_texts(videos, numbers, task_of(source.model_class), tokenizer, annotations)


def _clips(folder: Path, clip_interval: float) -> dict[str, int]:
    """Clips of each video by id."""
    if files := sorted(folder.glob(_FEATURES)):
        return {path.stem: _rows(path) for path in files}
    videos = find_videos(folder)
    if not videos:
        raise ExportError(f"{folder} has neither features ({_FEATURES}) nor videos in it. Name another folder.")
    # A clip exists when its middle lies in the video.
    return {path.stem: max(1, int(video_duration(path) / clip_interval + 0.5)) for path in videos}


def _rows(path: Path) -> int:
    try:
        with safe_open(path, framework="numpy") as file:
            shape = file.get_slice("features").get_shape()
    except SafetensorError as error:
        raise ExportError(
            f"{path} cannot be read ({error}); expected the features of a video in a tensor 'features' (clips, width)."
        ) from error
    if len(shape) != 2 or shape[0] < 1:
        raise ExportError(
            f"{path} has features of shape {tuple(shape)}; expected (clips, width) with at least one clip."
        )
    return int(shape[0])


def _with_texts(
    videos: tuple[tuple[WindowLengths, ...], ...],
    numbers: dict[str, int],
    task: str,
    tokenizer: TextTokenizer,
    annotations: Sequence[Path],
) -> CorpusLengths:
    """The texts of the annotations, as the task reads them."""

    def video_of(video_id: str, path: Path) -> int:
        if video_id not in numbers:
            raise ExportError(f"{path} has an annotation of the video {video_id}, which is not in the corpus.")
        return numbers[video_id]

    queries: list[int] = []
    texts: list[TextLengths] = []
    captions: list[int] = []
    for path in annotations:
        if task == RETRIEVAL:
            queries += [len(tokenizer.encode_query(one.text)) for one in read_hidden_queries(path)]
        if task == QUESTION_ANSWERING:
            for question in read_questions(path):
                asked = len(separated(tokenizer, question.text))
                lengths = tuple(asked + len(separated(tokenizer, answer)) for answer in question.answers)
                texts.append(TextLengths(video_of(question.video_id, path), lengths))
        if task == STATEMENTS:
            for statement in read_statements(path):
                tokens = len(separated(tokenizer, statement.text))
                texts.append(TextLengths(video_of(statement.video_id, path), (tokens,)))
        if task == CAPTIONING:
            moments = read_captioned_moments(path, captioned=False)
            captions += [len(tokenizer.encode(text)) + 1 for moment in moments for text in moment.captions]
    return CorpusLengths(videos, tuple(queries), tuple(texts), tuple(captions))
