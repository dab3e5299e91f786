"""Predictions as the leaderboards take them: retrieval as TVR and VALUE do, answers and captions as VALUE does.

What is written is complete for its split, or it is not written; what is read is checked in the same way, and measures as the
evaluation did that it came from. Ids that are numbers are written as numbers, as the annotations of the field have them.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hero_train.data.annotations import HiddenQuery, MomentQuery, read_json_lines
from hero_train.data.answer_annotations import Question, Statement
from hero_train.data.captions import CaptionedMoment
from hero_train.errors import DataError
from hero_train.evaluation import Metrics
from hero_train.metrics import NOTHING, RANKS, UNKNOWN_VIDEO, QueryResult, Ranking, recalls_by_type
from hero_train.metrics_answers import JUDGEMENTS

RetrievalForm = Literal["tvr", "value"]
"""Of TVR's starter kit: ``video2idx``, VCMR, SVMR, VR. Or of VALUE's evaluation tools, which have the numbers of the videos
themselves: VCMR, and VR as plain lists of videos."""

TASKS = ("VCMR", "SVMR", "VR")
DEPTH = max(RANKS)


@dataclass(frozen=True)
class RetrievalSubmission:
    """A retrieval file that was read.

    Attributes:
        results: one per query of the split.
        tasks: those that the file has predictions for.
        video_ids: by the places that the results name.
    """

    results: list[QueryResult]
    tasks: tuple[str, ...]
    video_ids: list[str]

    def metrics(self) -> dict[str, Metrics]:
        """Recalls by query type, of the tasks that are there."""
        tables = recalls_by_type(self.results)
        return {
            group: {name: value for name, value in table.items() if name.split("/")[0] in self.tasks}
            for group, table in tables.items()
        }


def write_retrieval(
    path: Path,
    results: Sequence[QueryResult],
    queries: Sequence[MomentQuery | HiddenQuery],
    video_ids: Sequence[str],
    *,
    video_index: Mapping[str, int] | None = None,
    form: RetrievalForm = "tvr",
) -> None:
    """Write what was found for the queries of a split.

    A score is what search gives, in [0, 1] for moments and the cosine for videos. (The authors' are e^20 times as large and
    exp(20 cosine); nothing reads them.)

    Args:
        path: of the JSON file.
        results: of ``RetrievalPredictions``: with suppression or, as the metrics of the field are defined, without.
        queries: of the split.
        video_ids: of the corpus, by the places that the results name.
        video_index: number of each video, such as TVR's ``tvr_video2dur_idx.json`` gives them; None counts in the order of ids.
        form: of the file.

    Raises:
        DataError: a query without a result or the reverse, a result without a video, or a video without a number.
    """
    numbers = dict(zip(sorted(video_ids), range(len(video_ids)), strict=True)) if video_index is None else video_index
    if missing := [video for video in video_ids if video not in numbers]:
        raise DataError(f"{len(missing)} videos of the corpus have no number, such as {missing[0]}.")
    of_place = np.array([numbers[video] for video in video_ids])
    found = {result.query_id: result for result in results}
    _require_same([query.query_id for query in queries], [result.query_id for result in results], "queries")
    lists: dict[str, list[dict[str, Any]]] = {task: [] for task in TASKS}
    for query in queries:
        result = found[query.query_id]
        for task, ranking in zip(lists, (result.corpus_moments, result.video_moments, result.videos), strict=True):
            if len(ranking):
                entry = {"desc_id": _number(query.query_id), "desc": query.text}
                lists[task].append(entry | {"predictions": _rows(ranking, of_place)})
    if len(lists["VR"]) != len(queries):
        raise DataError(
            f"{len(queries) - len(lists['VR'])} queries have no video in their result; search for all of them."
        )
    content: dict[str, Any] = {task: entries for task, entries in lists.items() if entries}
    if form == "tvr":
        content = {"video2idx": {video: numbers[video] for video in video_ids}} | content
    else:
        content.pop("SVMR", None)
        for entry in content["VR"]:
            entry["predictions"] = [row[0] for row in entry["predictions"]]
    _write(path, json.dumps(content, allow_nan=False))


def _rows(ranking: Ranking, numbers: np.ndarray) -> list[list[float]]:
    columns = numbers[ranking.video], ranking.times[:, 0], ranking.times[:, 1], ranking.score
    return [list(row) for row in zip(*(column[:DEPTH].tolist() for column in columns), strict=True)]


def read_video_numbers(path: Path, split: str) -> dict[str, int]:
    """The numbers that a leaderboard gives the videos of a split, by their ids.

    Args:
        path: of a file such as ``tvr_video2dur_idx.json``: for each split, for each video, its seconds and its number.
        split: as the file calls it, such as "val".

    Raises:
        DataError: not such a file, or no such split in it.
    """
    content = _load(path)
    if split not in content:
        raise DataError(f"{path} has no split {split!r}; it has {', '.join(content)}.")
    try:
        return {video: int(number) for video, (_, number) in content[split].items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path} does not have [seconds, number] for each video of {split} ({error!r}).") from error


def read_retrieval(
    path: Path, queries: Sequence[MomentQuery | HiddenQuery], *, video_index: Mapping[str, int] | None = None
) -> RetrievalSubmission:
    """Read a retrieval file of either form, whoever wrote it.

    Args:
        path: of the JSON file.
        queries: of its split.
        video_index: number of each video; needed where the file has no ``video2idx``.

    Raises:
        DataError: not such a file, or not complete for the split.
    """
    content = _load(path)
    numbers = content.get("video2idx") or video_index
    if numbers is None:
        raise DataError(f"{path} has no video2idx, as files for VALUE do not; pass the numbers of the videos.")
    tasks = tuple(task for task in TASKS if task in content)
    if not tasks:
        raise DataError(f"{path} has {sorted(content)}; expected predictions for VCMR, SVMR or VR.")
    places = {number: place for place, number in enumerate(numbers.values())}
    rankings = {task: _rankings(content[task], f"{task} of {path}", places) for task in tasks}
    with_moment = [query.query_id for query in queries if isinstance(query, HiddenQuery) or query.moments]
    for task, found in rankings.items():
        expected = [query.query_id for query in queries] if task == "VR" else with_moment
        _require_same(expected, found, f"queries of {task} in {path}")
    results = []
    for query in queries:
        video, moments = UNKNOWN_VIDEO, tuple[tuple[float, float], ...]()
        if isinstance(query, MomentQuery):
            if query.video_id not in numbers:
                raise DataError(
                    f"{path} has no number for the video {query.video_id}, which query {query.query_id} is about."
                )
            video, moments = places[numbers[query.video_id]], query.moments
        vcmr, svmr, vr = (rankings.get(task, {}).get(query.query_id, NOTHING) for task in TASKS)
        results.append(QueryResult(query.query_id, query.type, video, moments, vr, vcmr, svmr))
    return RetrievalSubmission(results, tasks, list(numbers))


def _rankings(entries: Any, where: str, places: Mapping[int, int]) -> dict[str, Ranking]:
    """The predictions of a task by query. Spans that end before they begin, which the authors' files have, are only never right."""
    found: dict[str, Ranking] = {}
    for entry in entries:
        try:
            query = str(entry["desc_id"])
            rows = [(row, 0, 0, 0) if isinstance(row, int) else row for row in entry["predictions"]]
            ranking = Ranking.of((places[video], start, end, score) for video, start, end, score in rows)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{where} has an entry that is none ({error!r}); expected desc_id and predictions, each [video, start, end, score] "
                "with the number of a video of the corpus."
            ) from error
        if query in found:
            raise DataError(f"{where} has query {query} twice.")
        if not len(ranking) or not np.isfinite(ranking.times).all():
            raise DataError(f"{where} has no predictions for query {query}, or some without a time; expected seconds.")
        found[query] = ranking
    return found


def write_answers(path: Path, said: Mapping[str, int], annotations: Sequence[Question | Statement]) -> None:
    """Write the place of the answer to each question, or 1 or 0 for each statement, by their ids (VALUE).

    Raises:
        DataError: not the annotations of a split, each once, or an answer that does not exist.
    """
    _check_answers(said, annotations, "what was said")
    _write(path, json.dumps({_id(one): int(said[_id(one)]) for one in annotations}))


def read_answers(path: Path, annotations: Sequence[Question | Statement]) -> dict[str, int]:
    """Read such a file: what ``measure_questions`` and ``measure_statements`` take.

    Raises:
        DataError: not such a file, or not complete for the split.
    """
    said = _load(path)
    _check_answers(said, annotations, str(path))
    return said


def _check_answers(said: Mapping[str, Any], annotations: Sequence[Question | Statement], where: str) -> None:
    _require_same(map(_id, annotations), said, f"answers in {where}")
    for one in annotations:
        answer = said[_id(one)]
        choices = len(one.answers) if isinstance(one, Question) else JUDGEMENTS
        if not isinstance(answer, int) or not 0 <= answer < choices:
            raise DataError(
                f"The answer {_id(one)} in {where} is {answer!r}; expected a number from 0 to {choices - 1}."
            )


def _id(annotation: Question | Statement) -> str:
    return annotation.question_id if isinstance(annotation, Question) else annotation.statement_id


def write_captions(path: Path, written: Mapping[str, str], moments: Sequence[CaptionedMoment]) -> None:
    """Write the caption of each moment, one JSON object per line (TVC, VALUE).

    Raises:
        DataError: not the moments of the split, each once.
    """
    _require_same([moment.moment_id for moment in moments], written, "captions")
    lines = [
        {
            "vid_name": moment.video_id,
            "clip_id": _number(moment.moment_id),
            "ts": [moment.start, moment.end],
            "descs": [{"desc": written[moment.moment_id]}],
        }
        for moment in moments
    ]
    _write(path, "".join(json.dumps(line) + "\n" for line in lines))


def read_captions(path: Path, moments: Sequence[CaptionedMoment]) -> dict[str, str]:
    """Read such a file: what ``caption_scores`` takes. Of several captions of a moment the first counts, as in the field.

    Raises:
        DataError: not such a file, or not complete for the split.
    """
    written: dict[str, str] = {}
    ids = []
    for number, line in read_json_lines(path):
        try:
            ids.append(str(line["clip_id"]))
            written[ids[-1]] = str(line["descs"][0]["desc"])
        except (KeyError, IndexError, TypeError) as error:
            raise DataError(
                f"Line {number} of {path} is no caption ({error!r}); expected clip_id and descs."
            ) from error
    _require_same([moment.moment_id for moment in moments], ids, f"captions in {path}")
    return written


def _require_same(expected: Iterable[str], found: Iterable[str], what: str) -> None:
    """Raise an error unless both have the same ids, each once."""
    expected, found = list(expected), list(found)
    for problem, ids in (
        ("are there more than once in the split", _repeated(expected)),
        ("are there more than once", _repeated(found)),
        ("of the split are missing", set(expected) - set(found)),
        ("are not of the split", set(found) - set(expected)),
    ):
        if ids:
            raise DataError(
                f"{len(ids)} {what} {problem}, such as {min(ids)}; expected each of the split's {len(expected)} once."
            )


def _repeated(ids: Sequence[str]) -> set[str]:
    return {one for one, count in Counter(ids).items() if count > 1}


def _number(identity: str) -> int | str:
    """An id as the field's annotations have it: a number, where it is one."""
    return int(identity) if identity.isascii() and identity.isdecimal() and str(int(identity)) == identity else identity


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected the JSON of a submission.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}; expected an object.")
    return content


def _write(path: Path, text: str) -> None:
    """Write a file so that it is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
