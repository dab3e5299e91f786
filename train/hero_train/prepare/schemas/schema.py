"""What a schema is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hero_train.prepare.records import Record, Task
from hero_train.prepare.tables import Flatten

SPLITS = ("train", "validation", "test")

_SPLIT_NAMES = {
    "train": "train",
    "val": "validation",
    "validate": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class Schema:
    """How one release writes its annotations.

    Attributes:
        name: of the schema.
        task: what the annotations are for.
        expects: what a record has, for people.
        columns: of a table (CSV).
        parse: the records of a row, given its entries and its line. It raises ``Unusable`` where there is none to be had.
        positional: whether a table without a header has ``columns`` in their order.
        flatten: the rows of a JSON document of the release's own layout; see ``read_rows``.
        piece_seconds: into pieces of which length the release cuts its videos; 0 where it does not.
    """

    name: str
    task: Task
    expects: str
    columns: tuple[str, ...]
    parse: Callable[[Mapping[str, Any], int], Iterable[Record]]
    positional: bool = False
    flatten: Flatten | None = None
    piece_seconds: float = 0


def read_split(name: Any) -> str | None:
    """The split that a release's word stands for; None for none that there is."""
    return _SPLIT_NAMES.get(name.strip().lower()) if isinstance(name, str) else None
