"""Hero turns real video files, subtitles and sentences into embeddings and moments; the graphs are a numpy double."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

import hero_sdk
from hero_sdk import (
    BundleError,
    EncodedVideo,
    Hero,
    InputError,
    MediaError,
    Query,
    Subtitle,
    SubtitleError,
    VideoFeatures,
)
from tests.made_videos import write_video as write_subtitled_video
from tests.unit.numpy_engine import FEATURES, HIDDEN, NumpyEngine, make_manifest
from tests.unit.tiny_videos import write_collection, write_srt, write_video


@pytest.fixture
def engine() -> NumpyEngine:
    return NumpyEngine()


@pytest.fixture
def hero(engine: NumpyEngine) -> Hero:
    return Hero(engine)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_collection(tmp_path_factory.mktemp("videos"))


def make_features(clips: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((clips, FEATURES)).astype(np.float32)


def test_a_video_file_with_its_subtitles(hero: Hero, videos: list[Path]) -> None:
    video = hero.encode_video(videos[0])
    assert video.clip_embeddings.shape == (6, HIDDEN)
    assert video.clip_embeddings.dtype == np.float32
    assert (video.clip_interval, video.duration) == (1.5, pytest.approx(9.0))
    assert [line.text for line in video.subtitles] == ["we look for the gem", "here it is", "let us go home"]


def test_where_subtitles_come_from(hero: Hero, videos: list[Path], tmp_path: Path) -> None:
    def texts(source: hero_sdk.hero.SubtitleSource = None, video: Path = videos[0]) -> list[str]:
        return [line.text for line in hero.encode_video(video, source).subtitles]

    assert texts(()) == []
    assert texts(write_srt(tmp_path / "other.srt", ["another file"])) == ["another file"]
    assert texts(str(tmp_path / "other.srt")) == ["another file"]
    assert texts([Subtitle(3, 4, "second"), Subtitle(1, 2, "first")]) == ["first", "second"]
    assert texts(video=videos[1]) == []
    with pytest.raises(SubtitleError, match=r"none\.srt"):
        texts(tmp_path / "none.srt")
    with pytest.raises(InputError, match="Subtitle 0"):
        texts(["text alone"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="start <= end"):
        texts([Subtitle(4, 3, "backwards")])


def test_subtitles_change_what_is_seen(hero: Hero, videos: list[Path]) -> None:
    with_text, without = hero.encode_video(videos[0]), hero.encode_video(videos[0], ())
    assert not np.allclose(with_text.clip_embeddings, without.clip_embeddings)


def test_a_file_that_is_no_video(hero: Hero, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("text.mp4", "missing.mp4"):
        with pytest.raises(MediaError, match=name):
            hero.encode_video(tmp_path / name)


def test_videos_encoded_together_equal_each_alone_in_fewer_rows(hero: Hero, engine: NumpyEngine) -> None:
    lines = tuple(Subtitle(2.0 * n, 2.0 * n + 2, f"words {n}") for n in range(4))
    batch = [VideoFeatures(make_features(clips, clips), lines[: clips // 2]) for clips in (6, 1, 13, 8)]
    engine.calls.clear()
    together = hero.encode_many(batch)
    assert engine.calls == ["cross_modal", "temporal"]
    for video, source in zip(together, batch, strict=True):
        alone = hero.encode_features(source.features, source.subtitles)
        np.testing.assert_allclose(video.clip_embeddings, alone.clip_embeddings, rtol=1e-5, atol=1e-5)
        assert video.duration == len(source.features) * 1.5
    assert hero.encode_many([]) == []


def test_a_video_longer_than_the_model_reads_goes_through_windows(hero: Hero) -> None:
    features = make_features(57)
    video = hero.encode_features(features, [Subtitle(0, 80, "all along")], duration=85.0)
    assert video.clip_embeddings.shape == (57, HIDDEN)
    head = hero.encode_features(features[:20], [Subtitle(0, 80, "all along")])
    np.testing.assert_allclose(video.clip_embeddings[:8], head.clip_embeddings[:8], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("features", "duration", "message"),
    [
        (np.zeros((3, FEATURES + 1), np.float32), None, "shape"),
        (np.zeros((0, FEATURES), np.float32), None, "at least one clip"),
        (np.zeros(FEATURES, np.float32), None, "shape"),
        (np.full((3, FEATURES), np.inf, np.float32), None, "not finite"),
        (np.zeros((3, FEATURES), np.float32), 0.0, "duration"),
        (np.zeros((3, FEATURES), np.float32), float("nan"), "duration"),
    ],
)
def test_features_that_cannot_be_used(hero: Hero, features: np.ndarray, duration: float | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        hero.encode_features(features, duration=duration)


def test_queries(hero: Hero, engine: NumpyEngine) -> None:
    first, second = hero.encode_queries(["a red gem", "  the robot climbs "])
    assert engine.calls == ["query"]
    assert (first.text, first.vector.shape, first.span_vector.shape) == ("a red gem", (HIDDEN,), (HIDDEN,))
    np.testing.assert_allclose(hero.encode_query("the robot climbs").vector, second.vector, rtol=1e-6)
    assert hero.encode_queries([]) == []


@pytest.mark.parametrize("text", ["", "  ", "\n\t", None, 3, b"bytes"])
def test_what_is_no_sentence_is_no_query(hero: Hero, text: object) -> None:
    with pytest.raises(InputError, match="query is"):
        hero.encode_query(text)  # type: ignore[arg-type]


def test_one_string_is_no_list_of_queries(hero: Hero) -> None:
    with pytest.raises(InputError, match="use encode_query"):
        hero.encode_queries("a robot")


def test_a_query_that_is_too_long_is_cut_with_a_log_message(hero: Hero, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "hero_sdk"):
        long = hero.encode_query("x" * 100)
    assert "101 tokens and the model reads 32" in caplog.text
    np.testing.assert_array_equal(long.vector, hero.encode_query("x" * 31).vector)


def test_moments_of_one_video_need_no_corpus(hero: Hero, videos: list[Path], tmp_path: Path) -> None:
    video = hero.encode_video(videos[0])
    moments = hero.moments("here it is", video, 4)
    assert 0 < len(moments) <= 4
    assert moments == hero.moments(hero.encode_query("here it is"), video, 4)
    assert all(0 <= moment.start < moment.end <= video.duration for moment in moments)
    corpus = hero.corpus(tmp_path)
    corpus.add_encoded("one", video)
    for found, expected in zip(corpus.search("here it is", 4), moments, strict=True):
        assert (found.start, found.end, found.subtitle) == (expected.start, expected.end, expected.subtitle)
        assert found.score == pytest.approx(expected.score, rel=1e-2)  # the corpus keeps half precision


@pytest.mark.parametrize("top_k", [0, -1, 1.5, True, None])
def test_top_k_is_a_positive_integer(hero: Hero, top_k: object) -> None:
    with pytest.raises(InputError, match="top_k"):
        hero.moments("a robot", hero.encode_features(make_features(3)), top_k)  # type: ignore[arg-type]


def test_a_bundle_without_a_graph_says_so(videos: list[Path]) -> None:
    hero = Hero(NumpyEngine(make_manifest(graphs=("query",))))
    assert hero.encode_query("a robot").vector.shape == (HIDDEN,)
    with pytest.raises(BundleError, match=r"has the graphs .'query'. and this call needs 'frames'"):
        hero.encode_video(videos[0])


def test_closing_closes_the_engine(engine: NumpyEngine) -> None:
    with Hero(engine) as hero:
        assert hero.manifest is engine.manifest
    assert engine.closed
    hero.close()


def test_load_names_what_is_wrong_with_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json"):
        hero_sdk.load(tmp_path)


def test_a_long_video_of_real_frames(hero: Hero, tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mp4", ["red", "blue"] * 10, seconds_each=3.0)
    video = hero.encode_video(path)
    assert video.clip_embeddings.shape == (40, HIDDEN)
    assert video.duration == pytest.approx(60.0)


def test_subtitles_inside_the_file_are_read_when_none_lies_beside_it(hero: Hero, tmp_path: Path) -> None:
    path = write_subtitled_video(tmp_path / "a.mkv", [0.0, 1.0, 2.0, 3.0], subtitles=[(0.0, 1.0, "inside")])
    assert [line.text for line in hero.encode_video(path).subtitles] == ["inside"]
    write_srt(tmp_path / "a.srt", ["beside"])
    assert [line.text for line in hero.encode_video(path).subtitles] == ["beside"]


def test_queries_and_videos_of_another_width_are_refused(hero: Hero, tmp_path: Path) -> None:
    video = hero.encode_features(make_features(4))
    corpus = hero.corpus(tmp_path)
    corpus.add_encoded("a", video)
    good, bad = np.ones(HIDDEN, np.float32), np.ones(HIDDEN + 1, np.float32)
    for query in (Query("a robot", bad, good), Query("a robot", good, bad)):
        for search in (
            lambda query: hero.moments(query, video),
            corpus.search,
            lambda query: corpus.search(query, exact=True),
            corpus.search_videos,
        ):
            with pytest.raises(InputError, match=rf"'a robot' has the shape \({HIDDEN + 1},\).*{HIDDEN}"):
                search(query)
    for shape in ((3, HIDDEN + 1), (HIDDEN,)):
        with pytest.raises(InputError, match=r"clip embeddings of shape"):
            hero.moments("a robot", EncodedVideo(np.ones(shape, np.float32), 1.5, 4.5, ()))
    with pytest.raises(InputError, match="video id is 3"):
        corpus.search("a robot", videos=["a", 3])  # type: ignore[list-item]


def test_an_engine_with_a_tokenizer_that_cannot_be_used_is_closed(engine: NumpyEngine) -> None:
    engine.tokenizer_json = "{}"
    with pytest.raises(BundleError, match="tokenizer cannot be read"):
        Hero(engine)
    assert engine.closed
