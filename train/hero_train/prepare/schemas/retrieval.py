"""Sentences about moments or about whole videos: TVR, How2R, DiDeMo, MSR-VTT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hero_train.prepare.records import (
    Record,
    Span,
    Unusable,
    mended_texts,
    read_id,
    read_moments,
    read_seconds,
    read_text,
    read_video_id,
    require,
    with_length,
    without_video_suffix,
)
from hero_train.prepare.schemas.schema import Schema, read_split

QUERY_TYPES = ("v", "t", "vt")

DIDEMO_SEGMENT = 5.0
"""Seconds of the segments in which DiDeMo counts."""


def _query(number: Any, text: Any, video_id: Any, moments: tuple[Span, ...], **more: Any) -> Record:
    """A record of the task; ``more`` are attributes of it, and ``type`` of the query."""
    kind = more.pop("type", None)
    if kind not in (None, *QUERY_TYPES):
        raise Unusable("query type that is none", f"has type {kind!r:.40}; expected one of {', '.join(QUERY_TYPES)}")
    query_id = read_id(number, "desc_id")
    entries = {"desc_id": query_id, "desc": read_text(text, "desc")} | ({} if kind is None else {"type": kind})
    return Record(query_id, read_video_id(video_id, "vid_name"), entries, moments, mended=mended_texts(text), **more)


def _parse_line(row: Mapping[str, Any], *, timed: bool) -> Iterator[Record]:
    """TVR's line, in which the authors' preprocessing and VALUE write the other sets as well."""
    require(row, ("desc_id", "desc", "vid_name", "ts") if timed else ("desc_id", "desc", "vid_name"))
    yield _query(
        row["desc_id"],
        row["desc"],
        row["vid_name"],
        with_length(read_moments(row.get("ts"), "ts"), "ts"),
        type=row.get("type"),
        duration=read_seconds(row.get("duration")),
        split=read_split(row.get("split")),
    )


def _parse_tvr(row: Mapping[str, Any], line: int) -> Iterator[Record]:
    yield from _parse_line(row, timed=True)


def _parse_how2r(row: Mapping[str, Any], line: int) -> Iterator[Record]:
    """``video_id``, ``clip`` and ``moment`` as "[start:end]" in seconds of the whole video, ``query``."""
    if "query" not in row:
        yield from _parse_line(row, timed=True)
        return
    require(row, HOW2R.columns)
    clips = read_moments(row["clip"], "clip")
    if len(clips) != 1:
        raise Unusable("clip that is none", f"has clip {row['clip']!r:.40}; expected [start:end]")
    moments = with_length(read_moments(row["moment"], "moment"), "moment")
    # The release has no ids.
    yield _query(f"{row['video_id']}-{line}", row["query"], row["video_id"], moments, whole=True, clip=clips[0])


def _parse_didemo(row: Mapping[str, Any], line: int) -> Iterator[Record]:
    """``annotation_id``, ``description``, ``video`` and ``times``, first and last segment of 5 s of each annotator."""
    if "annotation_id" not in row:
        yield from _parse_line(row, timed=True)
        return
    require(row, ("annotation_id", "description", "video", "times"))
    segments = read_moments(row["times"], "times")
    moments = tuple((first * DIDEMO_SEGMENT, (last + 1) * DIDEMO_SEGMENT) for first, last in segments)
    yield _query(row["annotation_id"], row["description"], without_video_suffix(row["video"]), moments)


def _flatten_msrvtt(document: Any) -> Iterator[Mapping[str, Any]] | None:
    """Sentences with the split and the length of their video."""
    videos, sentences = (
        document.get(name) if isinstance(document, Mapping) else None for name in ("videos", "sentences")
    )
    if not isinstance(videos, list) or not isinstance(sentences, list):
        return None
    # As texts, since what stands in a damaged file may be of any type.
    named = {str(video.get("video_id")): video for video in videos if isinstance(video, Mapping)}
    return (
        {**sentence, **_video_entries(named.get(str(sentence.get("video_id")), {}))}
        if isinstance(sentence, Mapping)
        else sentence
        for sentence in sentences
    )


def _video_entries(video: Mapping[str, Any]) -> dict[str, Any]:
    start, end = video.get("start time"), video.get("end time")
    length = end - start if isinstance(start, int | float) and isinstance(end, int | float) else None
    return {"split": video.get("split"), "duration": length}


def _parse_msrvtt(row: Mapping[str, Any], line: int) -> Iterator[Record]:
    """``sen_id``, ``caption``, ``video_id``; of the table of the 1k split ``key``, ``sentence``, ``video_id``."""
    number, text = ("key", "sentence") if "sentence" in row else ("sen_id", "caption")
    if text not in row and "desc" in row:
        yield from _parse_line(row, timed=False)
        return
    require(row, (number, text, "video_id"))
    yield _query(
        row[number],
        row[text],
        row["video_id"],
        (),
        duration=read_seconds(row.get("duration")),
        split=read_split(row.get("split")),
    )


TVR = Schema(
    name="tvr",
    task="retrieval",
    expects="desc_id, desc, vid_name, ts [start, end] and, where there, type and duration",
    columns=("desc_id", "desc", "vid_name", "ts", "type", "duration"),
    parse=_parse_tvr,
)

HOW2R = Schema(
    name="how2r",
    task="retrieval",
    expects="the columns video_id, clip [start:end], moment [start:end], query, or lines as TVR has them",
    columns=("video_id", "clip", "moment", "query"),
    parse=_parse_how2r,
    positional=True,
    piece_seconds=60,
)

DIDEMO = Schema(
    name="didemo",
    task="retrieval",
    expects="annotation_id, description, video, times [[first, last], ...] in segments of 5 s, or lines as TVR has them",
    columns=("annotation_id", "description", "video", "times"),
    parse=_parse_didemo,
)

MSRVTT = Schema(
    name="msrvtt",
    task="retrieval",
    expects="videos and sentences with sen_id, caption, video_id, the columns key, video_id, sentence, or lines as TVR has them",
    columns=("key", "vid_key", "video_id", "sentence"),
    parse=_parse_msrvtt,
    flatten=_flatten_msrvtt,
)
