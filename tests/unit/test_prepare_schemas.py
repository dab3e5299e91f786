"""Every release becomes lines that this project's readers take, with the videos, moments and answers of the release."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hero_train.data.annotations import MomentQuery, read_moment_queries
from hero_train.data.answer_annotations import Question, Statement, read_questions, read_statements
from hero_train.data.captions import CaptionedMoment, read_captioned_moments
from hero_train.errors import DataError
from hero_train.prepare.annotations import NO_LENGTH, OTHER_SPLIT
from hero_train.prepare.fitting import CUT
from hero_train.prepare.pieces import BEYOND_PIECE, WHOLE, Pieces
from hero_train.prepare.records import ENTITIES
from tests.unit.releases import (
    DIDEMO,
    HOW2QA,
    HOW2R,
    JSFUSION,
    MSRVTT,
    TVC,
    TVQA,
    TVR,
    VIOLIN,
    annotations_of,
    run,
    write_arrays,
    write_json,
    write_lines,
    write_text,
)

TV = dict.fromkeys(
    (
        "friends_s01e01_seg02_clip_03",
        "house_s02e05_seg02_clip_11",
        "s03e02_seg02_clip_10",
        "castle_s01e01_seg01_clip_00",
        "grey_s03e12_seg02_clip_17",
    ),
    9,
)


@pytest.fixture
def tv(tmp_path: Path) -> Path:
    return write_arrays(tmp_path / "features", TV)


def test_tvr(tmp_path: Path, tv: Path) -> None:
    summary = run(tmp_path / "set", "tvr", tv, files={"train": write_lines(tmp_path / "tvr.jsonl", TVR)})
    friends, house = "friends_s01e01_seg02_clip_03", "house_s02e05_seg02_clip_11"
    assert read_moment_queries(tmp_path / "set" / "annotations" / "train.jsonl") == [
        MomentQuery("93717", "Monica pours the coffee & smiles.", friends, ((2.1, 6.0),), "v"),
        MomentQuery("93718", "Ross says that he is fine.", friends, ((0.0, 4.5),), "t"),
        MomentQuery("3", "House sits.", house, ((3.0, 9.1),), "vt"),
    ]
    assert summary.mended == {ENTITIES: 1}
    assert (summary.task, summary.splits["train"].annotations, summary.splits["train"].videos) == ("retrieval", 3, 2)


def test_tvqa(tmp_path: Path, tv: Path) -> None:
    """A kind, which TVQA does not have and accuracy is told apart by, is kept."""
    lines = [{**TVQA[0], "kind": "why"}, *TVQA[1:]]
    run(tmp_path / "set", "tvqa", tv, files={"validation": write_lines(tmp_path / "tvqa.jsonl", lines)})
    first, second, hidden = read_questions(tmp_path / "set" / "annotations" / "validation.jsonl")
    answers = tuple(str(TVQA[0][f"a{number}"]) for number in range(5))
    text = "Why does Howard leave the table?"
    assert first == Question("122039", text, answers, "s03e02_seg02_clip_10", 1, (1.16, 5.12), "why")
    assert second.kind is None
    assert (second.correct, second.moment) == (4, None), "nan-nan is a moment that nobody marked"
    assert (hidden.correct, hidden.moment) == (None, None), "a test split tells neither"


def test_tvc(tmp_path: Path, tv: Path) -> None:
    run(tmp_path / "set", "tvc", tv, files={"test": write_lines(tmp_path / "tvc.jsonl", TVC)})
    path = tmp_path / "set" / "annotations" / "test.jsonl"
    assert read_captioned_moments(path, captioned=False) == [
        CaptionedMoment("86602", "grey_s03e12_seg02_clip_17", 3.5, 8.9, ("Meredith walks in.", "She greets nobody.")),
        CaptionedMoment("86603", "grey_s03e12_seg02_clip_17", 0.0, 3.0, ()),
    ]


def test_violin_as_it_is_released(tmp_path: Path) -> None:
    features = write_arrays(tmp_path / "features", dict.fromkeys(VIOLIN, 8))
    file = write_json(tmp_path / "violin_annotation.json", VIOLIN)
    summary = run(tmp_path / "set", "violin", features, together=file, subtitles=file)
    name = "dh_s08e07_clip_020_032"
    assert read_statements(tmp_path / "set" / "annotations" / "train.jsonl") == [
        Statement(f"{name}-0-0", "She opens the door.", name, True),
        Statement(f"{name}-0-1", "She closes the door.", name, False),
        Statement(f"{name}-1-0", "It rains.", name, True),
        Statement(f"{name}-1-1", "It snows.", name, False),
    ]
    assert [one.video_id for one in read_statements(tmp_path / "set" / "annotations" / "validation.jsonl")] == [
        "gt3ntYidpvs_clip_000_012"
    ] * 2
    assert list(summary.splits) == ["train", "validation", "test"]
    assert summary.mended == {}


def test_a_file_that_is_named_for_each_split_gives_each_its_own(tmp_path: Path) -> None:
    features = write_arrays(tmp_path / "features", dict.fromkeys(VIOLIN, 8))
    file = write_json(tmp_path / "violin_annotation.json", VIOLIN)
    summary = run(tmp_path / "set", "violin", features, files={"train": file, "test": file})
    assert {split: found.annotations for split, found in summary.splits.items()} == {"train": 4, "test": 2}
    assert summary.mended == {OTHER_SPLIT: 2}
    assert summary.features.videos == 2


@pytest.mark.parametrize(
    "line",
    [
        {"desc_id": "v-0-0", "desc": "A man runs.", "vid_name": "v", "label": True},
        {"paired_id": "v-0-0", "example_id": 85354, "statement": "A man runs.", "vid_name": "v", "answer": 1},
        {"id": "v-0-0", "statement": "A man runs.", "vid_name": "v", "label": 1, "kind": "action"},
    ],
    ids=["authors", "VALUE", "ours"],
)
def test_statements_in_lines(tmp_path: Path, line: dict[str, Any]) -> None:
    """VALUE's submissions go by ``example_id``. A kind, by which accuracy is told apart, is kept."""
    features = write_arrays(tmp_path / "features", {"v": 8})
    run(tmp_path / "set", "violin", features, files={"test": write_lines(tmp_path / "violin.jsonl", [line])})
    identity = str(line.get("example_id", "v-0-0"))
    expected = [Statement(identity, "A man runs.", "v", True, kind=line.get("kind"))]
    assert read_statements(tmp_path / "set" / "annotations" / "test.jsonl") == expected


def test_how2r_in_pieces_of_a_minute(tmp_path: Path) -> None:
    features = write_arrays(tmp_path / "features", {"z0r8QCIuHaM": 130, "-8wVRbM63mE": 20})
    file = write_text(tmp_path / "how2R_val_release.csv", HOW2R)
    summary = run(tmp_path / "set", "how2r", features, files={"validation": file})
    fabric = "The woman placed the design on the fabric"
    garage = "In the garage, a woodworker discusses his project."
    assert read_moment_queries(tmp_path / "set" / "annotations" / "validation.jsonl") == [
        MomentQuery("z0r8QCIuHaM-1", fabric, "z0r8QCIuHaM.1", ((2.72, 9.37),)),
        MomentQuery("z0r8QCIuHaM-2", garage, "z0r8QCIuHaM.1", ((40.0, 60.0),)),
        MomentQuery("-8wVRbM63mE-3", "the woman dress color was red", "-8wVRbM63mE.0", ((6.9, 17.71),)),
    ]
    assert summary.mended == {BEYOND_PIECE: 1}, "the second ends at 120.96 s"
    assert (summary.piece_seconds, summary.features.clips) == (60, 40 + 20)


def test_how2r_with_whole_videos(tmp_path: Path) -> None:
    features = write_arrays(tmp_path / "features", {"z0r8QCIuHaM": 130, "-8wVRbM63mE": 20})
    file = write_text(tmp_path / "how2R.csv", "video_id,clip,moment,query\n" + HOW2R)
    run(tmp_path / "set", "how2r", features, files={"train": file}, pieces=WHOLE)
    first, *_ = read_moment_queries(tmp_path / "set" / "annotations" / "train.jsonl")
    assert (first.query_id, first.video_id, first.moments) == ("z0r8QCIuHaM-2", "z0r8QCIuHaM", ((62.72, 69.37),))


def test_how2qa_in_pieces_of_a_minute(tmp_path: Path) -> None:
    names = ("NOuQuofjk44", "piYcgGdO8_w", "DUEyiEnMVj4", "dnUFgR92F8M")
    features = write_arrays(tmp_path / "features", dict.fromkeys(names, 130))
    file = write_text(tmp_path / "how2QA_val_release.csv", HOW2QA)
    summary = run(tmp_path / "set", "how2qa", features, files={"validation": file})
    questions = read_questions(tmp_path / "set" / "annotations" / "validation.jsonl")
    assert [(one.question_id, one.video_id, one.moment) for one in questions] == [
        ("NOuQuofjk44-1", "NOuQuofjk44.1", (7.2, 18.0)),
        ("piYcgGdO8_w-2", "piYcgGdO8_w.0", (14.15, 21.52)),
        ("DUEyiEnMVj4-3", "DUEyiEnMVj4.0", (12.6, 13.2)),
        ("dnUFgR92F8M-4", "dnUFgR92F8M.2", None),
    ]
    assert [one.text for one in questions][1] == "What, on the right, is brown?"
    right = [one.answers[one.correct] for one in questions if one.correct is not None]
    assert right == ["1", "The box", 'it is "whatsdev"', "Red"]
    assert sorted(questions[0].answers) == ["1", "10", "12", "16"]
    assert 'it is "digitaldezignz' in questions[2].answers
    assert summary.mended == {NO_LENGTH: 1}


def test_no_place_among_the_answers_of_how2qa_is_the_right_one_more_often(tmp_path: Path) -> None:
    rows = "".join(f"v{number},[1.0:2.0],a,b,c,question {number}?,d\n" for number in range(400))
    features = write_arrays(tmp_path / "features", {f"v{number}": 2 for number in range(400)})
    run(tmp_path / "set", "how2qa", features, files={"train": write_text(tmp_path / "how2qa.csv", rows)})
    places = Counter(one.correct for one in read_questions(tmp_path / "set" / "annotations" / "train.jsonl"))
    assert set(places) == {0, 1, 2, 3}
    assert min(places.values()) > 70


@pytest.mark.parametrize(("schema", "line"), [("how2r", TVR[0]), ("how2qa", TVQA[0])])
def test_how2_in_lines_names_pieces_itself(tmp_path: Path, tv: Path, schema: str, line: dict[str, Any]) -> None:
    run(tmp_path / "set", schema, tv, files={"train": write_lines(tmp_path / "how2.jsonl", [line])})
    (written,) = annotations_of(tmp_path / "set", "train")
    assert written["vid_name"] == line["vid_name"]


def test_didemo_keeps_every_annotators_moment(tmp_path: Path) -> None:
    name = "54322086@N00_2408598493_274c77d26a"
    features = write_arrays(tmp_path / "features", {name: 19})
    durations = write_json(tmp_path / "durations.json", {name: 28.2})
    file = write_json(tmp_path / "train_data.json", DIDEMO)
    summary = run(tmp_path / "set", "didemo", features, files={"train": file}, durations=durations)
    moments = [[0.0, 5.0], [5.0, 10.0], [0.0, 10.0], [25.0, 28.2]]
    assert annotations_of(tmp_path / "set", "train") == [
        {"desc_id": 25, "desc": "the dog turns around", "vid_name": name, "ts": moments}
    ]
    (query,) = read_moment_queries(tmp_path / "set" / "annotations" / "train.jsonl")
    assert query.moments == ((0.0, 5.0), (5.0, 10.0), (0.0, 10.0), (25.0, 28.2))
    assert summary.mended == {CUT: 1}, "the last segment ends with the video"


def test_didemo_in_the_lines_of_the_authors(tmp_path: Path) -> None:
    features = write_arrays(tmp_path / "features", {"v": 20})
    line = {"desc_id": 1, "desc": "a dog", "vid_name": "v", "ts": [[0, 5], [5, 10]]}
    run(tmp_path / "set", "didemo", features, files={"train": write_lines(tmp_path / "didemo.jsonl", [line])})
    (written,) = annotations_of(tmp_path / "set", "train")
    assert written["ts"] == [[0.0, 5.0], [5.0, 10.0]]


def test_msrvtt_has_sentences_about_whole_videos(tmp_path: Path) -> None:
    features = write_arrays(tmp_path / "features", {"video0": 6, "video6513": 5, "video7010": 4})
    file = write_json(tmp_path / "MSRVTT_data.json", MSRVTT)
    summary = run(tmp_path / "set", "msrvtt", features, interval=2.0, together=file)
    assert annotations_of(tmp_path / "set", "train") == [
        {"desc_id": 1, "desc": "a car is shown", "vid_name": "video0"},
        {"desc_id": 2, "desc": "a man talks", "vid_name": "video0"},
    ]
    first, second = read_moment_queries(tmp_path / "set" / "annotations" / "train.jsonl")
    assert first.moments == second.moments == ()
    assert {split: found.annotations for split, found in summary.splits.items()} == {
        "train": 2,
        "validation": 1,
        "test": 1,
    }
    assert summary.clip_interval == 2.0


def test_msrvtt_by_lists_of_videos_and_the_table_of_the_1k_split(tmp_path: Path) -> None:
    features = write_arrays(tmp_path / "features", {"video0": 6, "video6513": 5, "video7010": 4})
    file = write_json(tmp_path / "MSRVTT_data.json", {"videos": [], "sentences": MSRVTT["sentences"]})
    lists = write_json(tmp_path / "splits.json", {"train": ["video6513", "video0"], "val": []})
    summary = run(tmp_path / "first", "msrvtt", features, interval=2.0, together=file, split_lists=lists)
    assert [line["desc_id"] for line in annotations_of(tmp_path / "first", "train")] == [1, 2, 3]
    assert (list(summary.splits), summary.mended[OTHER_SPLIT]) == (["train"], 1)
    table = write_text(tmp_path / "MSRVTT_JSFUSION_test.csv", JSFUSION)
    run(tmp_path / "second", "msrvtt", features, interval=2.0, files={"test": table})
    assert annotations_of(tmp_path / "second", "test") == [
        {"desc_id": "ret0", "desc": "a woman creating a fondant baby and flower", "vid_name": "video7010"}
    ]


TABLES = {
    "tvr": 'desc_id,desc,vid_name,ts,type\n7,"A dog, running",v,"[1.5, 4]",v\n8,A cat,v,2-5,\n',
    "tvqa": "qid,q,a0,a1,vid_name,answer_idx,ts\n7,Who?,Ann,Bob,v,1,1.5-4\n8,Who else?,Ann,Bob,v,,\n",
    "violin": "id,statement,vid_name,label\n7,A dog runs.,v,true\n8,A cat runs.,v,0\n",
    "tvc": 'clip_id,vid_name,ts,desc\n7,v,"[1.5, 4]",A dog runs.\n8,v,2-5,A cat runs.\n',
}

READ: dict[str, Any] = {
    "tvr": (read_moment_queries, MomentQuery("7", "A dog, running", "v", ((1.5, 4.0),), "v")),
    "tvqa": (read_questions, Question("7", "Who?", ("Ann", "Bob"), "v", 1, (1.5, 4.0))),
    "violin": (read_statements, Statement("7", "A dog runs.", "v", True)),
    "tvc": (read_captioned_moments, CaptionedMoment("7", "v", 1.5, 4.0, ("A dog runs.",))),
}


@pytest.mark.parametrize("schema", TABLES)
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_table_with_a_header(tmp_path: Path, schema: str, suffix: str) -> None:
    features = write_arrays(tmp_path / "features", {"v": 8})
    table = TABLES[schema]
    if suffix == "tsv":
        table = table.replace('"[1.5, 4]"', "[1.5; 4]").replace('"A dog, running"', "A dog; running")
        table = table.replace(",", "\t").replace(";", ",")
    run(tmp_path / "set", schema, features, files={"train": write_text(tmp_path / f"own.{suffix}", "\ufeff" + table)})
    read, expected = READ[schema]
    first, second = read(tmp_path / "set" / "annotations" / "train.jsonl")
    assert first == expected
    assert second.video_id == "v"


def test_a_json_document_may_be_a_list_of_records(tmp_path: Path, tv: Path) -> None:
    """As TVQA+ is released, which has the place of the right answer as a text."""
    records = [{**TVQA[0], "answer_idx": "3", "ts": [1.16, 5.12]}]
    run(
        tmp_path / "set", "tvqa", tv, files={"train": write_text(tmp_path / "plus.json", json.dumps(records, indent=1))}
    )
    (question,) = read_questions(tmp_path / "set" / "annotations" / "train.jsonl")
    assert (question.correct, question.moment) == (3, (1.16, 5.12))


def test_long_videos_of_ones_own_can_be_cut(tmp_path: Path) -> None:
    features = write_arrays(tmp_path / "features", {"film": 100})
    lines = [
        {"desc_id": 1, "desc": "a chase", "vid_name": "film", "ts": [95.0, 101.0]},
        {"desc_id": 2, "desc": "a kiss", "vid_name": "film.0", "ts": [3.0, 5.0]},
    ]
    file = write_lines(tmp_path / "own.jsonl", lines)
    summary = run(tmp_path / "set", "tvr", features, files={"train": file}, pieces=Pieces(30, every=True))
    found = [(line["vid_name"], line["ts"]) for line in annotations_of(tmp_path / "set", "train")]
    assert found == [("film.3", [5.0, 11.0]), ("film.0", [3.0, 5.0])]
    assert (summary.features.videos, summary.features.clips) == (2, 40)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": ["video0"], "test": ["video0"]}, "has the video video0 in train and in test"),
        ({"training": ["video0"]}, "has lists of training; expected a JSON object"),
        ({"val": [], "validation": []}, "has lists of val, validation"),
        (["video0"], "cannot be read"),
        ({"train": 3}, "cannot be read"),
        ({"train": ["other"]}, "belongs to a split. See that .* names its videos"),
    ],
)
def test_lists_of_splits_that_cannot_be_used(tmp_path: Path, lists: Any, message: str) -> None:
    features = write_arrays(tmp_path / "features", {"video0": 6})
    file = write_json(tmp_path / "MSRVTT_data.json", MSRVTT)
    named = write_json(tmp_path / "splits.json", lists)
    with pytest.raises(DataError, match=message):
        run(tmp_path / "set", "msrvtt", features, together=file, split_lists=named)


def test_annotations_that_name_no_split_cannot_be_divided(tmp_path: Path, tv: Path) -> None:
    file = write_lines(tmp_path / "tvr.jsonl", TVR)
    with pytest.raises(DataError, match="Name a file for each split, or lists of their videos"):
        run(tmp_path / "set", "tvr", tv, together=file)
    with pytest.raises(
        DataError, match="is named for train and test, and its annotations do not say which they are of"
    ):
        run(tmp_path / "set", "tvr", tv, files={"train": file, "test": file})
    assert not (tmp_path / "set").exists()
