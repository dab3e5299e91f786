"""Annotations against the videos that there are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from hero_train.errors import DataError
from hero_train.prepare.annotations import Annotations
from hero_train.prepare.feature_files import MadeVideo
from hero_train.prepare.records import Record, Unusable
from hero_train.prepare.report import Report
from hero_train.prepare.schemas import Schema

CUT = "annotations with a moment that ended after the video, cut"
LOST = "questions whose moment lies after the end of the video, kept without it"


def fit_annotations(
    annotations: Annotations, files: Mapping[str, Path], made: Mapping[str, MadeVideo], schema: Schema, report: Report
) -> Annotations:
    """The annotations whose videos are in the set, their moments cut to the videos.

    Args:
        annotations: by split.
        files: that they were read from, by split.
        made: the videos of the set.
        schema: of the annotations.
        report: takes those that are dropped: their video has no features, or all their moments lie after its end. A question
            loses such a moment and stays.
    """
    fitted: Annotations = {}
    for split, records in annotations.items():
        fitted[split] = []
        for record in records:
            video = made.get(record.video_id)
            try:
                if video is None:
                    raise Unusable(
                        "annotation of a video without features", f"is about {record.video_id}, which has no features"
                    )
                fitted[split].append(_fit(record, video, schema, report))
            except Unusable as problem:
                damage = None if video is None else report.annotations
                report.drop(damage, files[split], problem, record.line, record.record_id)
    return fitted


def refuse_empty(annotations: Annotations, report: Report) -> None:
    """End here if nothing is left of a split.

    Raises:
        DataError: with the last of what was dropped.
    """
    for split, records in annotations.items():
        if not records:
            raise DataError(
                f"No annotation of the split {split} is left; the last that was dropped {report.dropped[-1].reason}. "
                "See that its videos are there."
            )


def _fit(record: Record, video: MadeVideo, schema: Schema, report: Report) -> Record:
    inside = [(start, end) for start, end in record.moments if start < video.duration]
    if record.moments and not inside:
        if schema.task != "questions":
            start = record.moments[0][0]
            raise Unusable(
                "moment after the end of the video",
                f"has a moment from {start:g} s; the video ends at {video.duration:g} s",
            )
        report.mended[LOST] += 1
    # Where the duration is that of the clips, what is left of the video after its last clip may be longer than the moment.
    moments = tuple((start, min(end, video.duration) if video.known else end) for start, end in inside)
    if tuple(inside) != moments:
        report.mended[CUT] += 1
    return record if moments == record.moments else dataclasses.replace(record, moments=moments)
