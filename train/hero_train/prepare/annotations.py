"""The annotations of all splits: read, checked against one another, and moved to the pieces of their videos."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from hero_train.errors import DataError
from hero_train.prepare.pieces import Pieces, to_piece
from hero_train.prepare.records import Record, Unusable
from hero_train.prepare.report import Report
from hero_train.prepare.schemas.schema import SPLITS, Schema, read_split
from hero_train.prepare.stores import is_store, store_rows
from hero_train.prepare.tables import Row, read_rows

NO_LENGTH = "questions whose moment has no length, kept without it"
OTHER_SPLIT = "annotations of another split, passed over"

Annotations = dict[str, list[Record]]


def read_annotations(files: Mapping[str, Path], schema: Schema, pieces: Pieces, report: Report) -> Annotations:
    """The annotations of each split from a file or a store of its own.

    An annotation that says it belongs to another split is passed over, so that a file with several may be named for each.

    Args:
        files: by split.
        schema: of all files.
        pieces: into which long videos are cut.
        report: takes what is dropped.

    Raises:
        DataError: a file that is missing, empty or of another schema, or a split of which nothing is left.
    """
    splits: Annotations = {split: [] for split in files}
    for path in dict.fromkeys(files.values()):
        named = [split for split in files if files[split] == path]
        for record in _usable(path, schema, pieces, report):
            split = record.split or named[0]
            if record.split is None and len(named) > 1:
                raise DataError(
                    f"{path} is named for {' and '.join(named)}, and its annotations do not say which they are of."
                )
            if split in named:
                splits[split].append(record)
            else:
                report.mended[OTHER_SPLIT] += 1
    return _checked(splits, files, schema, report)


def divide_annotations(
    path: Path, lists: Path | None, schema: Schema, pieces: Pieces, report: Report
) -> tuple[Annotations, dict[str, Path]]:
    """The annotations of one file by the splits that they name, or by the split of their video.

    Args:
        path: the file or store.
        lists: a JSON file with a list of video ids for each split; None: the annotations name their split.
        schema, pieces, report: as for ``read_annotations``.

    Returns:
        The annotations, and the file, by split. What belongs to no split is passed over.

    Raises:
        DataError: as for ``read_annotations``; lists that cannot be used; annotations that name no split.
    """
    split_of = None if lists is None else read_split_lists(lists)
    splits: Annotations = {split: [] for split in SPLITS}
    for record in _usable(path, schema, pieces, report):
        whole = record.video_id.rpartition(".")[0]
        split = record.split if split_of is None else split_of.get(record.video_id, split_of.get(whole))
        if split is None:
            report.mended[OTHER_SPLIT] += 1
        else:
            splits[split].append(record)
    splits = {split: records for split, records in splits.items() if records}
    if not splits:
        raise DataError(
            f"No annotation of {path} belongs to a split. "
            f"{'Name a file for each split, or lists of their videos.' if lists is None else f'See that {lists} names its videos.'}"
        )
    files = dict.fromkeys(splits, path)
    return _checked(splits, files, schema, report), files


def read_split_lists(path: Path) -> dict[str, str]:
    """The split of each video, from a JSON object with a list of video ids for each split.

    Raises:
        DataError: no such file, not of that form, or a video in two splits.
    """
    try:
        lists = json.loads(path.read_text(encoding="utf-8"))
        named = {read_split(name): [str(video) for video in videos] for name, videos in lists.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error!r}); expected {_LISTS}.") from error
    if None in named or len(named) != len(lists):
        raise DataError(f"{path} has lists of {', '.join(lists)}; expected {_LISTS}.")
    split_of: dict[str, str] = {}
    for split, videos in named.items():
        for video in videos:
            assert split is not None
            if split_of.setdefault(video, split) != split:
                raise DataError(
                    f"{path} has the video {video} in {split_of[video]} and in {split}; take it out of one."
                )
    return split_of


_LISTS = 'a JSON object with lists of video ids, {"train": [...], "validation": [...], "test": [...]}'


def _usable(path: Path, schema: Schema, pieces: Pieces, report: Report) -> Iterator[Record]:
    """The records of a file that can be used; the others go into the report."""
    used, first = 0, None
    for row in _rows(path, schema):
        report.annotations.read += 1
        try:
            if row.content is None:
                raise row.problem or Unusable("row that cannot be read", "cannot be read")
            # All of a row or nothing of it.
            records = [_placed(record, pieces, schema, row.line) for record in schema.parse(row.content, row.line)]
        except Unusable as problem:
            first = first or problem
            report.drop(report.annotations, path, problem, row.line)
            continue
        used += 1
        for record in records:
            report.mended.update(record.mended)
            yield record
    if not used:
        found = f"the first {first}" if first else "there is none"
        raise DataError(
            f"No annotation of {path} can be read as {schema.name}: {found}. {schema.name} has {schema.expects}. "
            "Choose the schema of the file, or mend it."
        )


def _rows(path: Path, schema: Schema) -> Iterator[Row]:
    if path.is_dir():
        if not is_store(path):
            raise DataError(
                f"The folder {path} is no LMDB of the authors; expected a file of annotations or such a folder."
            )
        return store_rows(path)
    return read_rows(path, schema.columns, schema.positional, schema.flatten)


def _placed(record: Record, pieces: Pieces, schema: Schema, line: int) -> Record:
    """The record with its line and in its piece."""
    record = to_piece(dataclasses.replace(record, line=line), pieces)
    if schema.task == "questions" and any(start == end for start, end in record.moments):
        return dataclasses.replace(record, moments=(), mended=(*record.mended, NO_LENGTH))
    return record


def _checked(splits: Annotations, files: Mapping[str, Path], schema: Schema, report: Report) -> Annotations:
    """The annotations without those that an earlier one of the split has the id of, or with another number of answers."""
    answers = Counter(_answers(record) for records in splits.values() for record in records)
    usual = answers.most_common(1)[0][0] if answers else 0
    checked: Annotations = {}
    for split, records in splits.items():
        lines: dict[str | int, int] = {}
        checked[split] = []
        for record in records:
            try:
                if record.record_id in lines:
                    raise Unusable("id for the second time", f"has the id of line {lines[record.record_id]}")
                if (found := _answers(record)) != usual:
                    raise Unusable("another number of answers", f"has {found} answers; most have {usual}")
            except Unusable as problem:
                report.drop(report.annotations, files[split], problem, record.line, record.record_id)
                continue
            lines[record.record_id] = record.line
            checked[split].append(record)
        if not checked[split]:
            raise DataError(f"No annotation of {files[split]} belongs to the split {split}; name it for another split.")
    return checked


def _answers(record: Record) -> int:
    return sum(name[:1] == "a" and name[1:].isdecimal() for name in record.entries)
