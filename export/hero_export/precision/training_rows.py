"""Real inputs of a bundle's graphs: its own fp32 graphs run over videos and texts of the training split, packed by the SDK."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from hero_export.errors import CalibrationError
from hero_export.precision.recording import RecordingEngine
from hero_sdk.encoding import pad_clips
from hero_sdk.engines.batching import Arrays
from hero_sdk.engines.local import LocalEngine
from hero_sdk.frame_encoder import MAX_BATCH, load_frame_encoder
from hero_sdk.hero import Hero
from hero_sdk.hub import Stage
from hero_sdk.manifest import (
    CAPTIONING,
    FRAME_GRAPH,
    MOMENT_GRAPH,
    QUESTION_ANSWERING,
    RETRIEVAL,
    STATEMENTS,
    Manifest,
)
from hero_sdk.media import iterate_clip_frames
from hero_sdk.types import EncodedVideo, Query, Subtitle
from hero_sdk.video_features import VideoFeatures
from hero_train.data.annotations import read_moment_queries
from hero_train.data.answer_annotations import read_questions, read_statements
from hero_train.data.captions import read_captioned_moments
from hero_train.data.corpus import read_all_subtitles
from hero_train.data.features import check_interval, extract_features, find_videos, load_features
from hero_train.run_config import DataSection, FineTuningConfig

TASKS = {"retrieval": RETRIEVAL, "questions": QUESTION_ANSWERING, "statements": STATEMENTS, "captions": CAPTIONING}
"""The manifest's names of tasks by those of a run."""

TOGETHER = 8
"""Videos that are packed together, so that rows are as full as in use."""

Annotation = TypeVar("Annotation")


@dataclass(frozen=True)
class TrainingRows:
    """What came by.

    Attributes:
        rows: inputs (rows, ...) of each graph.
        videos: how many were read.
    """

    rows: dict[str, Arrays]
    videos: int


def record_rows(
    bundle: Path,
    config: FineTuningConfig,
    *,
    most: int,
    seed: int,
    pictures: bool = False,
    threads: int | None = None,
    on_stage: Stage = lambda stage: None,
) -> TrainingRows:
    """Run a bundle over videos of the training split, in random order, until each graph has seen enough rows.

    Args:
        bundle: the folder.
        config: of a run of the bundle's task; its training split is read.
        most: rows of each graph that are kept, of all that come by.
        seed: of the order and of the choice of rows.
        pictures: also keep frames of the videos, which the frame encoder's graph takes.
        threads: of the CPU, for each graph.
        on_stage: told about each stage as it begins.

    Raises:
        CalibrationError: the run is for another task, or has no videos to take pictures of.
        HeroError: an annotation, a video or the bundle cannot be read.
    """
    with LocalEngine(bundle, threads=threads, providers=["CPUExecutionProvider"]) as engine:
        manifest = engine.manifest
        check_task(config, manifest)
        if pictures and config.data.videos is None:
            raise CalibrationError(
                "Pictures were asked for, and the run has no videos to take them of (data.videos); expected their folder. "
                "Name it in the run's configuration, or calibrate without --pictures."
            )
        recorder = RecordingEngine(engine, most, seed)
        ask, texts = _texts(config, Hero(recorder), recorder)
        rng = np.random.default_rng(seed)
        order = [sorted(texts)[number] for number in rng.permutation(len(texts))]
        wanted = [graph for graph in manifest.graphs if graph != FRAME_GRAPH]
        done = 0
        while done < len(order) and min(recorder.seen[graph] for graph in wanted) < most:
            part = order[done : done + TOGETHER]
            on_stage(f"Reading videos {done + 1} to {done + len(part)} of {len(order)}")
            videos = _read_videos(bundle, manifest, config.data, part)
            ask(videos)
            if pictures and recorder.seen[FRAME_GRAPH] < most:
                _keep_pictures(recorder, manifest, config.data, part)
            done += len(part)
        rows = {graph: recorder.rows(graph) for graph in manifest.graphs if recorder.seen[graph]}
    return TrainingRows(rows, done)


def check_task(config: FineTuningConfig, manifest: Manifest) -> None:
    """Refuse a run of another task than the bundle's.

    Raises:
        CalibrationError: says which.
    """
    if TASKS[config.task] != manifest.task:
        raise CalibrationError(
            f"The run is for {TASKS[config.task]} and the bundle for {manifest.task}; expected the run that the bundle's model was "
            "trained with. Name its configuration with --data."
        )


Videos = Mapping[str, VideoFeatures]


def _texts(
    config: FineTuningConfig, hero: Hero, recorder: RecordingEngine
) -> tuple[Callable[[Videos], None], Mapping[str, Sequence[object]]]:
    """How to ask about videos, and what there is to ask by video."""
    path = config.data.train
    match config.task:
        case "retrieval":
            queries = _by_video((one.video_id, one.text) for one in read_moment_queries(path))
            return partial(_search, hero, recorder, queries), queries
        case "questions":
            asked = _by_video((one.video_id, (one.text, one.answers)) for one in read_questions(path))
            return partial(_each, hero.answer_many, asked), asked
        case "statements":
            said = _by_video((one.video_id, one.text) for one in read_statements(path))
            return partial(_each, hero.judge_many, said), said
        case _:
            moments = _by_video((one.video_id, (one.start, one.end)) for one in read_captioned_moments(path))
            return partial(_caption, hero, moments), moments


def _by_video(pairs: Iterable[tuple[str, Annotation]]) -> dict[str, list[Annotation]]:
    found: dict[str, list[Annotation]] = {}
    for video_id, annotation in pairs:
        found.setdefault(video_id, []).append(annotation)
    return found


def _each(ask: Callable[[VideoFeatures, list], object], asked: Mapping[str, list], videos: Videos) -> None:
    for video_id, video in videos.items():
        ask(video, asked[video_id])


def _search(hero: Hero, recorder: RecordingEngine, queries: Mapping[str, list[str]], videos: Videos) -> None:
    encoded = dict(zip(videos, hero.encode_many(list(videos.values())), strict=True))
    for video_id, video in encoded.items():
        for query in hero.encode_queries(queries[video_id]):
            recorder.keep(MOMENT_GRAPH, _moment_inputs(recorder.manifest, query, video))


def _moment_inputs(manifest: Manifest, query: Query, video: EncodedVideo) -> Arrays:
    """A query and the clips of its video, as the moment head's graph takes them; the SDK itself searches in numpy."""
    slots = manifest.geometry.temporal_slots
    clips, mask = pad_clips([video.clip_embeddings[:slots]], slots)
    return {"span_vector": query.span_vector[None], "clips": clips, "clip_mask": mask}


def _caption(hero: Hero, moments: Mapping[str, list[tuple[float, float]]], videos: Videos) -> None:
    interval = hero.manifest.model.clip_interval
    for (video_id, video), encoded in zip(videos.items(), hero.encode_many(list(videos.values())), strict=True):
        end = min(video.seconds(interval), len(video.features) * interval)
        hero.caption_many(encoded, [(start, stop) for start, stop in moments[video_id] if start < end])


def _read_videos(bundle: Path, manifest: Manifest, data: DataSection, video_ids: Sequence[str]) -> Videos:
    """Features and subtitles of videos; those of video files by the bundle's own frame encoder, or from its cache."""
    interval = manifest.model.clip_interval
    if data.videos is None:
        check_interval(data.features, interval)
        found, dropped = load_features(data.features, video_ids)
    else:
        encoder = load_frame_encoder((bundle / manifest.graphs[FRAME_GRAPH].file).parent)
        files = find_videos(data.videos)
        there = {video_id: files[video_id] for video_id in video_ids if video_id in files}
        found, dropped = extract_features(there, encoder, interval, data.features)
    if missing := [video_id for video_id in video_ids if video_id not in found]:
        raise CalibrationError(
            f"{len(missing)} videos of the training split cannot be read, such as {missing[0]}: "
            f"{dropped.get(missing[0], 'there is no such file.')} Name a run whose videos and features are there."
        )
    spoken: dict[str, tuple[Subtitle, ...]] = read_all_subtitles(data.subtitles, video_ids)
    return {
        video_id: VideoFeatures(found[video_id].features, tuple(spoken[video_id]), found[video_id].duration)
        for video_id in video_ids
    }


def _keep_pictures(recorder: RecordingEngine, manifest: Manifest, data: DataSection, video_ids: Sequence[str]) -> None:
    assert data.videos is not None
    files, spec = find_videos(data.videos), manifest.frame_encoder
    name = manifest.graphs[FRAME_GRAPH].inputs[0].name
    for video_id in video_ids:
        for images in iterate_clip_frames(files[video_id], manifest.model.clip_interval, spec.image_size, MAX_BATCH):
            recorder.keep(FRAME_GRAPH, {name: images})
