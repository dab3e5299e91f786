"""The authors' submission files, read, measured and written again with this project's code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hero_train.data.annotations import read_moment_queries
from hero_train.submissions import read_retrieval, write_retrieval
from tests.parity.authors_evaluation import authors_names
from tests.parity.oracle import oracle_folder, read_dump

ANNOTATIONS = oracle_folder() / "db" / "ann"


def theirs(path: Path, submission: dict[str, Any]) -> Path:
    path.write_text(json.dumps(submission), encoding="utf-8")
    return path


def predictions(submission: dict[str, Any]) -> dict[str, Any]:
    """What a file says for each task, by query; the sentences, which theirs leave empty, aside."""
    return {
        task: {str(entry["desc_id"]): entry["predictions"] for entry in submission[task]}
        for task in ("VCMR", "SVMR", "VR")
        if task in submission
    }


def test_their_file_measures_as_they_measured_it(tmp_path: Path) -> None:
    dump = read_dump("vcmr_full_eval")
    file = theirs(tmp_path / "submission.json", dump["submission"])
    submission = read_retrieval(file, read_moment_queries(ANNOTATIONS / "tvr_val.jsonl"))
    assert set(submission.tasks) == {"VCMR", "SVMR", "VR"}
    measured = dump["eval_calls"][1]["metrics"]
    compared = 0
    for group, table in submission.metrics().items():
        for name, value in table.items():
            where, entry = authors_names(group, name)
            # The second call measures the tasks that were suppressed, and nobody there measures AveR.
            if where in measured and "AveR" not in name:
                assert round(100 * value, 2) == measured[where][entry], (group, name)
                compared += 1
    assert compared == sum(not isinstance(value, str) for table in measured.values() for value in table.values())


@pytest.mark.parametrize(
    ("dump", "annotations"),
    [("vcmr_full_eval", "tvr_val.jsonl"), ("vr_io", "msrvtt_val.jsonl")],
    ids=["TVR", "MSR-VTT"],
)
def test_their_file_is_written_again_as_it_was(tmp_path: Path, dump: str, annotations: str) -> None:
    """The same videos, times and scores in the same order, and the same entries."""
    content = read_dump(dump)
    original = content.get("full_eval", content)["submission"]
    named = {str(entry["desc_id"]) for entry in original["VR"]}
    queries = [query for query in read_moment_queries(ANNOTATIONS / annotations) if query.query_id in named]
    submission = read_retrieval(theirs(tmp_path / "theirs.json", original), queries)
    numbers = original["video2idx"]
    write_retrieval(tmp_path / "ours.json", submission.results, queries, submission.video_ids, video_index=numbers)
    written = json.loads((tmp_path / "ours.json").read_text(encoding="utf-8"))
    assert written["video2idx"] == original["video2idx"]
    assert set(written) == set(original)
    assert predictions(written) == predictions(original)
    assert {name for entry in written["VR"] for name in entry} == {name for entry in original["VR"] for name in entry}
