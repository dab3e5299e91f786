"""Submission files: complete or refused, and read back they measure as the evaluation that they came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hero_sdk.tokens import TextTokenizer
from hero_train.data.annotations import HiddenQuery, MomentQuery, read_hidden_queries
from hero_train.data.answer_annotations import Question, Statement
from hero_train.data.captions import CaptionedMoment
from hero_train.errors import DataError
from hero_train.evaluate import RetrievalPredictions, evaluate_retrieval, search_corpus, search_hidden
from hero_train.metrics import measure_retrieval, recalls
from hero_train.metrics_answers import measure_questions, measure_statements
from hero_train.model.hero import HeroModel
from hero_train.model.layers import initialise
from hero_train.submissions import (
    read_answers,
    read_captions,
    read_retrieval,
    read_video_numbers,
    write_answers,
    write_captions,
    write_retrieval,
)
from hero_train.tokenizer import train_tokenizer_json
from tests.tiny_training import tiny_config, write_annotations
from tests.unit.test_evaluate_retrieval import GEOMETRY, make_corpus

INDEX = {"video 0": 700, "video 1": 300, "video 2": 500}


@pytest.fixture(scope="module")
def model() -> HeroModel:
    torch.manual_seed(0)
    model = HeroModel(tiny_config(vocab_size=304, min_span_clips=1, max_span_clips=4))
    initialise(model, 0.3)
    return model


CORPUS = make_corpus(((0.0, 3.0),), ((1.5, 4.5), (0.0, 3.0), (1.5, 4.5), (3.0, 6.0)))
QUERIES = [query for video in CORPUS for query in video.annotations]


@pytest.fixture(scope="module")
def found(model: HeroModel) -> RetrievalPredictions:
    return search_corpus(model, CORPUS, GEOMETRY)


@pytest.fixture
def file(found: RetrievalPredictions, tmp_path: Path) -> Path:
    path = tmp_path / "val" / "predictions.json"
    write_retrieval(path, found.results, QUERIES, found.video_ids, video_index=INDEX)
    return path


def edited(path: Path, **changes: Any) -> Path:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in (content | changes).items() if value is not None}))
    return path


def test_a_file_for_tvr_measures_as_the_evaluation(
    model: HeroModel, found: RetrievalPredictions, tmp_path: Path
) -> None:
    """With suppression and without, and whatever numbers the videos have."""
    evaluation = evaluate_retrieval(model, CORPUS, GEOMETRY)
    assert evaluation == measure_retrieval(found.results, found.suppressed, found.searched)
    assert found.suppressed is not None
    for results, suffix in ((found.results, ""), (found.suppressed, "/NMS")):
        for index in (None, INDEX):
            write_retrieval(tmp_path / "file.json", results, QUERIES, found.video_ids, video_index=index)
            tables = read_retrieval(tmp_path / "file.json", QUERIES).metrics()
            assert set(tables) == set(evaluation.metrics)
            for group, table in tables.items():
                for name, value in table.items():
                    assert evaluation.metrics[group][name if name.startswith("VR/") else f"{name}{suffix}"] == value


def test_a_file_for_tvr_has_the_form_of_its_starter_kit(file: Path, found: RetrievalPredictions) -> None:
    content = json.loads(file.read_text())
    assert list(content) == ["video2idx", "VCMR", "SVMR", "VR"]
    assert content["video2idx"] == INDEX
    for task in ("VCMR", "SVMR", "VR"):
        assert [entry["desc_id"] for entry in content[task]] == [query.query_id for query in QUERIES]
        for entry in content[task]:
            assert list(entry) == ["desc_id", "desc", "predictions"]
            for video, start, end, score in entry["predictions"]:
                assert isinstance(video, int)
                assert video in INDEX.values()
                assert (start == end == 0) if task == "VR" else start < end
                assert isinstance(score, float)
    first = found.results[0].corpus_moments
    assert content["VCMR"][0]["predictions"][0][1:] == [*first.times[0], first.score[0]]


def test_a_file_for_value_has_the_numbers_of_the_videos_outside(found: RetrievalPredictions, tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_retrieval(path, found.results, QUERIES, found.video_ids, video_index=INDEX, form="value")
    content = json.loads(path.read_text())
    assert list(content) == ["VCMR", "VR"]
    assert sorted(content["VR"][0]["predictions"]) == [300, 500, 700]
    with pytest.raises(DataError, match="has no video2idx"):
        read_retrieval(path, QUERIES)
    submission = read_retrieval(path, QUERIES, video_index=INDEX)
    expected = {name: value for name, value in recalls(found.results).items() if not name.startswith("SVMR")}
    assert submission.metrics()["all"] == expected


def test_a_split_about_whole_videos_has_videos_alone(model: HeroModel, tmp_path: Path) -> None:
    corpus = make_corpus((), interval=2.0)
    queries = [query for video in corpus for query in video.annotations]
    found = search_corpus(model, corpus, GEOMETRY)
    write_retrieval(tmp_path / "file.json", found.results, queries, found.video_ids)
    assert list(json.loads((tmp_path / "file.json").read_text())) == ["video2idx", "VR"]
    assert read_retrieval(tmp_path / "file.json", queries).metrics()["all"] == recalls(found.results)


def test_a_test_split_that_hides_the_videos(model: HeroModel, tmp_path: Path) -> None:
    """It is searched by VR and VCMR, handed in and not measured; what is found is what is found for the open query."""
    tokenizer = TextTokenizer(train_tokenizer_json(["they all go home"], 300))
    write_annotations(
        tmp_path / "test.jsonl", [{"desc_id": 7, "desc": "they go"}, {"desc_id": 8, "desc": "go", "type": "v"}]
    )
    queries = read_hidden_queries(tmp_path / "test.jsonl")
    assert queries == [HiddenQuery("7", "they go"), HiddenQuery("8", "go", "v")]
    corpus = make_corpus()
    hidden = search_hidden(model, corpus, queries, tokenizer, GEOMETRY)
    write_retrieval(tmp_path / "file.json", hidden.results, queries, hidden.video_ids, video_index=INDEX)
    content = json.loads((tmp_path / "file.json").read_text())
    assert list(content) == ["video2idx", "VCMR", "VR"]
    assert [entry["desc_id"] for entry in content["VR"]] == [7, 8]
    submission = read_retrieval(tmp_path / "file.json", queries)
    with pytest.raises(DataError, match="2 queries do not tell which video they are about, such as 7"):
        submission.metrics()
    open_query = MomentQuery("7", "they go", "video 1", ((0.0, 3.0),))
    corpus[1].ask(open_query, tokenizer.encode_query(open_query.text), 1.5, "outward")
    (result,) = search_corpus(model, corpus, GEOMETRY).results
    # The two were encoded in batches of two and of one.
    assert result.corpus_moments.times.tolist() == hidden.results[0].corpus_moments.times.tolist()
    assert result.corpus_moments.score == pytest.approx(hidden.results[0].corpus_moments.score, rel=1e-3)
    with pytest.raises(DataError, match=r"Line 1 of .* has no \['desc'\]"):
        read_hidden_queries(write_annotations(tmp_path / "test.jsonl", [{"desc_id": 7}]))


def test_results_that_are_not_those_of_the_split_are_not_written(found: RetrievalPredictions, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    results, ids = found.results, found.video_ids
    for arguments, message in (
        (
            (results[1:], QUERIES, ids),
            "1 queries of the split are missing, such as 0-0; expected each of the split's 6 once",
        ),
        ((results, QUERIES[1:], ids), "1 queries are not of the split, such as 0-0"),
        ((results * 2, QUERIES, ids), "6 queries are there more than once, such as 0-0"),
        ((results, QUERIES * 2, ids), "6 queries are there more than once in the split, such as 0-0"),
    ):
        with pytest.raises(DataError, match=message):
            write_retrieval(path, *arguments)
    with pytest.raises(DataError, match="1 videos of the corpus have no number, such as video 2"):
        write_retrieval(path, results, QUERIES, ids, video_index={"video 0": 0, "video 1": 1})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"VCMR": []}, "6 queries of VCMR in .* of the split are missing"),
        ({"VR": [{"desc_id": "0-0", "predictions": [700]}] * 2}, "VR of .* has query 0-0 twice"),
        ({"VR": [{"desc_id": "0-0"}]}, "VR of .* has an entry that is none .*'predictions'"),
        ({"VR": [{"desc_id": "0-0", "predictions": [[700, 0, 0]]}]}, "VR of .* has an entry that is none"),
        ({"VR": [{"desc_id": "0-0", "predictions": []}]}, "VR of .* has no predictions for query 0-0"),
        ({"VR": [{"desc_id": "0-0", "predictions": [1]}]}, r"VR of .* has an entry that is none \(KeyError\(1\)\)"),
        ({"VCMR": [{"desc_id": "0-0", "predictions": [[700, 3, None, 0.1]]}]}, "VCMR of .* or some without a time"),
        (
            {"video2idx": {"video 0": 700, "video 1": 300, "else": 500}},
            "no number for the video video 2, which query 2-0",
        ),
        ({"VCMR": None, "SVMR": None, "VR": None}, r"has \['video2idx'\]; expected predictions for VCMR, SVMR or VR"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(file: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_retrieval(edited(file, **changes), QUERIES)


def test_only_what_is_in_a_file_is_measured(file: Path) -> None:
    tables = read_retrieval(edited(file, SVMR=None, VR=None), QUERIES).metrics()
    assert {name.split("/")[0] for name in tables["all"]} == {"VCMR"}


def test_the_numbers_of_a_leaderboard(tmp_path: Path) -> None:
    path = tmp_path / "tvr_video2dur_idx.json"
    path.write_text(json.dumps({"val": {"v1": [60.5, 19614], "v2": [30, 20384]}, "test_public": {"v3": 3}}))
    assert read_video_numbers(path, "val") == {"v1": 19614, "v2": 20384}
    with pytest.raises(DataError, match="has no split 'test'; it has val, test_public"):
        read_video_numbers(path, "test")
    with pytest.raises(DataError, match=r"does not have \[seconds, number\] for each video of test_public"):
        read_video_numbers(path, "test_public")


@pytest.mark.parametrize("content", ["[]", "{", "3"])
def test_what_is_no_submission(tmp_path: Path, content: str) -> None:
    (tmp_path / "file.json").write_text(content)
    for read in (lambda path: read_retrieval(path, QUERIES), lambda path: read_answers(path, [])):
        with pytest.raises(DataError, match=r"file\.json (holds|cannot be read)"):
            read(tmp_path / "file.json")
        with pytest.raises(DataError, match=r"none\.json cannot be read"):
            read(tmp_path / "none.json")


QUESTIONS = [
    Question(str(n), "who", ("a", "b", "c"), "v", None if n == 2 else n % 3, None, "ho"[n % 2]) for n in range(4)
]
STATEMENTS = [Statement(f"v-{n}", "x", "v", n % 2 == 0) for n in range(4)]
SAID = {"0": 0, "1": 2, "2": 1, "3": 0}


def test_answers_measure_as_what_was_said(tmp_path: Path) -> None:
    """All questions are handed in; those whose answer is known are measured."""
    path = tmp_path / "tvqa_val_predictions.json"
    write_answers(path, SAID, QUESTIONS)
    assert json.loads(path.read_text()) == SAID == read_answers(path, QUESTIONS)
    found = measure_questions(read_answers(path, QUESTIONS), QUESTIONS)
    assert found.metrics == {"all": {"accuracy": 2 / 3}, "h": {"accuracy": 1.0}, "o": {"accuracy": 0.5}}
    assert found.baselines["chance"] == {"accuracy": pytest.approx(1 / 3)}
    assert found.baselines["majority/o"] == {"accuracy": 0.5}
    assert found.counts == {"questions": 3}


def test_judgements_measure_as_what_was_said(tmp_path: Path) -> None:
    said = {statement.statement_id: 1 for statement in STATEMENTS}
    write_answers(tmp_path / "violin.json", said, STATEMENTS)
    assert json.loads((tmp_path / "violin.json").read_text()) == said
    assert measure_statements(read_answers(tmp_path / "violin.json", STATEMENTS), STATEMENTS).metrics["all"] == {
        "accuracy": 0.5
    }


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"0": 0, "1": 2, "2": 1}, "1 answers in .* of the split are missing, such as 3"),
        (SAID | {"9": 0}, "1 answers in .* are not of the split, such as 9"),
        (SAID | {"1": 3}, "The answer 1 in .* is 3; expected a number from 0 to 2"),
        (SAID | {"1": -1}, "The answer 1 in .* is -1"),
        (SAID | {"1": "2"}, "The answer 1 in .* is '2'"),
    ],
)
def test_answers_that_are_not_those_of_the_split(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_answers(tmp_path / "answers.json", said, QUESTIONS)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "answers.json").write_text(json.dumps(said))
    with pytest.raises(DataError, match=message):
        read_answers(tmp_path / "answers.json", QUESTIONS)


MOMENTS = [CaptionedMoment("90200", "v1", 1.5, 3.0, ("a",)), CaptionedMoment("x-7", "v2", 0.0, 2.0, ())]


def test_captions_come_back(tmp_path: Path) -> None:
    path = tmp_path / "tvc_val_predictions.jsonl"
    written = {"x-7": 'Żółw\u2028says "hi"', "90200": ""}
    write_captions(path, written, MOMENTS)
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == {"vid_name": "v1", "clip_id": 90200, "ts": [1.5, 3.0], "descs": [{"desc": ""}]}
    assert second["clip_id"] == "x-7"
    assert read_captions(path, MOMENTS) == written


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"clip_id": 90200, "descs": [{"desc": "a"}]}], r"1 captions in .* of the split are missing, such as x-7"),
        (
            [{"clip_id": 90200, "descs": [{"desc": "a"}]}] * 2,
            r"1 captions in .* are there more than once, such as 90200",
        ),
        ([{"clip_id": 90200, "descs": []}], r"Line 1 of .* is no caption .*; expected clip_id and descs"),
        ([{"descs": [{"desc": "a"}]}], r"Line 1 of .* is no caption"),
    ],
)
def test_captions_that_are_not_those_of_the_split(tmp_path: Path, lines: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_captions(write_annotations(tmp_path / "captions.jsonl", lines), MOMENTS)
    with pytest.raises(DataError, match="2 captions of the split are missing"):
        write_captions(tmp_path / "none.jsonl", {}, MOMENTS)
    assert not (tmp_path / "none.jsonl").exists()
