"""Whatever is damaged is named, counted and dropped, up to a share that is stated; a set is whole or absent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from hero_train.data.annotations import read_moment_queries
from hero_train.errors import DataError
from hero_train.prepare.feature_files import ODD_DURATION
from hero_train.prepare.fitting import CUT, LOST
from tests.unit.releases import (
    TVC,
    TVQA,
    annotations_of,
    lines_of,
    run,
    write_arrays,
    write_json,
    write_lines,
    write_text,
)

VIDEO = "v"


def line(number: int, **changes: Any) -> dict[str, Any]:
    return {"desc_id": number, "desc": f"query {number}", "vid_name": VIDEO, "ts": [1.0, 3.0], "type": "v"} | changes


def without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


@pytest.fixture
def features(tmp_path: Path) -> Path:
    return write_arrays(tmp_path / "features", {VIDEO: 8, "w": 8})


DAMAGED_QUERIES: dict[str, tuple[Any, str]] = {
    "no JSON": ('{"desc_id": 3, "desc"', "is not JSON"),
    "not UTF-8": (b'{"desc_id": 3, "desc": "caf\xe9", "vid_name": "v", "ts": [1, 3]}', "is not UTF-8"),
    "no object": ("[1, 2]", "is a list; expected an object"),
    "wrong entries": ({"id": 3, "text": "a"}, "has the entries id, text; expected desc_id, desc, vid_name, ts"),
    "no video": (without(line(3), "vid_name"), "expected desc_id, desc, vid_name, ts"),
    "no moment": (line(3, ts=None), "has the entries desc, desc_id, type, vid_name; expected"),
    "empty text": (line(3, desc="  "), "has desc '  '; expected a text"),
    "text that is none": (line(3, desc=5), "has desc 5; expected a text"),
    "half a character": ('{"desc_id": 3, "desc": "a \\ud83d", "vid_name": "v", "ts": [1, 3]}', "half a character"),
    "moment backwards": (line(3, ts=[3, 1]), "expected 0 <= start <= end"),
    "moment without length": (line(3, ts=[2, 2]), "expected start < end"),
    "moment before the video": (line(3, ts=[-1, 2]), "expected 0 <= start <= end"),
    "moment of text": (line(3, ts="somewhere"), "expected start and end in seconds"),
    "moment of three": (line(3, ts=[1, 2, 3]), "expected start and end in seconds"),
    "endless moment": ('{"desc_id": 3, "desc": "a", "vid_name": "v", "ts": [1, Infinity]}', "expected 0 <= start"),
    "moment after the video": (line(3, ts=[12.5, 14]), r"has a moment from 12\.5 s; the video ends at 12 s"),
    "type that is none": (line(3, type="audio"), "has type 'audio'; expected one of v, t, vt"),
    "id for the second time": (line(1, desc="again"), "has the id of line 1"),
    "id that is none": (line(3) | {"desc_id": [1]}, r"has desc_id \[1\]; expected an id"),
    "video that is a path": (line(3, vid_name="../v"), "expected the name of a file"),
}


@pytest.mark.parametrize("kind", DAMAGED_QUERIES)
def test_a_damaged_annotation_is_named_counted_and_dropped(tmp_path: Path, features: Path, kind: str) -> None:
    record, reason = DAMAGED_QUERIES[kind]
    file = write_lines(tmp_path / "tvr.jsonl", [line(1), line(2), record, "", line(4)])
    summary = run(tmp_path / "set", "tvr", features, files={"train": file}, damaged_share=0.25)
    assert [written["desc_id"] for written in annotations_of(tmp_path / "set", "train")] == [1, 2, 4]
    (dropped,) = lines_of(tmp_path / "set" / "dropped.jsonl")
    assert (dropped["file"], dropped["line"]) == (str(file), 3)
    assert re.search(reason, dropped["reason"]), dropped
    assert list(summary.dropped.values()) == [1]
    assert len(read_moment_queries(tmp_path / "set" / "annotations" / "train.jsonl")) == 3


@pytest.mark.parametrize("kind", DAMAGED_QUERIES)
def test_more_damage_than_may_be_is_an_error_and_writes_nothing(tmp_path: Path, features: Path, kind: str) -> None:
    record, reason = DAMAGED_QUERIES[kind]
    file = write_lines(tmp_path / "tvr.jsonl", [line(1), line(2), record, line(4)])
    with pytest.raises(DataError, match=rf"1 of 4 records cannot be read \(.*tvr\.jsonl:3: .*{reason}"):
        run(tmp_path / "set", "tvr", features, files={"train": file})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features", "tvr.jsonl"]


DAMAGED_QUESTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "answer missing": (without(TVQA[0], "a2"), "has no a4; expected 4 answers|has no a2"),
    "last answer missing": (without(TVQA[0], "a4"), "has 4 answers; most have 5"),
    "empty answer": ({**TVQA[0], "a3": " "}, "has a3 ' '; expected a text"),
    "answer that is null": ({**TVQA[0], "a3": None}, "has no a3; expected 5 answers"),
    "right answer unknown": ({**TVQA[0], "answer_idx": 5}, "has answer_idx 5; expected 0 to 4"),
    "no question": (without(TVQA[0], "q"), "expected qid, q, a0, a1, vid_name"),
    "moment backwards": ({**TVQA[0], "ts": "5-3"}, "expected 0 <= start <= end"),
}


@pytest.mark.parametrize("kind", DAMAGED_QUESTIONS)
def test_a_damaged_question_is_dropped(tmp_path: Path, kind: str) -> None:
    record, reason = DAMAGED_QUESTIONS[kind]
    features = write_arrays(tmp_path / "features", {str(TVQA[0]["vid_name"]): 8})
    file = write_lines(tmp_path / "tvqa.jsonl", [{**TVQA[0], "qid": 1}, {**record, "qid": 2}, {**TVQA[1], "qid": 3}])
    run(tmp_path / "set", "tvqa", features, files={"train": file}, damaged_share=0.4)
    assert [written["qid"] for written in annotations_of(tmp_path / "set", "train")] == [1, 3]
    (dropped,) = lines_of(tmp_path / "set" / "dropped.jsonl")
    assert dropped["line"] == 2
    assert re.search(reason, dropped["reason"]), dropped


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"descs": [{"desc": ""}]}, "has a caption ''; expected a text"),
        ({"descs": ["a caption"]}, "expected a list of objects with desc"),
        ({"ts": [[0, 1], [2, 3]]}, r"expected \[start, end\] in seconds"),
        ({"clip_id": None}, "expected clip_id, vid_name, ts"),
    ],
)
def test_a_damaged_captioned_moment_is_dropped(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    features = write_arrays(tmp_path / "features", {str(TVC[0]["vid_name"]): 8})
    file = write_lines(tmp_path / "tvc.jsonl", [TVC[0], {**TVC[0], "clip_id": 5, **change}])
    run(tmp_path / "set", "tvc", features, files={"train": file}, damaged_share=0.5)
    (dropped,) = lines_of(tmp_path / "set" / "dropped.jsonl")
    assert re.search(reason, dropped["reason"]), dropped


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": "maybe"}, "has the label 'maybe'; expected 1 or true, 0 or false"),
        ({"label": 0.5}, "has the label 0.5"),
        ({"statement": None}, "expected id, statement, vid_name"),
        ({"statement": [["only one"]]}, "has the entries .*; expected file, statement, split"),
        ({"statement": [["only one"]], "file": VIDEO, "split": "train"}, "expected a true and a false one"),
    ],
)
def test_a_damaged_statement_is_dropped(tmp_path: Path, features: Path, change: dict[str, Any], reason: str) -> None:
    good = {"id": "a", "statement": "It rains.", "vid_name": VIDEO, "label": 1}
    file = write_lines(tmp_path / "violin.jsonl", [good, {**good, "id": "b", **change}])
    run(tmp_path / "set", "violin", features, files={"train": file}, damaged_share=0.5)
    (dropped,) = lines_of(tmp_path / "set" / "dropped.jsonl")
    assert re.search(reason, dropped["reason"]), dropped


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("v,[60:120],[70:80]", "has 3 columns; expected 4: video_id, clip, moment, query"),
        ("v,[60:120],[70:80],", "expected video_id, clip, moment, query"),
        ("v,[61:120],[70:80],a dog", "has a clip from 61 s; expected a multiple of 60 s"),
        ("v,minute 2,[70:80],a dog", "has clip 'minute 2'; expected start and end in seconds"),
        ("v,[60:120],[130:140],a dog", "has a moment outside of 60 to 120 s"),
        ("v,[60:120],[70:70],a dog", "expected start < end"),
        ("v,[240:300],[250:260],a dog", "has no features"),
    ],
)
def test_a_damaged_row_of_how2r_is_dropped(tmp_path: Path, row: str, reason: str) -> None:
    features = write_arrays(tmp_path / "features", {VIDEO: 120})
    file = write_text(tmp_path / "how2r.csv", f"v,[0:60],[1:2],a cat\n{row}\n")
    run(tmp_path / "set", "how2r", features, files={"train": file}, damaged_share=0.5)
    dropped = lines_of(tmp_path / "set" / "dropped.jsonl")[-1]
    assert dropped["line"] == 2
    assert re.search(reason, dropped["reason"]), dropped


def test_a_row_that_is_not_utf8_is_one_that_is_lost(tmp_path: Path) -> None:
    features = write_arrays(tmp_path / "features", {VIDEO: 120})
    (tmp_path / "how2r.csv").write_bytes(b"v,[0:60],[1:2],a cat\nv,[0:60],[1:2],caf\xe9\nv,[0:60],[3:4],a dog\n")
    run(tmp_path / "set", "how2r", features, files={"train": tmp_path / "how2r.csv"}, damaged_share=0.5)
    assert [one["desc"] for one in annotations_of(tmp_path / "set", "train")] == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("name", "content", "schema", "message"),
    [
        ("tvr.jsonl", "", "tvr", "is empty; expected annotations"),
        ("tvr.jsonl", "\n \n", "tvr", "is empty; expected annotations"),
        (
            "tvr.jsonl",
            '{"qid": 1, "q": "a"}\n',
            "tvr",
            "can be read as tvr: the first has the entries q, qid; expected desc_id",
        ),
        ("tvr.csv", "a,b\n1,2\n", "tvr", r"has 2 columns: a, b; expected a header with desc_id, desc, vid_name, ts"),
        (
            "how2r.csv",
            "v,[0:60],a cat\n",
            "how2r",
            r"has 3 columns: .*; expected these values, or a header with video_id, clip",
        ),
        ("clips.json", "{}", "violin", "can be read as violin: there is none"),
        ("clips.json", '{"a": {"sub": []}}', "violin", "can be read as violin: the first has the entries a"),
    ],
)
def test_a_file_of_another_kind_is_refused(
    tmp_path: Path, features: Path, name: str, content: str, schema: str, message: str
) -> None:
    file = write_text(tmp_path / name, content)
    with pytest.raises(DataError, match=message):
        run(tmp_path / "set", schema, features, files={"train": file}, damaged_share=1.0)
    assert not (tmp_path / "set").exists()


def test_a_damaged_sentence_of_msrvtt_is_dropped(tmp_path: Path, features: Path) -> None:
    document = {
        "videos": [3, {"video_id": ["v"]}, {"video_id": "v", "start time": 0, "end time": None, "split": "train"}],
        "sentences": [
            {"sen_id": 1, "caption": "a dog", "video_id": "v"},
            {"sen_id": 2, "caption": "a cat", "video_id": ["v"]},
            4,
        ],
    }
    file = write_json(tmp_path / "MSRVTT_data.json", document)
    run(tmp_path / "set", "msrvtt", features, files={"train": file}, damaged_share=0.9)
    assert [one["desc_id"] for one in annotations_of(tmp_path / "set", "train")] == [1]
    assert [one["line"] for one in lines_of(tmp_path / "set" / "dropped.jsonl")] == [2, 3]


def test_annotations_that_are_nowhere(tmp_path: Path, features: Path) -> None:
    with pytest.raises(DataError, match=r"There is no annotation file .*nowhere\.jsonl"):
        run(tmp_path / "set", "tvr", features, files={"train": tmp_path / "nowhere.jsonl"})
    with pytest.raises(DataError, match="is no LMDB of the authors; expected a file"):
        run(tmp_path / "set", "tvr", features, files={"train": features})


def damage_features(path: Path, kind: str) -> None:
    array = np.load(path)
    if kind == "not finite":
        array[1, 1] = np.nan
        np.save(path, array)
    elif kind == "cut off":
        path.write_bytes(path.read_bytes()[:-7])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "another width":
        np.save(path, array[:, :2])
    elif kind == "whole numbers":
        np.save(path, array.astype(np.int64))
    elif kind == "three dimensions":
        np.save(path, array[None])
    elif kind == "no clip":
        np.save(path, array[:0])
    elif kind == "pickled":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif kind == "no duration":
        path.unlink()
        save_file({"features": array}, path.with_suffix(".safetensors"), metadata={"duration": "long"})
    elif kind == "another array":
        path.unlink()
        np.savez(path.with_suffix(".npz"), other=array)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("not finite", "features that are not finite"),
        ("cut off", "w.npy has no array 'features' that can be read"),
        ("empty", "w.npy has no array 'features' that can be read"),
        ("another width", "features 2 wide; most others are 3"),
        ("whole numbers", r"has an array of shape \(8, 3\), int64; expected \(clips, feature_dim\), floats"),
        ("three dimensions", r"has an array of shape \(1, 8, 3\)"),
        ("no clip", r"features of shape \(0, 3\)"),
        ("pickled", "w.npy has no array 'features' that can be read .*allow_pickle"),
        ("no duration", "w.safetensors has no array 'features' that can be read"),
        ("another array", "w.npz has no array 'features' that can be read"),
    ],
)
def test_damaged_features_are_named_and_their_annotations_dropped(
    tmp_path: Path, features: Path, kind: str, reason: str
) -> None:
    write_arrays(features, {"x": 8})
    damage_features(features / "w.npy", kind)
    lines = [line(1), line(2, vid_name="w"), line(3, vid_name="x")]
    file = write_lines(tmp_path / "tvr.jsonl", lines)
    with pytest.raises(DataError, match=rf"1 of 3 records cannot be read \(.*features:w: .*{reason}"):
        run(tmp_path / "set", "tvr", features, files={"train": file})
    summary = run(tmp_path / "set", "tvr", features, files={"train": file}, damaged_share=0.5)
    assert [one["desc_id"] for one in annotations_of(tmp_path / "set", "train")] == [1, 3]
    dropped = lines_of(tmp_path / "set" / "dropped.jsonl")
    assert [(one["id"], one["line"]) for one in dropped] == [("w", None), ("2", 2)]
    assert "w, which has no features" in dropped[1]["reason"]
    assert sorted(path.name for path in (tmp_path / "set" / "features").iterdir()) == ["v.safetensors", "x.safetensors"]
    assert summary.features.videos == 2


def test_a_video_that_is_missing_is_an_error_unless_it_may_be(tmp_path: Path, features: Path) -> None:
    file = write_lines(tmp_path / "tvr.jsonl", [line(1), line(2, vid_name="gone"), line(3, vid_name="gone")])
    with pytest.raises(
        DataError, match=r"1 of 2 videos .* are not in .*features, such as gone\. .*--missing-share 0\.500"
    ):
        run(tmp_path / "set", "tvr", features, files={"train": file})
    summary = run(tmp_path / "set", "tvr", features, files={"train": file}, missing_share=0.5)
    assert [one["desc_id"] for one in annotations_of(tmp_path / "set", "train")] == [1]
    assert summary.dropped == {"video that is not there": 1, "annotation of a video without features": 2}


def test_a_split_of_which_nothing_is_left_is_an_error(tmp_path: Path, features: Path) -> None:
    good = write_lines(tmp_path / "train.jsonl", [line(1)])
    gone = write_lines(tmp_path / "test.jsonl", [line(2, vid_name="gone")])
    with pytest.raises(
        DataError, match="No annotation of the split test is left; the last that was dropped is about gone"
    ):
        run(tmp_path / "set", "tvr", features, files={"train": good, "test": gone}, missing_share=0.9)
    assert not (tmp_path / "set").exists()


def test_moments_are_cut_to_the_video_where_its_duration_is_known(tmp_path: Path, features: Path) -> None:
    file = write_lines(tmp_path / "tvr.jsonl", [line(1, ts=[9, 14])])
    run(tmp_path / "first", "tvr", features, files={"train": file})
    assert annotations_of(tmp_path / "first", "train")[0]["ts"] == [9.0, 14.0]
    durations = write_json(tmp_path / "durations.json", {"train": {VIDEO: [11.4, 0]}})
    summary = run(tmp_path / "second", "tvr", features, files={"train": file}, durations=durations)
    assert annotations_of(tmp_path / "second", "train")[0]["ts"] == [9.0, 11.4]
    assert summary.mended == {CUT: 1}


def test_a_question_loses_a_moment_after_the_video_and_stays(tmp_path: Path) -> None:
    features = write_arrays(tmp_path / "features", {str(TVQA[0]["vid_name"]): 8})
    file = write_lines(tmp_path / "tvqa.jsonl", [{**TVQA[0], "ts": "13-15"}])
    summary = run(tmp_path / "set", "tvqa", features, files={"train": file})
    assert "ts" not in annotations_of(tmp_path / "set", "train")[0]
    assert summary.mended == {LOST: 1}


def test_a_clip_interval_that_does_not_fit_shows(tmp_path: Path, features: Path) -> None:
    file = write_lines(tmp_path / "tvr.jsonl", [line(1, duration=12.0)])
    assert run(tmp_path / "first", "tvr", features, files={"train": file}).mended == {}
    assert run(tmp_path / "second", "tvr", features, interval=3.0, files={"train": file}).mended == {ODD_DURATION: 1}


@pytest.mark.parametrize("content", ['{"v": "long"}', '{"v": [-1, 0]}', "[1]", "{", '{"train": {"v": []}}'])
def test_durations_that_cannot_be_read(tmp_path: Path, features: Path, content: str) -> None:
    file = write_lines(tmp_path / "tvr.jsonl", [line(1)])
    durations = write_text(tmp_path / "durations.json", content)
    with pytest.raises(DataError, match=r"durations\.json"):
        run(tmp_path / "set", "tvr", features, files={"train": file}, durations=durations)
