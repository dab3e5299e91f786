"""Questions and statements from annotation files to batches."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demo.toontv import questions as toontv
from demo.toontv.corpus import CorpusPlan, write_scripts
from demo.toontv.write import write_jsonl
from hero_sdk.errors import InputError
from hero_sdk.rows import RowGeometry, TextTemporalRows
from hero_sdk.tokens import SEPARATOR_ID, TextTokenizer
from hero_train.data.answer_annotations import Question, Statement, read_questions, read_statements
from hero_train.data.answers import collate_questions, collate_statements, encode_questions, encode_statements
from hero_train.data.features import VideoFeatures
from hero_train.errors import DataError
from hero_train.tokenizer import train_tokenizer_json
from tests.tiny_training import tiny_config
from tests.unit.tiny_videos import write_srt

# The fields and their spelling are those of the released TVQA files.
QUESTION: dict[str, Any] = {
    "qid": 17,
    "q": "What is on the table when Ross comes in?",
    **{f"a{number}": f"A {thing}" for number, thing in enumerate(["cup", "hat", "cat", "map", "pie"])},
    "answer_idx": 2,
    "vid_name": "friends_s01e03_seg02_clip_19",
    "ts": "7.5-12.25",
    "show_name": "Friends",
}
STATEMENT: dict[str, Any] = {"id": 4, "pair_id": 4, "vid_name": "v", "statement": "Ann waves.", "label": 1}
LINES = ["we look for the gem", "here it is", "let us go home"]
CONFIG = tiny_config(clip_limit=5)
GEOMETRY = RowGeometry(64, 16, 32, 24)


def write(path: Path, *lines: str | dict[str, Any]) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def without(content: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer(train_tokenizer_json(LINES, 300))


def features(clips: int) -> VideoFeatures:
    return VideoFeatures(np.arange(clips * 6, dtype=np.float32).reshape(clips, 6), clips * 1.5)


FEATURES = {"long": features(8), "short": features(3)}
QUESTIONS = [
    Question("a", "who has the gem", ("we", "the home"), "long", 1, (1.0, 4.0)),
    Question("b", "who goes home", ("us", "it"), "short", None, None),
    Question("c", "beyond what is read", ("us", "it"), "long", 0, (7.5, 9.0)),
]
STATEMENTS = [Statement("a", "we have it", "long", True), Statement("b", "here we go", "short", None)]


def test_a_line_of_tvqa_is_read(tmp_path: Path) -> None:
    assert read_questions(write(tmp_path / "qa.jsonl", QUESTION, "")) == [
        Question(
            question_id="17",
            text="What is on the table when Ross comes in?",
            answers=("A cup", "A hat", "A cat", "A map", "A pie"),
            video_id="friends_s01e03_seg02_clip_19",
            correct=2,
            moment=(7.5, 12.25),
        )
    ]


def test_four_answers_are_four(tmp_path: Path) -> None:
    (question,) = read_questions(write(tmp_path / "qa.jsonl", without(QUESTION, "a4")))
    assert question.answers == ("A cup", "A hat", "A cat", "A map")


def test_what_a_question_need_not_tell(tmp_path: Path) -> None:
    (question,) = read_questions(write(tmp_path / "qa.jsonl", without(QUESTION, "answer_idx", "ts")))
    assert question.correct is None
    assert question.moment is None


@pytest.mark.parametrize(
    ("ts", "moment"), [([1, 2.5], (1.0, 2.5)), ("0-3", (0.0, 3.0)), ("nan-nan", None), (None, None)]
)
def test_moments_as_data_sets_write_them(tmp_path: Path, ts: object, moment: tuple[float, float] | None) -> None:
    assert read_questions(write(tmp_path / "qa.jsonl", {**QUESTION, "ts": ts}))[0].moment == moment


@pytest.mark.parametrize(
    ("line", "message"),
    [
        *(
            (without(QUESTION, name), rf"has no \['{name}'\]; a question has qid, q, a0, a1, vid_name")
            for name in ("qid", "q", "a0", "a1", "vid_name")
        ),
        (without(QUESTION, "a3"), r"has no \['a3'\]; a question with 4 answers has a0, a1, a2, a3"),
        *(
            ({**QUESTION, "answer_idx": value}, "answer_idx .*; expected a number from 0 to 4")
            for value in (5, -1, "2", 1.0, True)
        ),
        *(
            ({**QUESTION, "ts": value}, "has ts .*; expected .* in seconds with 0 <= start < end")
            for value in ("4", "5-4", "4-4", "-1-4", "a-b", [4], [1, 2, 3], [None, 2], 7, "1-inf", "nan-4", {})
        ),
        ({**QUESTION, "q": " "}, "has q ' '; expected a text"),
        ({**QUESTION, "a1": ""}, "has a1 ''; expected a text"),
        ({**QUESTION, "a1": 3}, "has a1 3; expected a text"),
        ("[]", "is a list; expected an object"),
    ],
)
def test_a_question_that_cannot_be_read_is_named(tmp_path: Path, line: str | dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_questions(write(tmp_path / "qa.jsonl", QUESTION, line))
    assert str(caught.value).startswith(f"Line 2 of {tmp_path / 'qa.jsonl'}")


def test_a_kind_is_kept_up_to_what_the_model_reads(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    """Accuracy is told apart by it."""
    questions = read_questions(
        write(tmp_path / "qa.jsonl", {**QUESTION, "vid_name": "long", "kind": "who"}, {**QUESTION, "vid_name": "long"})
    )
    statements = read_statements(write(tmp_path / "violin.jsonl", {**STATEMENT, "vid_name": "short", "kind": "action"}))
    assert [question.kind for question in questions] == ["who", None]
    assert [statement.kind for statement in statements] == ["action"]
    asked = encode_questions(questions, FEATURES, None, tokenizer, CONFIG)
    assert [question.kind for question in asked] == ["who", None]
    assert encode_statements(statements, FEATURES, None, tokenizer, CONFIG)[0].kind == "action"


@pytest.mark.parametrize("kind", ["", " ", 3, "all", ["who"]])
def test_a_kind_that_is_none_is_named(tmp_path: Path, kind: object) -> None:
    for read, line in ((read_questions, QUESTION), (read_statements, STATEMENT)):
        with pytest.raises(DataError, match=r"Line 1 of .* has kind .*; expected a word other than 'all'"):
            read(write(tmp_path / "lines.jsonl", {**line, "kind": kind}))


def test_questions_of_one_file_have_equally_many_answers(tmp_path: Path) -> None:
    path = write(tmp_path / "qa.jsonl", QUESTION, without(QUESTION, "a4"))
    with pytest.raises(DataError, match=r"Line 2 of .* has 4 answers and the first question 5"):
        read_questions(path)


def test_lines_of_statements_are_read_by_either_name(tmp_path: Path) -> None:
    authors = {"desc_id": "x-0", "desc": "Bob sits.", "vid_name": "w", "label": False}
    unknown = without(STATEMENT, "label")
    assert read_statements(write(tmp_path / "violin.jsonl", STATEMENT, authors, unknown)) == [
        Statement("4", "Ann waves.", "v", True, "4"),
        Statement("x-0", "Bob sits.", "w", False),
        Statement("4", "Ann waves.", "v", None, "4"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (without(STATEMENT, "id"), r"has no \['id'\]; a statement has id, statement, vid_name"),
        (without(STATEMENT, "statement"), r"has no \['statement'\]"),
        (without(STATEMENT, "vid_name"), r"has no \['vid_name'\]"),
        ({"desc": "Bob sits.", "vid_name": "w"}, r"has no \['desc_id'\]; a statement has desc_id, desc, vid_name"),
        *(({**STATEMENT, "label": value}, "has label .*; expected 1 or true") for value in (2, "1", 0.0, [1])),
        ({**STATEMENT, "statement": ""}, "has statement ''; expected a text"),
    ],
)
def test_a_statement_that_cannot_be_read_is_named(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_statements(write(tmp_path / "violin.jsonl", STATEMENT, line))
    assert str(caught.value).startswith(f"Line 2 of {tmp_path / 'violin.jsonl'}")


def test_empty_and_missing_files_are_refused(tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.jsonl", "")
    for read, what in ((read_questions, "question"), (read_statements, "statement")):
        with pytest.raises(DataError, match=f"has no {what} in it"):
            read(empty)
        with pytest.raises(DataError, match="There is no annotation file"):
            read(tmp_path / "nowhere.jsonl")


def test_what_toontv_writes_is_read(tmp_path: Path) -> None:
    episodes = dict(write_scripts(CorpusPlan(train=3, val=1, test=1)))["train"]
    rows = [row for episode in episodes for row in toontv.questions(episode, random.Random(0), 0)]
    write_jsonl(tmp_path / "qa_train.jsonl", rows)
    asked = read_questions(tmp_path / "qa_train.jsonl")
    assert len(asked) == len(rows) > 3
    for question, row in zip(asked, rows, strict=True):
        assert question.correct is not None
        assert question.answers[question.correct] == row[f"a{row['answer_idx']}"]
        assert len(question.answers) == 5
        assert question.moment == tuple(map(float, row["ts"].split("-")))
    rows = [row for episode in episodes for row in toontv.statements(episode, random.Random(0), 0)]
    write_jsonl(tmp_path / "statements_train.jsonl", rows)
    stated = read_statements(tmp_path / "statements_train.jsonl")
    assert [(one.text, one.label) for one in stated] == [(row["statement"], row["label"] == 1) for row in rows]
    assert {one.label for one in stated} == {True, False}


def test_questions_are_encoded_with_their_videos(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    write_srt(tmp_path / "long.srt", LINES)
    first, second, third = encode_questions(QUESTIONS, FEATURES, tmp_path, tokenizer, CONFIG)
    assert first.video is third.video, "a video is kept once"
    assert len(first.video.features) == CONFIG.clip_limit
    assert first.video.segments[0].tokens.tolist() == [SEPARATOR_ID, *tokenizer.encode(LINES[0])]
    assert first.tokens.tolist() == [SEPARATOR_ID, *tokenizer.encode("who has the gem")]
    assert [answer.tolist() for answer in first.answers] == [
        [SEPARATOR_ID, *tokenizer.encode(answer)] for answer in ("we", "the home")
    ]
    # Seconds 1 to 4 touch the clips 0 to 2 of 1.5 s.
    assert (first.correct, first.moment) == (1, (0, 2))
    assert (second.correct, second.moment) == (-1, (-1, -1))
    assert (third.correct, third.moment) == (0, (-1, -1)), "the moment begins after the last clip that is read"


def test_annotations_about_videos_without_features_are_named(tokenizer: TextTokenizer) -> None:
    with pytest.raises(DataError, match="Annotation b is about the video short, which has no features"):
        encode_questions(QUESTIONS, {"long": FEATURES["long"]}, None, tokenizer, CONFIG)
    with pytest.raises(DataError, match="Annotation b is about the video short, which has no features"):
        encode_statements(STATEMENTS, {"long": FEATURES["long"]}, None, tokenizer, CONFIG)


def texts_after_videos(rows: object) -> list[list[int]]:
    """The text of each segment of stage 2, by row."""
    assert isinstance(rows, TextTemporalRows)
    return [
        ids[(segments == segment) & (ids >= 0)].tolist()
        for ids, segments in zip(rows.token_ids, rows.segment_ids, strict=True)
        for segment in range(1, segments.max() + 1)
    ]


def test_a_batch_of_questions_has_each_video_once_with_each_answer(tokenizer: TextTokenizer) -> None:
    encoded = encode_questions(QUESTIONS, FEATURES, None, tokenizer, CONFIG)
    batch = collate_questions(encoded, GEOMETRY)
    assert batch.answers == 2
    assert [span.length for span in batch.packed.videos] == [5, 5, 3, 3, 5, 5]
    assert batch.correct.tolist() == [1, -1, 0]
    assert batch.moments.tolist() == [[0, 2], [-1, -1], [-1, -1]]
    assert batch.correct.dtype == batch.moments.dtype == np.int64
    expected = [[*one.tokens.tolist(), *answer.tolist()] for one in encoded for answer in one.answers]
    assert sorted(texts_after_videos(batch.packed.temporal)) == sorted(expected)
    assert batch.cut_tokens == 0


def test_a_long_question_is_cut_and_its_answers_stay_whole(tokenizer: TextTokenizer) -> None:
    (encoded,) = encode_questions(QUESTIONS[:1], FEATURES, None, tokenizer, CONFIG)
    limit = len(encoded.answers[1]) + 2
    batch = collate_questions([encoded], RowGeometry(64, 16, 32, limit))
    kept = [[*encoded.tokens[: limit - len(answer)], *answer] for answer in encoded.answers]
    assert sorted(texts_after_videos(batch.packed.temporal)) == sorted(kept)
    whole = sum(len(encoded.tokens) + len(answer) for answer in encoded.answers)
    assert batch.cut_tokens == whole - 2 * limit > 0
    assert len(set(map(tuple, kept))) == 2, "answers can be told apart"


def test_a_batch_of_statements(tokenizer: TextTokenizer) -> None:
    encoded = encode_statements(STATEMENTS, FEATURES, None, tokenizer, CONFIG)
    batch = collate_statements(encoded, GEOMETRY)
    assert [span.length for span in batch.packed.videos] == [5, 3]
    assert batch.labels.tolist() == [1, -1]
    texts = [[SEPARATOR_ID, *tokenizer.encode(one.text)] for one in STATEMENTS]
    assert sorted(texts_after_videos(batch.packed.temporal)) == sorted(texts)
    assert batch.cut_tokens == 0
    short = collate_statements(encoded, RowGeometry(64, 16, 32, 3))
    assert sorted(texts_after_videos(short.packed.temporal)) == sorted(text[:3] for text in texts)
    assert short.cut_tokens == sum(len(text) - 3 for text in texts)


def test_batches_that_cannot_be(tokenizer: TextTokenizer) -> None:
    three = Question("d", "who", ("we", "us", "it"), "short", 0, None)
    encoded = encode_questions([QUESTIONS[0], three], FEATURES, None, tokenizer, CONFIG)
    with pytest.raises(DataError, match=r"A batch has questions of \[2, 3\] answers"):
        collate_questions(encoded, GEOMETRY)
    with pytest.raises(DataError, match=r"A batch has questions of \[\] answers"):
        collate_questions([], GEOMETRY)
    with pytest.raises(InputError, match="There is no video to pack"):
        collate_statements([], GEOMETRY)
