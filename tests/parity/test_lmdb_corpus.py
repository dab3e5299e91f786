"""A corpus read from the authors' LMDB files holds what their loader makes of them, and what raw subtitles give here."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zlib
from pathlib import Path
from typing import Any, cast

import lmdb
import lz4.frame
import msgpack
import numpy as np
import pytest
from torch import Tensor

from hero_sdk.alignment import build_segments
from hero_sdk.rows import VideoInput
from hero_sdk.tokens import BEGIN_ID, TextTokenizer
from hero_sdk.types import IntArray, Subtitle
from hero_train.config import HeroConfig
from hero_train.data.annotations import moment_clips, read_moment_queries
from hero_train.data.corpus import CorpusVideo, without_picture, without_text
from hero_train.data.lmdb_corpus import read_lmdb_corpus
from hero_train.errors import DataError
from tests.parity.oracle import OracleBatch, oracle_folder, read_dump

DB = oracle_folder() / "db"
TVR, MSRVTT, SUBTITLES = (DB / "txt" / f"{name}.db" for name in ("tvr_val", "msrvtt_val", "syn_subtitles"))
FEATURES, COMPRESSED, SLOW = (
    DB / "video" / "syn" / f"resnet_slowfast_{name}" for name in ("1.5", "1.5_compressed", "2_compressed")
)
CLIP_LIMIT = read_dump("vcmr_state_dict")["meta"]["max_clip_len"]
CONFIG = HeroConfig(clip_limit=CLIP_LIMIT)


def read(*stores: Path | None, **changes: Any) -> dict[str, CorpusVideo]:
    """A corpus in which nothing is damaged, by video."""
    queries, subtitles, features = stores or (TVR, SUBTITLES, FEATURES)
    assert queries is not None
    assert features is not None
    corpus, damage = read_lmdb_corpus(queries, subtitles, features, dataclasses.replace(CONFIG, **changes))
    assert damage.reasons == {}
    return {video.video_id: video for video in corpus}


class FakeTokenizer:
    """The oracle's: a number for each word, and one more for words that end in 7."""

    first, after = 5, json.loads((TVR / "meta.json").read_text())["v_range"][1]

    def encode_subtitle(self, text: str) -> IntArray:
        tokens = []
        for word in text.split():
            code, choices = zlib.crc32(word.encode()), self.after - self.first
            tokens.append(self.first + code % choices)
            if word.endswith("7"):
                tokens.append(self.first + (code // 977) % choices)
        return np.array(tokens, dtype=np.int32)


def assert_same(found: VideoInput, expected: VideoInput) -> None:
    np.testing.assert_array_equal(found.features, expected.features)
    assert found.features.dtype == np.float32
    assert len(found.segments) == len(expected.segments)
    for ours, theirs in zip(found.segments, expected.segments, strict=True):
        assert ours.frames.dtype == ours.tokens.dtype == np.int32
        assert ours.frames.tolist() == theirs.frames.tolist()
        assert ours.tokens.tolist() == theirs.tokens.tolist()


@pytest.mark.parametrize("features", [FEATURES, COMPRESSED], ids=["raw", "compressed"])
@pytest.mark.parametrize(("context", "part"), [(0, "batch"), (1, "ctx1"), (2, "ctx2")])
def test_videos_are_those_of_the_authors_loader(features: Path, context: int, part: str) -> None:
    dump = read_dump("vcmr_io")
    batch = OracleBatch(dump[part] if part == "batch" else dump[part]["batch"])
    corpus = read(TVR, SUBTITLES, features, subtitle_context=context)
    names = dump["batch"]["vids"][: len(batch.videos)]
    assert len(batch.videos) == len(names) > 1
    for name, expected in zip(names, batch.videos, strict=True):
        assert_same(corpus[name].input, expected)


@pytest.mark.parametrize("part", ["sub", "video_only"])
def test_videos_for_retrieval_are_those_of_the_authors_loader(part: str) -> None:
    batch = OracleBatch(read_dump("vr_io")[part]["batch"])
    corpus = read(MSRVTT, SUBTITLES if part == "sub" else None, SLOW, clip_interval=2.0)
    # The batch without subtitles does not name its videos; their features tell.
    of_features = {video.input.features.tobytes(): video for video in corpus.values()}
    videos = [of_features[expected.features.tobytes()] for expected in batch.videos]
    assert len({video.video_id for video in videos}) == len(videos) > 1
    for video, expected in zip(videos, batch.videos, strict=True):
        assert_same(video.input, expected)
        assert bool(video.spoken) == (part == "sub" and video.video_id in has_subtitles())


def has_subtitles() -> dict[str, list[Subtitle]]:
    """The raw subtitles of each video that has some."""
    raw = map(json.loads, (DB / "ann" / "subtitles.jsonl").read_text().splitlines())
    return {video["vid_name"]: [Subtitle(**line) for line in video["sub"]] for video in raw if video["sub"]}


def test_queries_are_those_of_the_authors_loader() -> None:
    expected = read_dump("vcmr_full_eval")["query_batch"]
    corpus = read()
    found = {
        annotation.query_id: (video.video_id, query)
        for video in corpus.values()
        for annotation, query in zip(video.annotations, video.queries, strict=True)
    }
    assert sorted(found) == sorted(expected["qids"])
    for row, (number, name) in enumerate(zip(expected["qids"], expected["vids"], strict=True)):
        video, query = found[number]
        real: Tensor = expected["query_attn_masks"][row].bool()
        assert video == name
        assert query.tokens.dtype == np.int32
        assert query.tokens.tolist() == expected["query_input_ids"][row][real].tolist()
        assert [query.first, query.last] == expected["targets"][row].tolist()
        assert query.marked


def test_annotations_are_those_of_the_annotation_file() -> None:
    expected = {query.query_id: query for query in read_moment_queries(DB / "ann" / "tvr_val.jsonl")}
    found = {query.query_id: query for video in read().values() for query in video.annotations}
    assert found == expected


def test_segments_are_those_that_the_raw_subtitles_give() -> None:
    """The other way round the same data: this project's alignment and the oracle's tokens, from the raw text."""
    frames = json.loads((SUBTITLES / "vid2len.json").read_text())
    raw = has_subtitles()
    tokenizer = cast("TextTokenizer", FakeTokenizer())
    for name, video in read(clip_limit=max(frames.values())).items():
        segments = build_segments(raw.get(name, []), frames[name], clip_interval=1.5, tokenizer=tokenizer)
        assert_same(video.input, VideoInput(video.input.features, segments))
        assert len(video.input.features) == frames[name]


def test_subtitles_can_be_asked_for_where_they_are_spoken() -> None:
    raw = has_subtitles()
    left_out = 0
    for name, video in read().items():
        clips = len(video.input.features)
        lines = [line for line in raw.get(name, []) if line.start < clips * CONFIG.clip_interval]
        left_out += len(raw.get(name, [])) - len(lines)
        assert len(video.spoken) == len(lines)
        for query, line in zip(video.spoken, lines, strict=True):
            assert query.tokens.tolist() == [BEGIN_ID, *FakeTokenizer().encode_subtitle(line.text).tolist()]
            assert (query.first, query.last) == moment_clips(line.start, line.end, 1.5, clips)
            assert (query.type, query.marked) == ("t", False)
    assert left_out, "no subtitle of this oracle lies beyond the clip limit"


def test_durations_are_seconds() -> None:
    (split,) = json.loads((SUBTITLES / "vid2dur_idx.json").read_text()).values()
    for name, video in read().items():
        assert video.duration == split[name][0]
    frames = json.loads((DB / "video" / "syn" / "id2nframe.json").read_text())
    for name, video in read(TVR, None, FEATURES).items():
        assert video.duration == frames[name] * 1.5, "without subtitles the features tell the duration"


def test_a_query_without_a_moment_is_about_all_clips() -> None:
    for video in read(MSRVTT, SUBTITLES, SLOW, clip_interval=2.0).values():
        for query, annotation in zip(video.queries, video.annotations, strict=True):
            assert (query.first, query.last, query.marked) == (0, len(video.input.features) - 1, False)
            assert annotation.moments == ()


def test_a_query_that_several_annotators_marked(tmp_path: Path) -> None:
    """The authors' preparation stores the annotation's moments as they are."""
    name = next(iter(read()))
    asked = read()[name].annotations[0].query_id
    marked = [[0.0, 3.0], [3.0, 6.0], [3.0, 6.0], [1.5, 3.0]]
    corpus, damage = read_lmdb_corpus(damaged(TVR, tmp_path, asked, {"target": marked}), SUBTITLES, FEATURES, CONFIG)
    assert not damage.reasons
    (video,) = (video for video in corpus if video.video_id == name)
    place = [annotation.query_id for annotation in video.annotations].index(asked)
    assert video.annotations[place].moments == tuple(map(tuple, marked))
    assert (video.queries[place].first, video.queries[place].last) == moment_clips(
        3.0, 6.0, 1.5, len(video.input.features)
    )


def test_long_queries_can_be_left_out() -> None:
    lengths = json.loads((TVR / "id2len.json").read_text())
    longest = sorted(lengths.values())[len(lengths) // 2]
    corpus, _ = read_lmdb_corpus(TVR, SUBTITLES, FEATURES, CONFIG, longest_query=longest)
    kept = {query.query_id for video in corpus for query in video.annotations}
    assert kept == {key for key, length in lengths.items() if length <= longest} != set(lengths)


def test_the_views_of_training_apply() -> None:
    for video in read().values():
        assert all(len(segment.tokens) == 1 for segment in without_text(video.input).segments)
        assert not without_picture(video.input).features.any()


def test_features_of_another_clip_interval_are_refused() -> None:
    with pytest.raises(DataError, match=r"features of 2 s and the model's clips take 1\.5 s"):
        read_lmdb_corpus(TVR, SUBTITLES, SLOW, CONFIG)


def damaged(store: Path, to: Path, key: str, change: Any) -> Path:
    """A copy of a text store in which one record is another; None takes it out."""
    shutil.copytree(store, to / store.name, copy_function=shutil.copyfile)
    environment = lmdb.open(str(to / store.name), map_size=1 << 20, lock=False)
    with environment.begin(write=True) as transaction:
        if change is None:
            transaction.delete(key.encode())
        else:
            stored = transaction.get(key.encode())
            assert stored is not None
            record = msgpack.unpackb(lz4.frame.decompress(stored)) | change
            transaction.put(key.encode(), lz4.frame.compress(msgpack.packb(record)))
    environment.close()
    return to / store.name


@pytest.mark.parametrize(
    "change",
    [
        None,
        {"input_ids": None},
        {"input_ids": [-1]},
        {"input_ids": [[1], [2]]},
        {"input_ids": ["a"]},
        {"input_ids": [1 << 40]},
    ]
    + [
        {"target": moment}
        for moment in ([3.0, 2.0], [1.0], "5-6", [[1.0, 2.0], [3.0]], [-1.0, 2.0], [0.0, float("nan")])
    ]
    + [{"type": "picture"}],
)
def test_a_damaged_query_is_named_and_left_out(tmp_path: Path, change: dict[str, Any] | None) -> None:
    whole = read()
    name = next(iter(whole))
    bad = whole[name].annotations[0].query_id
    store = damaged(TVR, tmp_path, bad, change)
    corpus, damage = read_lmdb_corpus(store, SUBTITLES, FEATURES, CONFIG, damaged_share=0.1)
    assert list(damage.reasons) == [f"{TVR.name}:{bad}"]
    assert {query.query_id for video in corpus for query in video.annotations} == {
        query.query_id for video in whole.values() for query in video.annotations
    } - {bad}
    with pytest.raises(DataError, match=rf"1 of \d+ records cannot be read \({TVR.name}:{bad}: "):
        read_lmdb_corpus(store, SUBTITLES, FEATURES, CONFIG)


@pytest.mark.parametrize(
    "change",
    [
        None,
        {"input_ids": None},
        {"input_ids": [[1]]},
        {"unique_sub2frames": [[0, [0]], [99, [1]]]},
        {"unique_sub2frames": [[0, [-1]]]},
        {"unique_sub2frames": [[0, "ab"]]},
        {"unique_sub2frames": 3},
        {"sub": [{"text": "no times"}]},
        {"sub": None},
    ],
)
def test_a_video_with_damaged_subtitles_is_named_and_left_out(tmp_path: Path, change: dict[str, Any] | None) -> None:
    whole = read()
    bad = next(name for name in whole if name in has_subtitles())
    store = damaged(SUBTITLES, tmp_path, bad, change)
    corpus, damage = read_lmdb_corpus(TVR, store, FEATURES, CONFIG, damaged_share=0.1)
    assert list(damage.reasons) == [f"{SUBTITLES.name}:{bad}"]
    assert [video.video_id for video in corpus] == [name for name in whole if name != bad]


def test_a_video_with_damaged_features_is_named_and_left_out(tmp_path: Path) -> None:
    whole = read()
    bad = next(iter(whole))
    for path in (FEATURES, FEATURES.parent / "id2nframe.json"):
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, tmp_path / path.name)
    environment = lmdb.open(str(tmp_path / FEATURES.name), map_size=1 << 20, lock=False)
    with environment.begin(write=True) as transaction:
        content = transaction.get(bad.encode())
        assert content is not None
        transaction.put(bad.encode(), content[:-1])
    environment.close()
    corpus, damage = read_lmdb_corpus(TVR, SUBTITLES, tmp_path / FEATURES.name, CONFIG, damaged_share=0.1)
    assert list(damage.reasons) == [f"{FEATURES.name}:{bad}"]
    assert [video.video_id for video in corpus] == [name for name in whole if name != bad]


@pytest.mark.parametrize("content", ["[]", '{"val": {"va": 3}}', '{"val": 3}', '{"val": {"va": []}}'])
def test_durations_in_another_form_are_refused(tmp_path: Path, content: str) -> None:
    shutil.copytree(SUBTITLES, tmp_path / SUBTITLES.name, copy_function=shutil.copyfile)
    (tmp_path / SUBTITLES.name / "vid2dur_idx.json").write_text(content)
    with pytest.raises(DataError, match=r"vid2dur_idx\.json"):
        read_lmdb_corpus(TVR, tmp_path / SUBTITLES.name, FEATURES, CONFIG)
