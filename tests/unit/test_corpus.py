"""A corpus is a real LanceDB folder here; only the graphs are a numpy double."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from hero_sdk import (
    EncodedVideo,
    Hero,
    InputError,
    MediaError,
    Moment,
    Query,
    Subtitle,
)
from hero_sdk.corpus import table
from hero_sdk.moments import spoken_between
from hero_sdk.spans import search_spans
from tests.same_moments import assert_same_moments
from tests.unit.corpora import fill, make_query, make_video
from tests.unit.numpy_engine import NumpyEngine, make_manifest
from tests.unit.tiny_videos import write_collection


@pytest.fixture
def hero() -> Hero:
    return Hero(NumpyEngine())


@pytest.fixture(scope="module")
def tiny_videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_collection(tmp_path_factory.mktemp("videos"))


def brute_force(query: Query, videos: dict[str, EncodedVideo], top_k: int) -> list[tuple[str, float, float]]:
    """Every stored (half precision) clip of every video, in order of ids."""
    ids = sorted(videos)
    clips = [videos[video_id].clip_embeddings.astype(np.float16).astype(np.float32) for video_id in ids]
    spans = search_spans(
        query.vector,
        query.span_vector,
        np.concatenate(clips),
        [len(part) for part in clips],
        make_manifest().moment,
        top_k,
    )
    times = spans.times(1.5, [videos[video_id].duration for video_id in ids])
    return [(ids[video], *time) for video, time in zip(spans.video, times.tolist(), strict=True)]


def located(moments: list[Moment]) -> list[tuple[str, float, float]]:
    return [(moment.video_id, moment.start, moment.end) for moment in moments]


def test_search_equals_brute_force_over_more_videos_than_are_searched_for_spans(hero: Hero, tmp_path: Path) -> None:
    corpus = hero.corpus(tmp_path / "corpus")
    videos = {f"video {number}": make_video(number) for number in range(230)}
    fill(corpus, videos)
    assert len(corpus) == 230
    assert corpus.video_ids() == sorted(videos)
    for seed in range(4):
        query = make_query(seed)
        expected = brute_force(query, videos, 25)
        found = corpus.search(query, 25)
        assert located(found) == expected
        assert found == corpus.search(query, 25, exact=True)
        assert [moment.score for moment in found] == sorted((moment.score for moment in found), reverse=True)
        assert all(0 < moment.score <= 1 for moment in found)
        hits = corpus.search_videos(query, 150)
        assert len(hits) == 150
        cosine = {
            video_id: (video.clip_embeddings @ query.vector / np.linalg.norm(video.clip_embeddings, axis=1)).max()
            / np.linalg.norm(query.vector)
            for video_id, video in videos.items()
        }
        assert [hit.score for hit in hits] == pytest.approx(sorted(cosine.values(), reverse=True)[:150], abs=1e-3)
        assert [hit.score for hit in hits] == pytest.approx([cosine[hit.video_id] for hit in hits], abs=1e-3)
        assert hits == corpus.search_videos(query, 150, exact=True)


def test_a_video_index_finds_the_same_best_moments(hero: Hero, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "INDEX_FROM", 300)
    monkeypatch.setattr(table, "CLIPS_PER_PARTITION", 500)
    monkeypatch.setattr(table, "REINDEX_AFTER", 20)
    corpus = hero.corpus(tmp_path)
    fill(corpus, {str(number): make_video(number) for number in range(299)})
    stored = corpus._table
    assert stored._unindexed() is None
    corpus.add_encoded("299", make_video(299))
    assert stored._unindexed() == 0
    for number in range(300, 319):
        corpus.add_encoded(str(number), make_video(number))
    assert stored._unindexed() == 19
    corpus.add_encoded("319", make_video(319))
    assert stored._unindexed() == 0
    for seed in range(5):
        query = make_query(seed)
        # The index, whose partitions start at random, may miss a video near the hundredth. Then the other videos stand at
        # other places of the matrix product, and its last bit may be another one.
        assert_same_moments(corpus.search(query, 3), corpus.search(query, 3, exact=True), 1e-5)
        found, every = (
            {hit.video_id for hit in corpus.search_videos(query, 100, exact=exact)} for exact in (False, True)
        )
        assert len(found & every) >= 95
    assert corpus.search(make_query(0), videos=["299", "319"])


def test_many_additions_do_not_leave_many_files(hero: Hero, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "COMPACT_AFTER", 8)
    corpus = hero.corpus(tmp_path)
    for number in range(20):
        corpus.add_encoded(str(number), make_video(number))
        assert corpus._table._table.stats()["fragment_stats"]["num_fragments"] < 8
    assert len(corpus) == 20


@pytest.mark.parametrize(
    "video_id", ["it's", "''", 'say "hi"', "x' OR '1'='1", "a/b\\c.mp4", "Füße 動画", "%", "_", " ", "\n"]
)
def test_any_text_is_an_id(hero: Hero, tmp_path: Path, video_id: str) -> None:
    corpus = hero.corpus(tmp_path)
    corpus.add_encoded("other", make_video(0))
    corpus.add_encoded(video_id, make_video(1))
    assert video_id in corpus
    assert corpus.video_ids() == sorted([video_id, "other"])
    assert {moment.video_id for moment in corpus.search(make_query(0), videos=[video_id])} == {video_id}
    corpus.remove(video_id)
    assert corpus.video_ids() == ["other"]


@pytest.mark.parametrize("video_id", ["", "a\0b", "\udcff", None, 7])
def test_what_is_no_text_is_no_id(hero: Hero, tmp_path: Path, video_id: object) -> None:
    corpus = hero.corpus(tmp_path)
    with pytest.raises(InputError, match="video id"):
        corpus.add_encoded(video_id, make_video(0))  # type: ignore[arg-type]
    assert video_id not in corpus
    with pytest.raises(InputError):
        corpus.remove(video_id)  # type: ignore[arg-type]


def test_a_second_video_of_an_id_is_an_error_unless_it_replaces(hero: Hero, tmp_path: Path) -> None:
    corpus = hero.corpus(tmp_path)
    corpus.add_encoded("a", make_video(0, clips=4))
    with pytest.raises(InputError, match="has a video 'a' already"):
        corpus.add_encoded("a", make_video(1))
    query = make_query(0)
    assert located(corpus.search(query)) == brute_force(query, {"a": make_video(0, clips=4)}, 10)
    corpus.add_encoded("a", make_video(1), replace=True)
    assert len(corpus) == 1
    assert located(corpus.search(query)) == brute_force(query, {"a": make_video(1)}, 10)


def test_remove(hero: Hero, tmp_path: Path) -> None:
    corpus = hero.corpus(tmp_path)
    corpus.add_encoded("a", make_video(0))
    corpus.remove("a")
    assert len(corpus) == 0
    assert "a" not in corpus
    with pytest.raises(InputError, match="has no video 'a'"):
        corpus.remove("a")


def test_an_empty_corpus_gives_nothing(hero: Hero, tmp_path: Path) -> None:
    corpus = hero.corpus(tmp_path)
    assert corpus.search("a robot") == []
    assert corpus.search("a robot", exact=True) == []
    assert corpus.search_videos("a robot") == []
    assert corpus.video_ids() == []
    corpus.optimize()


def test_a_search_may_be_restricted_to_videos(hero: Hero, tmp_path: Path) -> None:
    corpus = hero.corpus(tmp_path)
    videos = {str(number): make_video(number) for number in range(40)}
    fill(corpus, videos)
    query = make_query(1)
    chosen = {video_id: videos[video_id] for video_id in ("3", "17", "39")}
    assert located(corpus.search(query, 30, videos=["39", "3", "17", "3"])) == brute_force(query, chosen, 30)
    assert corpus.search(query, videos=[]) == []
    with pytest.raises(InputError, match="has no video '40', 'x'"):
        corpus.search(query, videos=["3", "x", "40"])
    with pytest.raises(InputError, match="list of ids"):
        corpus.search(query, videos="3")


def test_a_corpus_is_there_after_reopening(hero: Hero, tmp_path: Path) -> None:
    folder = tmp_path / "a b#c%20'd"
    corpus = hero.corpus(folder)
    corpus.add_encoded("a", make_video(0))
    before = corpus.search(make_query(0))
    assert hero.corpus(folder, create=False).search(make_query(0)) == before
    moved = tmp_path / "moved"
    shutil.move(folder, moved)
    assert hero.corpus(moved, create=False).search(make_query(0)) == before


def test_what_was_stored_comes_back(hero: Hero, tmp_path: Path) -> None:
    corpus = hero.corpus(tmp_path)
    odd = Subtitle(0.0, 1.0, "caf\udce9 \N{GRINNING FACE}")
    video = EncodedVideo(make_video(5, 3).clip_embeddings, 1.5, 4.1, (odd, Subtitle(1.0, 4.1, "")))
    corpus.add_encoded("a", video, source="/videos/\udcff.mp4")
    [candidates] = corpus._table.scan()
    video_id, stored = candidates.describe(0)
    assert (video_id, stored.duration, stored.clip_interval) == ("a", 4.1, 1.5)
    assert stored.subtitles == (Subtitle(0.0, 1.0, "caf? \N{GRINNING FACE}"), Subtitle(1.0, 4.1, ""))
    np.testing.assert_array_equal(stored.clip_embeddings, video.clip_embeddings.astype(np.float16).astype(np.float32))
    [row] = corpus._table.column("source", "clips", "fingerprint")
    assert row == {"video_id": "a", "source": "/videos/?.mp4", "clips": 3, "fingerprint": "f" * 64}


def test_a_moment_has_the_subtitles_that_share_more_than_half_of_the_shorter(hero: Hero, tmp_path: Path) -> None:
    lines = (
        Subtitle(0.0, 3.0, "before"),
        Subtitle(2.0, 4.0, "exactly half"),
        Subtitle(2.9, 4.9, "mostly inside"),
        Subtitle(4.0, 4.5, "inside"),
        Subtitle(0.0, 90.0, "all along"),
    )
    assert spoken_between(lines, 3.0, 6.0) == "mostly inside inside all along"
    assert spoken_between((), 3.0, 6.0) == ""
    corpus = hero.corpus(tmp_path)
    corpus.add_encoded("a", make_video(3, clips=20))
    for moment in corpus.search(make_query(0)):
        assert moment.subtitle == spoken_between(make_video(3, clips=20).subtitles, moment.start, moment.end)
        assert moment.subtitle.startswith("line ")


def test_one_bad_file_does_not_stop_the_others(
    hero: Hero, tmp_path: Path, tiny_videos: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    corpus = hero.corpus(tmp_path / "corpus")
    bad = tmp_path / "bad.mp4"
    bad.write_text("this is no video")
    reported = []
    with caplog.at_level(logging.ERROR):
        results = corpus.add_many([(path, None, None) for path in [bad, *tiny_videos]], report=reported.append)
    assert results == reported
    assert [result.video_id for result in results if result.error is None] == [path.stem for path in tiny_videos]
    [failed] = [result for result in results if result.error is not None]
    assert isinstance(failed.error, MediaError)
    assert failed.video == str(bad)
    with pytest.raises(MediaError):
        corpus.add(bad)
    with pytest.raises(InputError, match="already"):
        corpus.add(tiny_videos[0])
    assert corpus.add(tiny_videos[0], (), replace=True) == tiny_videos[0].stem
    assert corpus.add(tiny_videos[0], (), video_id="again") == "again"
    assert len(corpus) == len(tiny_videos) + 1


def test_videos_added_together_get_what_each_gets_alone(hero: Hero, tmp_path: Path, tiny_videos: list[Path]) -> None:
    together, alone = hero.corpus(tmp_path / "together"), hero.corpus(tmp_path / "alone")
    together.add_many([(path, None, None) for path in tiny_videos])
    for path in tiny_videos:
        alone.add(path)
    for query in ("a red thing", "hello there"):
        first, second = together.search(query), alone.search(query)
        assert located(first) == located(second)
        assert [moment.score for moment in first] == pytest.approx([moment.score for moment in second], rel=1e-3)


def test_the_source_of_a_result_is_json_friendly(hero: Hero, tmp_path: Path) -> None:
    corpus = hero.corpus(tmp_path)
    corpus.add_encoded("a", make_video(0))
    [first, *_] = corpus.search("hello")
    assert json.loads(json.dumps(first.__dict__))["video_id"] == "a"
