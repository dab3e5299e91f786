"""Searching a split for its queries: what is ranked, with and without suppression, and what counts as not found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hero_sdk.rows import RowGeometry, Segment, VideoInput
from hero_sdk.spans import temporal_iou
from hero_train.data.annotations import MomentQuery
from hero_train.data.corpus import CorpusVideo
from hero_train.errors import DataError
from hero_train.evaluate import (
    RetrievalPredictions,
    encode_corpus,
    encode_query_tokens,
    evaluate_retrieval,
    search_corpus,
)
from hero_train.metrics import METRICS
from hero_train.model.hero import HeroModel
from hero_train.model.layers import initialise
from tests.tiny_training import tiny_config

GEOMETRY = RowGeometry(32, 16, 32, query_tokens=16)
CLIPS = (9, 5, 7)
CUT = 2
"""This video ends before its last clip does."""


def int32(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def make_corpus(
    *moments: tuple[tuple[float, float], ...], clips: tuple[int, ...] = CLIPS, interval: float = 1.5
) -> list[CorpusVideo]:
    """A few videos, and a query with these moments about each of them."""
    rng = np.random.default_rng(0)
    corpus = []
    for number, count in enumerate(clips):
        features = rng.standard_normal((count, 6), dtype=np.float32)
        segment = Segment(np.arange(count, dtype=np.int32), int32(2, 5 + number))
        duration = count * interval - (0.5 if number == CUT else 0.0)
        corpus.append(CorpusVideo(f"video {number}", duration, VideoInput(features, (segment,)), ()))
        for place, marked in enumerate(moments):
            query = MomentQuery(f"{number}-{place}", "x", f"video {number}", marked, "v" if place else "t")
            corpus[-1].ask(query, int32(0, 20 + number, 7 + place), interval, "outward")
    return corpus


@pytest.fixture(scope="module")
def model() -> HeroModel:
    torch.manual_seed(0)
    model = HeroModel(tiny_config(min_span_clips=1, max_span_clips=4, hidden_dropout=0.5))
    initialise(model, 0.3)
    return model.train()


@pytest.fixture(scope="module")
def found(model: HeroModel) -> RetrievalPredictions:
    return search_corpus(model, make_corpus(((0.0, 3.0),), ((1.5, 4.5),)), GEOMETRY)


def test_there_is_a_result_for_every_query(found: RetrievalPredictions) -> None:
    assert found.suppressed is not None
    for results in (found.results, found.suppressed):
        assert [(one.query_id, one.video, one.type) for one in results] == [
            (f"{video}-{place}", video, kind) for video in range(3) for place, kind in enumerate("tv")
        ]
    assert found.video_ids == ["video 0", "video 1", "video 2"]
    assert found.searched.clips == list(CLIPS)


def test_without_suppression_every_moment_is_ranked(found: RetrievalPredictions) -> None:
    """Spans of one to four clips, each once and within its video, until the hundred are full."""
    possible = [sum(clips - length + 1 for length in range(1, 5)) for clips in CLIPS]
    for result in found.results:
        assert len(result.video_moments) == possible[result.video]
        assert set(result.video_moments.video) == {result.video}
        assert len(result.corpus_moments) == sum(possible) <= 100
        for ranking in (result.corpus_moments, result.video_moments):
            assert (np.diff(ranking.score) <= 0).all()
            assert (ranking.times[:, 1] <= np.array(found.searched.durations)[ranking.video]).all()
        assert result.corpus_moments.times[result.corpus_moments.video == CUT].max() == CLIPS[CUT] * 1.5 - 0.5


def test_with_suppression_no_moment_overlaps_a_better_one_of_its_video(found: RetrievalPredictions) -> None:
    assert found.suppressed is not None
    for plain, kept in zip(found.results, found.suppressed, strict=True):
        assert 0 < len(kept.corpus_moments) < len(plain.corpus_moments)
        assert kept.corpus_moments.times[0].tolist() == plain.corpus_moments.times[0].tolist()
        ranking = kept.corpus_moments
        for place in range(len(ranking)):
            rivals = ranking.times[:place][ranking.video[:place] == ranking.video[place]]
            # A video's end cuts its moments after they were suppressed.
            assert ranking.video[place] == CUT or (temporal_iou(rivals, ranking.times[place]) <= 0.5).all()


def test_videos_are_ranked_by_their_similarity_as_it_is(model: HeroModel, found: RetrievalPredictions) -> None:
    """The maximum over clips of the cosine, computed here from the embeddings."""
    corpus = make_corpus(((0.0, 3.0),), ((1.5, 4.5),))
    model.eval()
    clips = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in encode_corpus(model, corpus, GEOMETRY)]
    vectors, _ = encode_query_tokens(model, [query.tokens for video in corpus for query in video.queries], GEOMETRY)
    model.train()
    for vector, result in zip(vectors, found.results, strict=True):
        cosine = [float((part @ vector).max() / np.linalg.norm(vector)) for part in clips]
        assert result.videos.video.tolist() == sorted(range(3), key=lambda place: -cosine[place])
        np.testing.assert_allclose(result.videos.score, sorted(cosine, reverse=True), atol=1e-5)


def test_evaluation_drops_nothing_and_leaves_the_mode_as_it_was(model: HeroModel) -> None:
    assert model.training
    first, second = (evaluate_retrieval(model, make_corpus(((0.0, 3.0),)), GEOMETRY) for _ in range(2))
    assert first == second
    assert model.training


def test_a_protocol_without_suppression_ranks_once(model: HeroModel) -> None:
    plain = HeroModel(tiny_config(min_span_clips=1, max_span_clips=4, nms_iou=1.0))
    plain.load_state_dict(model.state_dict())
    found = search_corpus(plain, make_corpus(((0.0, 3.0),)), GEOMETRY)
    assert found.suppressed is None
    metrics = evaluate_retrieval(plain, make_corpus(((0.0, 3.0),)), GEOMETRY).metrics
    assert set(metrics["all"]) == {name for name in METRICS if not name.endswith("/NMS")}


def test_queries_about_whole_videos_are_evaluated_by_video_retrieval_alone(model: HeroModel) -> None:
    """MSR-VTT: no metric of moments, and none of chance."""
    corpus = make_corpus((), interval=2.0)
    found = evaluate_retrieval(model, corpus, GEOMETRY)
    names = {name for name in METRICS if name.startswith("VR/")}
    assert set(found.metrics["all"]) == set(found.baselines["chance"]) == names
    assert found.baselines["chance"]["VR/R@1"] == pytest.approx(1 / 3)
    for result in search_corpus(model, corpus, GEOMETRY).results:
        assert len(result.corpus_moments) == len(result.video_moments) == 0


def test_clips_of_two_seconds_make_moments_of_two_seconds(model: HeroModel) -> None:
    slow = HeroModel(tiny_config(min_span_clips=1, max_span_clips=4, clip_interval=2.0))
    slow.load_state_dict(model.state_dict())
    found = search_corpus(slow, make_corpus(((0.0, 3.0),), interval=2.0), GEOMETRY)
    for result in found.results:
        times, duration = result.video_moments.times, found.searched.durations[result.video]
        assert np.isin(times, [*np.arange(0.0, duration, 2.0), duration]).all()


def test_a_moment_after_the_last_clip_that_is_read_counts_as_not_found(model: HeroModel) -> None:
    """Leaving it out would make the others look like all there is."""
    corpus = make_corpus(((0.0, 3.0),), ((30.0, 33.0),))
    found = evaluate_retrieval(model, corpus, GEOMETRY)
    assert found.counts == {"queries": 6, "videos": 3}
    assert found.metrics["t"]["SVMR/R@100/IoU=0.5"] == 1.0
    assert found.metrics["v"]["SVMR/R@100/IoU=0.5"] == found.baselines["chance/v"]["SVMR/R@100/IoU=0.5"] == 0.0
    assert found.metrics["all"]["SVMR/R@100/IoU=0.5"] == 0.5


def test_a_split_without_query_is_refused(model: HeroModel) -> None:
    with pytest.raises(DataError, match="no query to evaluate"):
        evaluate_retrieval(model, make_corpus(), GEOMETRY)
