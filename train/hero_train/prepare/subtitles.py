"""Where the subtitles of a set come from, and what becomes of them.

Read are a folder of ``.srt`` or ``.vtt`` files, a file of the field's format (JSON Lines), a text LMDB of the authors, VIOLIN's
annotation file, and HowTo100M's captions (a JSON file, or a folder of CSV files).
"""

from __future__ import annotations

import csv
import html
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hero_sdk.errors import SubtitleError
from hero_sdk.subtitles import read_subtitles, sort_subtitles
from hero_sdk.types import Subtitle
from hero_sdk.video_files import subtitle_files
from hero_train.data.lmdb_store import Damage, TextStore
from hero_train.data.subtitles import parse_subtitles, subtitled_video
from hero_train.errors import DataError
from hero_train.prepare.pieces import cut_subtitles, whole_videos
from hero_train.prepare.records import Unusable
from hero_train.prepare.report import Report
from hero_train.prepare.stores import is_store
from hero_train.prepare.tables import read_rows

Subtitles = dict[str, tuple[Subtitle, ...]]
Found = Iterator[tuple["str | None", Callable[[], "tuple[Subtitle, ...]"]]]
"""Videos (None: nobody can tell which) with what reads their subtitles, which raises an error if they cannot be used."""

ENTITIES = "subtitles whose HTML entities were decoded"

_BROKEN = "subtitles that cannot be read"


def gather_subtitles(source: Path, video_ids: Sequence[str], piece_seconds: float, report: Report) -> Subtitles:
    """The subtitles of videos that have some, sorted by start, HTML entities decoded.

    Args:
        source: see above.
        video_ids: of the set.
        piece_seconds: of pieces of long videos; what the source has of the long video is then cut. 0: there are none.
        report: takes what is dropped; a video whose subtitles cannot be read has none.

    Raises:
        DataError, SubtitleError: the source itself cannot be read, or is of no format that is known.
    """
    wholes = whole_videos(video_ids) if piece_seconds else {}
    wanted = {*video_ids, *wholes}
    found: Subtitles = {}
    for video_id, read in _open(source, wanted):
        if video_id is not None and video_id not in wanted:
            continue
        report.subtitles.read += 1
        try:
            subtitles = tuple(_decoded(one, report) for one in read())
            if video_id is None or video_id in found:
                raise DataError("has subtitles for the second time")
            found[video_id] = subtitles
        except (DataError, SubtitleError, Unusable) as error:
            # Numbered, since what nobody can tell the video of has no other name.
            name = video_id or f"{report.subtitles.read} of those read"
            report.drop(report.subtitles, source, Unusable(_BROKEN, str(error)), name=name)
    cut = {
        piece: cut_subtitles(found[whole], number, piece_seconds)
        for whole, pieces in wholes.items()
        if whole in found
        for piece, number in pieces
        if piece not in found
    }
    gathered = found | cut
    return {video_id: gathered[video_id] for video_id in video_ids if gathered.get(video_id)}


def _decoded(subtitle: Subtitle, report: Report) -> Subtitle:
    try:
        subtitle.text.encode()
    except UnicodeEncodeError as error:
        raise Unusable(_BROKEN, f"has half a character in {subtitle.text!r:.40}") from error
    text = html.unescape(subtitle.text)
    if text != subtitle.text:
        report.mended[ENTITIES] += 1
    return Subtitle(subtitle.start, subtitle.end, text)


def _open(source: Path, wanted: set[str]) -> Found:
    if source.is_dir() and is_store(source):
        return _store(source, wanted)
    if source.is_dir():
        tables = {path.stem: path for path in sorted(source.glob("*.csv"))}
        if tables and not subtitle_files(source):
            return ((video_id, _later(_table, path)) for video_id, path in tables.items())
        return ((video_id, _later(read_subtitles, path)) for video_id, path in subtitle_files(source).items())
    if not source.is_file():
        raise DataError(f"There is no {source}; expected a folder or a file of subtitles.")
    return _document(source)


def _later(read: Callable[..., tuple[Subtitle, ...]], *arguments: Any) -> Callable[[], tuple[Subtitle, ...]]:
    return lambda: read(*arguments)


def _store(folder: Path, wanted: set[str]) -> Found:
    """The authors' LMDB; a video that it does not know has no subtitles."""
    with TextStore(folder) as store:
        for video_id in store.sidecar("vid2len.json"):
            if video_id not in wanted:
                continue
            damage = Damage()
            record = store.read([video_id], damage).get(video_id)
            yield video_id, _later(_store_record, record, video_id, next(iter(damage.reasons.values()), ""))


def _store_record(record: Mapping[str, Any] | None, video_id: str, problem: str) -> tuple[Subtitle, ...]:
    if record is None:
        raise DataError(f"The record of {video_id} is damaged: {problem}")
    return parse_subtitles(record.get("sub"), f"The record of {video_id}")


def _document(path: Path) -> Found:
    """Videos of VIOLIN's or HowTo100M's one object, or of lines."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):  # several values, as in JSON Lines, or damaged
        document = None
    if isinstance(document, Mapping) and "vid_name" not in document:
        for video_id, entry in document.items():
            yield str(video_id), _later(_entry, entry, f"The entry of {video_id}")
        return
    for row in read_rows(path, ("vid_name", "sub"), positional=False, flatten=None):
        where = f"Line {row.line}"
        try:
            if row.content is None:
                raise DataError(f"{where} {row.problem}")
            yield subtitled_video(dict(row.content), where), _later(parse_subtitles, row.content.get("sub"), where)
        except DataError as error:
            yield None, _later(_raise, error)


def _raise(error: DataError) -> tuple[Subtitle, ...]:
    raise error


def _entry(entry: Any, where: str) -> tuple[Subtitle, ...]:
    """Of VIOLIN: ``sub`` [[text, [start, end]], ...] in milliseconds; of HowTo100M: the lists ``text``, ``start``, ``end``."""
    if isinstance(entry, Mapping) and isinstance(entry.get("sub"), list):
        return _violin(entry, where)
    names = ("text", "start", "end")
    lists = [entry.get(name) for name in names] if isinstance(entry, Mapping) else []
    lengths = {len(one) if isinstance(one, list) else None for one in lists}
    if len(lengths) != 1 or None in lengths:
        raise DataError(f"{where} has neither sub, as in VIOLIN, nor text, start and end, as in HowTo100M")
    return parse_subtitles([dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)], where)


def _violin(entry: Mapping[str, Any], where: str) -> tuple[Subtitle, ...]:
    try:
        lines = [(str(text), float(start) / 1000, float(end) / 1000) for text, (start, end) in entry["sub"]]
        begin, stop = map(float, entry.get("span") or (0.0, 0.0))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where} has no sub [[text, [start, end]], ...] in milliseconds ({error})") from error
    # Some clips count from their own beginning and some from that of the episode.
    of_episode = bool(lines) and begin > 0 and all(begin <= start <= stop for _, start, _ in lines)
    offset = begin if of_episode and max(start for _, start, _ in lines) >= stop - begin else 0.0
    return sort_subtitles(
        Subtitle(round(max(start - offset, 0), 6), round(end - offset, 6), text) for text, start, end in lines
    )


def _table(path: Path) -> tuple[Subtitle, ...]:
    """A CSV file of HowTo100M with the columns ``start``, ``end`` and ``text``, in seconds."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"start", "end", "text"} <= set(reader.fieldnames or ()):
                raise ValueError(f"the columns {reader.fieldnames}")
            rows = list(reader)
        return sort_subtitles(Subtitle(float(row["start"]), float(row["end"]), row["text"]) for row in rows)
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(f"{path.name} is no table with start, end and text ({error!r})") from error
