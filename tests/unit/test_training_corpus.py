"""A split in memory: each video once, cut to what the model reads, with the queries that can be answered in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hero_sdk.errors import SubtitleError
from hero_sdk.tokens import BEGIN_ID, SEPARATOR_ID, TextTokenizer
from hero_train.data.annotations import MomentQuery
from hero_train.data.corpus import CorpusVideo, build_corpus, read_all_subtitles, without_picture, without_text
from hero_train.data.features import VideoFeatures
from hero_train.errors import DataError
from hero_train.tokenizer import train_tokenizer_json
from tests.tiny_training import tiny_config
from tests.unit.tiny_videos import write_srt

LINES = ["we look for the gem", "here it is", "let us go home"]
CONFIG = tiny_config(clip_limit=5)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer(train_tokenizer_json(LINES, 300))


@pytest.fixture
def subtitles(tmp_path: Path) -> Path:
    """Three lines of three seconds each over the video ``long``."""
    write_srt(tmp_path / "long.srt", LINES)
    return tmp_path


def features(clips: int) -> VideoFeatures:
    return VideoFeatures(np.arange(clips * 2, dtype=np.float32).reshape(clips, 2), clips * 1.5 + 0.2)


FEATURES = {"long": features(8), "short": features(2)}
QUERIES = [
    MomentQuery("0", "who has the gem", "long", ((1.0, 4.0),), "v"),
    MomentQuery("1", "somebody goes", "short", ((0.0, 2.0),), "t"),
    MomentQuery("2", "they go home", "long", ((6.0, 9.0),), "vt"),
    MomentQuery("3", "after the last clip that is read", "long", ((7.5, 9.0),)),
]


@pytest.fixture
def corpus(subtitles: Path, tokenizer: TextTokenizer) -> dict[str, CorpusVideo]:
    return {video.video_id: video for video in build_corpus(QUERIES, FEATURES, subtitles, tokenizer, CONFIG)}


def test_each_video_is_there_once_in_the_order_of_its_first_query(corpus: dict[str, CorpusVideo]) -> None:
    assert list(corpus) == ["long", "short"]
    assert [query.query_id for query in corpus["long"].annotations] == ["0", "2", "3"]
    assert [query.type for query in corpus["long"].queries] == ["v", "vt", "vt"]
    assert corpus["long"].duration == 12.2


def test_a_long_video_is_cut_to_the_clip_limit(corpus: dict[str, CorpusVideo]) -> None:
    video = corpus["long"]
    np.testing.assert_array_equal(video.input.features, FEATURES["long"].features[:5])
    assert max(int(frame) for segment in video.input.segments for frame in segment.frames) == 4
    # 6 to 9 s are clips 4 and 5, of which 4 is read; the moment from 7.5 s on cannot be found.
    assert [(query.first, query.last) for query in video.queries] == [(0, 2), (4, 4), (-1, -1)]
    assert [query.reachable for query in video.queries] == [True, True, False]


def test_queries_and_lines_are_tokenised(corpus: dict[str, CorpusVideo], tokenizer: TextTokenizer) -> None:
    video = corpus["long"]
    for query, text in zip(video.queries, ("who has the gem", "they go home", QUERIES[3].text), strict=True):
        assert query.tokens.tolist() == [BEGIN_ID, *tokenizer.encode(text).tolist()]
    for segment, line in zip(video.input.segments, LINES, strict=True):
        assert segment.tokens.tolist() == [SEPARATOR_ID, *tokenizer.encode(line).tolist()]


def test_lines_can_be_asked_for_where_they_are_spoken(corpus: dict[str, CorpusVideo], tokenizer: TextTokenizer) -> None:
    spoken = corpus["long"].spoken
    assert [query.tokens.tolist() for query in spoken] == [
        [BEGIN_ID, *tokenizer.encode(line).tolist()] for line in LINES
    ]
    assert [(query.first, query.last) for query in spoken] == [(0, 1), (2, 3), (4, 4)]
    assert {query.type for query in spoken} == {"t"}
    assert corpus["short"].spoken == ()


def test_a_line_after_the_last_clip_is_not_asked_for(subtitles: Path, tokenizer: TextTokenizer) -> None:
    config = tiny_config(clip_limit=4)
    (video,) = build_corpus(QUERIES[:1], FEATURES, subtitles, tokenizer, config)
    assert len(video.spoken) == 2


def test_of_several_annotators_the_most_decide_what_is_trained(tokenizer: TextTokenizer) -> None:
    query = MomentQuery("0", "they go", "long", ((0.0, 1.5), (3.0, 6.0), (3.0, 6.0), (6.0, 7.0)))
    (video,) = build_corpus([query], FEATURES, None, tokenizer, CONFIG)
    assert (video.queries[0].first, video.queries[0].last, video.queries[0].marked) == (2, 3, True)
    assert video.annotations == [query]


def test_a_query_about_the_whole_video_is_about_all_clips_and_marks_none(tokenizer: TextTokenizer) -> None:
    (video,) = build_corpus([MomentQuery("0", "they go", "long", ())], FEATURES, None, tokenizer, CONFIG)
    assert (video.queries[0].first, video.queries[0].last, video.queries[0].marked) == (0, 4, False)
    assert video.queries[0].reachable


def test_rounding_reaches_queries_and_lines(subtitles: Path, tokenizer: TextTokenizer) -> None:
    query = MomentQuery("0", "short", "long", ((1.6, 2.9),))
    targets = {
        rounding: build_corpus([query], FEATURES, subtitles, tokenizer, CONFIG, rounding)[0].queries[0]
        for rounding in ("outward", "middle")
    }
    assert (targets["outward"].first, targets["outward"].last) == (1, 2)
    assert (targets["middle"].first, targets["middle"].last) == (1, 1)


def test_a_video_without_subtitles_has_frames_in_all_of_its_segments(corpus: dict[str, CorpusVideo]) -> None:
    (segment,) = corpus["short"].input.segments
    assert segment.frames.tolist() == [0, 1]
    assert segment.tokens.tolist() == [SEPARATOR_ID]


def test_a_query_about_a_video_without_features(tokenizer: TextTokenizer) -> None:
    with pytest.raises(DataError, match="Query 0 is about the video long, which has no features"):
        build_corpus(QUERIES, {"short": FEATURES["short"]}, None, tokenizer, CONFIG)


def test_subtitles_are_found_by_the_videos_id(subtitles: Path) -> None:
    (subtitles / "short.VTT").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nhello\n", encoding="utf-8")
    (subtitles / "unasked.srt").write_text("not read", encoding="utf-8")
    found = read_all_subtitles(subtitles, ["long", "other", "short", "long"])
    assert {name: [line.text for line in lines] for name, lines in found.items()} == {
        "long": LINES,
        "other": [],
        "short": ["hello"],
    }
    assert read_all_subtitles(None, ["long"]) == {"long": ()}


def test_a_subtitle_file_that_cannot_be_read_is_named(subtitles: Path, tokenizer: TextTokenizer) -> None:
    (subtitles / "short.srt").write_text("no times at all", encoding="utf-8")
    with pytest.raises(SubtitleError, match=r"short\.srt has no cue"):
        build_corpus(QUERIES, FEATURES, subtitles, tokenizer, CONFIG)


def test_blanking_takes_one_modality_and_leaves_the_other(corpus: dict[str, CorpusVideo]) -> None:
    video = corpus["long"].input
    silent, dark = without_text(video), without_picture(video)
    np.testing.assert_array_equal(silent.features, video.features)
    assert [segment.tokens.tolist() for segment in silent.segments] == [[SEPARATOR_ID]] * 3
    assert not dark.features.any()
    assert dark.features.shape == video.features.shape
    assert dark.segments == video.segments
    for one, other in zip(silent.segments, video.segments, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
