"""A set that is prepared from the authors' LMDBs is the one that is prepared from the raw files which they were made of."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from hero_sdk.tokens import BEGIN_ID, TextTokenizer
from hero_sdk.types import IntArray
from hero_train.data.annotations import read_moment_queries
from hero_train.data.answer_annotations import read_questions, read_statements
from hero_train.data.captions import read_captioned_moments
from hero_train.data.corpus import build_corpus, read_all_subtitles
from hero_train.data.features import load_features
from hero_train.data.lmdb_corpus import read_lmdb_corpus
from hero_train.data.lmdb_store import Damage, FeatureStore
from hero_train.errors import DataError
from hero_train.prepare.features import open_features
from hero_train.prepare.preparation import Request, prepare
from hero_train.prepare.schemas import SCHEMAS
from hero_train.prepare.summary import Summary
from tests.parity.oracle import oracle_folder
from tests.parity.test_lmdb_corpus import CONFIG, FakeTokenizer, assert_same, damaged, read
from tests.tiny_training import tiny_config

DB = oracle_folder() / "db"
DURATIONS = DB / "txt" / "syn_subtitles.db" / "vid2dur_idx.json"
STORES = ["tvr_val", "msrvtt_val", "tvqa_val", "violin_val", "tvc_val"]
INTERVALS = ["1.5", "2"]

READERS: dict[str, Any] = {
    "tvr": read_moment_queries,
    "msrvtt": read_moment_queries,
    "tvqa": read_questions,
    "violin": read_statements,
    "tvc": read_captioned_moments,
}


def set_of(out: Path, store: str, annotations: Path, subtitles: Path, features: str) -> Summary:
    return prepare(
        Request(
            out=out,
            features=open_features([DB / "video" / "syn" / f"resnet_slowfast_{features}"], None),
            schema=SCHEMAS[store.partition("_")[0]],
            files={"validation": annotations},
            subtitles=subtitles,
            durations=DURATIONS if subtitles.is_file() else None,
        )
    )


def from_stores(out: Path, store: str, features: str = "1.5") -> Summary:
    return set_of(out, store, DB / "txt" / f"{store}.db", DB / "txt" / "syn_subtitles.db", features)


def from_raw_files(out: Path, store: str, features: str = "1.5_compressed") -> Summary:
    return set_of(out, store, DB / "ann" / f"{store}.jsonl", DB / "ann" / "subtitles.jsonl", features)


def raw_lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DB / "ann" / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("store", STORES)
def test_both_ways_give_one_set(tmp_path: Path, store: str, interval: str) -> None:
    stored = from_stores(tmp_path / "stores", store, interval)
    raw = from_raw_files(tmp_path / "raw", store, f"{interval}_compressed")
    assert not stored.dropped
    assert not raw.dropped
    assert stored.features.fingerprint == raw.features.fingerprint
    assert stored.clip_interval == raw.clip_interval == float(interval)
    for name in ("annotations/validation.jsonl", "subtitles.jsonl", "dropped.jsonl"):
        assert (tmp_path / "stores" / name).read_bytes() == (tmp_path / "raw" / name).read_bytes(), name
    names = [line["vid_name"] for line in raw_lines(store)]
    first, second = (load_features(tmp_path / kind, names)[0] for kind in ("stores", "raw"))
    assert set(first) == set(second) == set(names)
    for name in names:
        np.testing.assert_array_equal(first[name].features, second[name].features)
        assert first[name].duration == second[name].duration


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("form", ["", "_compressed"])
def test_features_and_durations_are_those_of_the_store(tmp_path: Path, interval: str, form: str) -> None:
    from_stores(tmp_path / "set", "tvr_val", interval + form)
    (seconds,) = json.loads(DURATIONS.read_text()).values()
    with FeatureStore(DB / "video" / "syn" / f"resnet_slowfast_{interval}{form}") as store:
        expected = store.read(store.lengths(), Damage())
    found, dropped = load_features(tmp_path / "set", expected)
    assert not dropped
    for name, video in found.items():
        np.testing.assert_array_equal(video.features, expected[name])
        assert video.duration == seconds[name][0]


@pytest.mark.parametrize("store", STORES)
def test_the_readers_read_what_they_read_of_the_raw_file(tmp_path: Path, store: str) -> None:
    from_stores(tmp_path / "set", store)
    read = READERS[store.partition("_")[0]]
    raw = read(DB / "ann" / f"{store}.jsonl")
    assert read(tmp_path / "set" / "annotations" / "validation.jsonl") == raw
    assert len(raw) > 1


def test_sentences_about_whole_videos_are_those_of_the_raw_file(tmp_path: Path) -> None:
    from_stores(tmp_path / "set", "msrvtt_val")
    written = (tmp_path / "set" / "annotations" / "validation.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == raw_lines("msrvtt_val")


def test_subtitles_are_those_of_the_raw_file(tmp_path: Path) -> None:
    summary = from_stores(tmp_path / "set", "tvr_val")
    names = [*json.loads((DB / "txt" / "video_ids.json").read_text())]
    found = read_all_subtitles(tmp_path / "set" / "subtitles.jsonl", names)
    assert found == read_all_subtitles(DB / "ann" / "subtitles.jsonl", names)
    assert summary.subtitles.subtitles == sum(map(len, found.values()))


def test_subtitles_without_a_frame_are_those_of_the_authors_preprocessing(tmp_path: Path) -> None:
    summary = from_stores(tmp_path / "set", "tvr_val")
    config = tiny_config(clip_limit=1000, temporal_positions=1000)
    corpus, _ = read_lmdb_corpus(
        DB / "txt" / "tvr_val.db",
        DB / "txt" / "syn_subtitles.db",
        DB / "video" / "syn" / "resnet_slowfast_1.5",
        config,
    )
    empty = sum(not len(segment.frames) for video in corpus for segment in video.input.segments)
    assert summary.subtitles.without_frames == empty > 0


class OracleTextTokenizer(FakeTokenizer):
    """The oracle's, for queries as well."""

    def encode_query(self, text: str) -> IntArray:
        return np.concatenate([np.array([BEGIN_ID], np.int32), self.encode_subtitle(text)])


def test_training_reads_of_a_set_what_it_reads_of_the_stores(tmp_path: Path) -> None:
    """Frames, tokens and targets: the paper's assignment at load, and not before."""
    from_stores(tmp_path / "set", "tvr_val")
    stores = read(clip_limit=100)
    queries = read_moment_queries(tmp_path / "set" / "annotations" / "validation.jsonl")
    features, _ = load_features(tmp_path / "set", stores)
    tokenizer = cast("TextTokenizer", OracleTextTokenizer())
    config = replace(CONFIG, clip_limit=100)
    corpus = build_corpus(queries, features, tmp_path / "set" / "subtitles.jsonl", tokenizer, config)
    assert {video.video_id for video in corpus} == set(stores)
    for video in corpus:
        expected = stores[video.video_id]
        assert_same(video.input, expected.input)
        assert video.duration == expected.duration
        assert video.annotations == expected.annotations
        for kind in ("queries", "spoken"):
            ours, theirs = (
                [(one.tokens.tolist(), one.first, one.last) for one in getattr(side, kind)]
                for side in (video, expected)
            )
            assert ours == theirs


@pytest.mark.parametrize(
    ("store", "change", "reason"),
    [
        ("tvr_val.db", None, "is damaged: there is no such record"),
        ("tvr_val.db", {"desc": ""}, "has desc ''; expected a text"),
        ("tvqa_val.db", {"a4": None}, "has no a4; expected 5 answers"),
        ("violin_val.db", {"label": "x"}, "has the label 'x'"),
        ("tvc_val.db/clip.db", None, "is damaged: there is no such record"),
        ("tvc_val.db/clip.db", {"ts": [3, 1]}, "expected 0 <= start <= end"),
        ("tvc_val.db/cap.db", None, "there is no such record"),
        ("tvc_val.db/cap.db", {"desc": None}, "has a caption None; expected a text"),
    ],
)
def test_a_damaged_record_of_a_store_is_named_and_dropped(
    tmp_path: Path, store: str, change: dict[str, Any] | None, reason: str
) -> None:
    name, _, part = store.partition("/")
    task = name.removesuffix(".db")
    shutil.copytree(DB / "txt" / name, tmp_path / name, copy_function=shutil.copyfile)
    if part:
        shutil.rmtree(tmp_path / name / part)
    bad = first_key(DB / "txt" / store)
    damaged(DB / "txt" / store, tmp_path / name if part else tmp_path / "damaged", bad, change)
    folder = tmp_path / name if part else tmp_path / "damaged" / name
    request = Request(
        out=tmp_path / "set",
        features=open_features([DB / "video" / "syn" / "resnet_slowfast_1.5"], None),
        schema=SCHEMAS[task.partition("_")[0]],
        files={"train": folder},
    )
    with pytest.raises(DataError, match=rf"1 of \d+ records cannot be read \(.*{name}:\d+: .*{reason}"):
        prepare(request)
    prepare(replace(request, damaged_share=0.1))
    (dropped,) = map(json.loads, (tmp_path / "set" / "dropped.jsonl").read_text().splitlines())
    assert dropped["file"] == str(folder)
    written = (tmp_path / "set" / "annotations" / "train.jsonl").read_text().splitlines()
    assert len(written) == len(raw_lines(task)) - 1


def first_key(store: Path) -> str:
    sidecar = next(
        path for path in (store / "query2video.json", store / "clip2vid.json", store / "cap2vid.json") if path.exists()
    )
    return next(iter(json.loads(sidecar.read_text())))


@pytest.mark.parametrize("change", [None, {"sub": None}, {"sub": [{"text": "no times"}]}])
def test_damaged_subtitles_of_a_store_are_named_and_left_out(tmp_path: Path, change: dict[str, Any] | None) -> None:
    bad = raw_lines("subtitles")[0]["vid_name"]
    store = damaged(DB / "txt" / "syn_subtitles.db", tmp_path, bad, change)
    request = Request(
        out=tmp_path / "set",
        features=open_features([DB / "video" / "syn" / "resnet_slowfast_1.5"], None),
        schema=SCHEMAS["tvr"],
        files={"train": DB / "txt" / "tvr_val.db"},
        subtitles=store,
        damaged_share=0.2,
    )
    assert prepare(request).dropped == {"subtitles that cannot be read": 1}
    (dropped,) = map(json.loads, (tmp_path / "set" / "dropped.jsonl").read_text().splitlines())
    assert (dropped["file"], dropped["id"]) == (str(store), bad)
    names = {
        line["vid_name"] for line in map(json.loads, (tmp_path / "set" / "subtitles.jsonl").read_text().splitlines())
    }
    assert names == {line["vid_name"] for line in raw_lines("subtitles") if line["sub"]} - {bad}
