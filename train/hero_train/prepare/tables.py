"""The rows of an annotation file: JSON Lines, CSV with or without a header, or one JSON document."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hero_train.errors import DataError
from hero_train.prepare.records import Unusable

Flatten = Callable[[Any], "Iterator[Mapping[str, Any]] | None"]

TABLE_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True)
class Row:
    """A row, or why there is none.

    Attributes:
        content: its entries by name; None where the row cannot be read.
        line: of the file, or the place in a JSON document or a store, from 1.
        problem: why it cannot be read.
    """

    content: Mapping[str, Any] | None
    line: int
    problem: Unusable | None = None


def read_rows(path: Path, columns: Sequence[str], positional: bool, flatten: Flatten | None) -> Iterator[Row]:
    """The rows of a file; what cannot be read is a row with a problem.

    Args:
        path: ``.csv`` and ``.tsv`` are tables; any other file is a JSON document where it is one that ``flatten`` knows or a list
            of objects, and JSON Lines otherwise.
        columns: of a table.
        positional: whether a table without a header has these columns in this order.
        flatten: the rows of a JSON document of the schema's own layout; None from it for any other document.

    Raises:
        DataError: no such file, an empty one, or a table with other columns.
    """
    if not path.is_file():
        raise DataError(f"There is no annotation file {path}.")
    content = path.read_bytes()
    if not content.strip():
        raise DataError(f"{path} is empty; expected annotations.")
    if path.suffix.lower() in TABLE_SUFFIXES:
        return _table_rows(path, content, columns, positional)
    document = _document(content)
    if isinstance(document, list):
        return (_document_row(item, number) for number, item in enumerate(document, start=1))
    rows = flatten(document) if flatten is not None and document is not None else None
    if rows is not None:
        return (_document_row(item, number) for number, item in enumerate(rows, start=1))
    return _json_lines(content)


def _document(content: bytes) -> Any:
    """The file as one JSON value, or None where it is not one."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # not UTF-8, or several values, as in JSON Lines
        return None


def _document_row(item: Any, number: int) -> Row:
    if isinstance(item, Mapping):
        return Row(item, number)
    problem = Unusable("row that is no object", f"is a {type(item).__name__}; expected an object")
    return Row(None, number, problem=problem)


def _json_lines(content: bytes) -> Iterator[Row]:
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield _document_row(json.loads(line.decode()), number)
        except UnicodeDecodeError as error:
            yield Row(None, number, problem=Unusable("row that is not UTF-8", f"is not UTF-8 ({error})"))
        # Also of a number that is too long, and of brackets in more brackets than there is room for.
        except (ValueError, RecursionError) as error:
            yield Row(None, number, problem=Unusable("row that is not JSON", f"is not JSON ({error})"))


def _table_rows(path: Path, content: bytes, columns: Sequence[str], positional: bool) -> Iterator[Row]:
    # What is not UTF-8 becomes half characters, which no text may have, so that one row is lost and not the file.
    text = content.decode("utf-8-sig", errors="surrogateescape")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    cells = list(_cells(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)))
    first = cells[0][1] if cells else None
    header = [name.strip() for name in first] if isinstance(first, list) else []
    if len(set(header) & set(columns)) > 1:
        return (_table_row(number, row, header) for number, row in cells[1:])
    if positional and len(header) == len(columns):
        return (_table_row(number, row, columns) for number, row in cells)
    raise DataError(
        f"The first row of {path} has {len(header)} columns: {', '.join(header)[:200]}; expected "
        f"{'these values, or a header with' if positional else 'a header with'} {', '.join(columns)}."
    )


def _cells(reader: Any) -> Iterator[tuple[int, list[str] | Unusable]]:
    """The rows that are not blank, or why one cannot be read, with the number of their last line."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, Unusable("row that is not CSV", f"is not CSV ({error})")
            continue
        if any(cell.strip() for cell in row):
            yield reader.line_num, row


def _table_row(number: int, row: list[str] | Unusable, names: Sequence[str]) -> Row:
    if isinstance(row, list) and len(row) != len(names):
        row = Unusable("row of another length", f"has {len(row)} columns; expected {len(names)}: {', '.join(names)}")
    if isinstance(row, Unusable):
        return Row(None, number, problem=row)
    return Row({name: value or None for name, value in zip(names, row, strict=True)}, number)
