"""Queries about moments and videos in the format of TVR: one JSON object per line."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from hero_train.errors import DataError

Rounding = Literal["outward", "middle"]
QueryType = Literal["v", "t", "vt"]
QUERY_TYPES: tuple[QueryType, ...] = ("v", "t", "vt")


@dataclass(frozen=True)
class MomentQuery:
    """A sentence and the moment, or the whole video, that it describes.

    Attributes:
        query_id: of the annotation (``desc_id``).
        text: the sentence.
        video_id: the video it is about.
        moments: start and end in seconds as each annotator marked them: one moment in TVR, four and more in DiDeMo, none in
            MSR-VTT, whose sentences are about whole videos.
        type: whether the sentence is about the picture ("v"), what is said ("t") or both ("vt").
    """

    query_id: str
    text: str
    video_id: str
    moments: tuple[tuple[float, float], ...]
    type: QueryType = "vt"

    @property
    def moment(self) -> tuple[float, float] | None:
        """What training aims at: the moment that most annotators marked, of equals the first; None where nobody marked any.

        So it is done with DiDeMo in the baselines of TVR, from which the authors have their rule of evaluation. How they prepared
        DiDeMo themselves is not published; their loader takes one moment per query.
        """
        return Counter(self.moments).most_common(1)[0][0] if self.moments else None


@dataclass(frozen=True)
class HiddenQuery:
    """A query of a test split that hides which video it is about; the attributes are those of ``MomentQuery``."""

    query_id: str
    text: str
    type: QueryType = "vt"


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers; empty lines are passed over.

    Raises:
        DataError: no such file, not UTF-8, or a line that is not a JSON object.
    """
    if not path.is_file():
        raise DataError(f"There is no annotation file {path}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}). Save it as UTF-8.") from error
    # Not splitlines, which also cuts at separators that may stand in a sentence, such as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"Line {number} of {path} is not JSON ({error}).") from error
        if not isinstance(content, dict):
            raise DataError(f"Line {number} of {path} is a {type(content).__name__}; expected an object.")
        yield number, content


def read_moment_queries(path: Path) -> list[MomentQuery]:
    """Read an annotation file: ``desc_id``, ``desc``, ``vid_name``, and where they are known ``ts`` and ``type``.

    ``ts`` is [start, end] in seconds, or a list of those with one per annotator.

    Raises:
        DataError: a line without one of them or with a moment that is none; the message names the line.
    """
    queries = [_moment_query(content, f"Line {number} of {path}") for number, content in read_json_lines(path)]
    if not queries:
        raise DataError(f"{path} has no query in it.")
    return queries


def read_hidden_queries(path: Path) -> list[HiddenQuery]:
    """Read the queries of a test split that hides the answers: ``desc_id``, ``desc``, and where it is known ``type``.

    Raises:
        DataError: a line without one of them; the message names the line.
    """
    queries = []
    for number, content in read_json_lines(path):
        where = f"Line {number} of {path}"
        _require(content, ("desc_id", "desc"), where)
        queries.append(HiddenQuery(str(content["desc_id"]), _sentence(content, where), _query_type(content, where)))
    if not queries:
        raise DataError(f"{path} has no query in it.")
    return queries


def _moment_query(content: dict[str, Any], where: str) -> MomentQuery:
    _require(content, ("desc_id", "desc", "vid_name"), where)
    return MomentQuery(
        query_id=str(content["desc_id"]),
        text=_sentence(content, where),
        video_id=str(content["vid_name"]),
        moments=parse_moments(content.get("ts"), where),
        type=_query_type(content, where),
    )


def _require(content: dict[str, Any], names: Sequence[str], where: str) -> None:
    if missing := [name for name in names if name not in content]:
        raise DataError(f"{where} has no {missing}; a query has desc_id, desc, vid_name and, about a moment, ts.")


def _sentence(content: dict[str, Any], where: str) -> str:
    if not isinstance(content["desc"], str) or not content["desc"].strip():
        raise DataError(f"{where} has an empty desc; expected a sentence.")
    return content["desc"]


def _query_type(content: dict[str, Any], where: str) -> QueryType:
    kind = content.get("type", "vt")
    if kind not in QUERY_TYPES:
        raise DataError(f"{where} has type {kind!r}; expected one of {QUERY_TYPES}.")
    return cast("QueryType", kind)


def parse_moments(value: Any, where: str) -> tuple[tuple[float, float], ...]:
    """The moments of the entry ``ts`` of a query: one, one per annotator, or none where it is None.

    Raises:
        DataError: as ``parse_moment``.
    """
    if value is None:
        return ()
    if isinstance(value, list) and value and isinstance(value[0], list):
        return tuple(parse_moment(one, where) for one in value)
    return (parse_moment(value, where),)


def parse_moment(value: Any, where: str) -> tuple[float, float]:
    """Start and end of a moment in seconds, from the entry ``ts`` of an annotation.

    Raises:
        DataError: not ``[start, end]`` with 0 <= start < end; the message begins with ``where``.
    """
    numbers = isinstance(value, list) and len(value) == 2 and all(isinstance(one, int | float) for one in value)
    if not numbers or not all(map(math.isfinite, value)) or not 0 <= value[0] < value[1]:
        raise DataError(f"{where} has ts {value!r}; expected [start, end] in seconds with 0 <= start < end.")
    return float(value[0]), float(value[1])


def moment_clips(
    start: float, end: float, clip_interval: float, clips: int, rounding: Rounding = "outward"
) -> tuple[int, int]:
    """First and last clip of a moment, both inclusive: the target of the span loss.

    Args:
        start, end: in seconds.
        clip_interval: seconds per clip.
        clips: of the video; the moment is cut to it.
        rounding: "outward" takes every clip that the moment touches, and at least two (the authors' rule). "middle" takes the
            clips whose middle lies in the moment, which is where the packaged decoder takes the frame: what is asked for is what
            is seen, and short moments lose less to rounding.
    """
    if rounding == "outward":
        first = min(math.floor(start / clip_interval), clips - 1)
        return first, min(max(math.ceil(end / clip_interval) - 1, first + 1), clips - 1)
    first = min(math.ceil(start / clip_interval - 0.5), clips - 1)
    return first, min(max(math.ceil(end / clip_interval - 0.5) - 1, first), clips - 1)
