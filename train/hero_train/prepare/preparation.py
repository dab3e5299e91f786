"""A training set, written so that it is whole or absent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hero_sdk.alignment import assign_frames
from hero_sdk.types import Subtitle
from hero_train.data.features import FEATURES_FOLDER
from hero_train.data.lmdb_corpus import DAMAGED_SHARE
from hero_train.errors import DataError
from hero_train.prepare.annotations import Annotations, divide_annotations, read_annotations
from hero_train.prepare.durations import gather_durations
from hero_train.prepare.feature_files import MadeVideo, fingerprint, write_all
from hero_train.prepare.features import FeatureSource, InPieces
from hero_train.prepare.fitting import fit_annotations, refuse_empty
from hero_train.prepare.pieces import WHOLE, Pieces
from hero_train.prepare.report import Dropped, Report
from hero_train.prepare.schemas import Schema
from hero_train.prepare.subtitles import Subtitles, gather_subtitles
from hero_train.prepare.summary import FeatureSummary, SplitSummary, SubtitleSummary, Summary, is_prepared
from hero_train.staging import staged

ANNOTATION_FOLDER = "annotations"
SUBTITLE_FILE = "subtitles.jsonl"
DROPPED_FILE = "dropped.jsonl"


@dataclass(frozen=True)
class Request:
    """What is to be prepared.

    Attributes:
        out: folder of the set.
        features: where the features come from.
        schema: of the annotations; None: there are none, and the set has every video of the source.
        files: annotations by split.
        together: one file with the annotations of all splits, in place of ``files``.
        split_lists: which video belongs to which split, where the annotations do not say.
        subtitles: where the subtitles come from.
        durations: a file with the length of each video.
        pieces: into which long videos are cut.
        damaged_share: how many of the annotations, of the videos' features and of their subtitles may be damaged, in [0, 1].
        missing_share: how many of the videos may be without features, in [0, 1].
        force: whether a set that is there may be replaced.
    """

    out: Path
    features: FeatureSource
    schema: Schema | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    together: Path | None = None
    split_lists: Path | None = None
    subtitles: Path | None = None
    durations: Path | None = None
    pieces: Pieces = WHOLE
    damaged_share: float = DAMAGED_SHARE
    missing_share: float = 0.0
    force: bool = False


def prepare(request: Request, advance: Callable[[int], None] = lambda total: None) -> Summary:
    """Make a set.

    Args:
        request: what is to be prepared.
        advance: called for each video whose features are done, with the number of all.

    Raises:
        ConfigError, DataError, SubtitleError: what was found, what was expected, what to do. No set is written then.
    """
    check_destination(request.out, request.force)
    if request.pieces.seconds:
        request = replace(request, features=InPieces(request.features, request.pieces.seconds))
    report = Report()
    # Everything that may end the preparation comes before the features, which may take days.
    annotations, files = _read_annotations(request, report)
    report.annotations.refuse_above(request.damaged_share)
    records = [record for split in annotations.values() for record in split]
    durations = gather_durations(request.durations, records, request.subtitles, request.pieces.seconds)
    wanted = None if request.schema is None else _there(request, [record.video_id for record in records], report)
    subtitles = _read_subtitles(request, wanted, report) if wanted is not None else {}
    with staged(request.out) as folder:
        made = write_all(request.features, wanted, durations, folder / FEATURES_FOLDER, report, advance)
        report.features.refuse_above(request.damaged_share)
        if request.schema is not None:
            annotations = fit_annotations(annotations, files, made, request.schema, report)
        report.annotations.refuse_above(request.damaged_share)
        refuse_empty(annotations, report)
        if not made:
            raise DataError(f"No video of {request.features.place} has features that can be used.")
        if wanted is None:
            subtitles = _read_subtitles(request, list(made), report)
        subtitles = {video_id: spoken for video_id, spoken in subtitles.items() if video_id in made}
        _write_set(folder, annotations, subtitles, report.dropped)
        summary = _summary(request, annotations, files, made, subtitles, report)
        summary.write(folder)
    return summary


def check_destination(out: Path, force: bool) -> None:
    """Refuse a place that holds something that must not be lost.

    Raises:
        DataError: ``out`` exists and may not be replaced.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not is_prepared(out):
        raise DataError(f"{out} exists and is not a prepared set; choose another --out, or remove it yourself.")
    if not force:
        raise DataError(f"{out} is a prepared set already. Choose another --out, or replace it with --force.")


def _read_annotations(request: Request, report: Report) -> tuple[Annotations, Mapping[str, Path]]:
    if request.schema is None:
        return {}, {}
    if request.together is not None:
        return divide_annotations(request.together, request.split_lists, request.schema, request.pieces, report)
    return read_annotations(request.files, request.schema, request.pieces, report), request.files


def _there(request: Request, video_ids: Sequence[str], report: Report) -> list[str]:
    """The videos that the source has something of, each once; the others go into the report.

    Raises:
        DataError: more are missing than may be.
    """
    named = list(dict.fromkeys(video_ids))
    missing = [video_id for video_id in named if not request.features.has(video_id)]
    if len(missing) > request.missing_share * len(named):
        raise DataError(
            f"{len(missing)} of {len(named)} videos that the annotations name are not in {request.features.place}, such as "
            f"{', '.join(missing[:5])}. Add them, or do without them with --missing-share {len(missing) / len(named):.3f}."
        )
    for video_id in missing:
        report.dropped.append(
            Dropped(str(request.features.place), None, video_id, "video that is not there", "has nothing of this video")
        )
    return [video_id for video_id in named if request.features.has(video_id)]


def _read_subtitles(request: Request, video_ids: Sequence[str], report: Report) -> Subtitles:
    if request.subtitles is None:
        return {}
    found = gather_subtitles(request.subtitles, video_ids, request.pieces.seconds, report)
    report.subtitles.refuse_above(request.damaged_share)
    return found


def _write_set(folder: Path, annotations: Annotations, subtitles: Subtitles, dropped: Iterable[Dropped]) -> None:
    (folder / ANNOTATION_FOLDER).mkdir()
    for split, records in annotations.items():
        _write_lines(folder / ANNOTATION_FOLDER / f"{split}.jsonl", (record.as_line() for record in records))
    _write_lines(folder / SUBTITLE_FILE, (_subtitle_line(*entry) for entry in subtitles.items()))
    _write_lines(folder / DROPPED_FILE, (one.as_line() for one in dropped))


def _subtitle_line(video_id: str, subtitles: Sequence[Subtitle]) -> dict[str, Any]:
    return {"vid_name": video_id, "sub": [{"text": one.text, "start": one.start, "end": one.end} for one in subtitles]}


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _summary(
    request: Request,
    annotations: Annotations,
    files: Mapping[str, Path],
    made: Mapping[str, MadeVideo],
    subtitles: Subtitles,
    report: Report,
) -> Summary:
    interval = request.features.clip_interval
    return Summary(
        schema=request.schema.name if request.schema is not None else None,
        task=request.schema.task if request.schema is not None else "pretraining",
        clip_interval=interval,
        piece_seconds=request.pieces.seconds,
        splits={
            split: SplitSummary(str(files[split]), len(records), len({record.video_id for record in records}))
            for split, records in annotations.items()
        },
        features=FeatureSummary(
            origin=request.features.origin,
            encoder=request.features.encoder,
            width=next(iter(made.values())).width,
            videos=len(made),
            clips=sum(video.clips for video in made.values()),
            fingerprint=fingerprint(made),
        ),
        subtitles=SubtitleSummary(
            origin=None if request.subtitles is None else str(request.subtitles),
            videos=len(subtitles),
            subtitles=sum(map(len, subtitles.values())),
            without_frames=sum(
                not len(frames)
                for video_id, spoken in subtitles.items()
                for frames in assign_frames(spoken, made[video_id].clips, interval)
            ),
        ),
        dropped=report.counts(),
        mended={what: count for what, count in report.mended.items() if count},
    )
