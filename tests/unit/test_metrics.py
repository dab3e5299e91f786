"""Recalls of hand-made results, and chance against drawing at random many times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hero_sdk.manifest import MomentSpec
from hero_sdk.spans import search_spans
from hero_train.errors import DataError
from hero_train.metrics import (
    METRICS,
    RANKS,
    QueryResult,
    Ranking,
    Searched,
    chance,
    measure_retrieval,
    recalls,
    recalls_by_type,
    right_spans,
)

HIT, NEAR, MISS = (10.0, 20.0), (10.0, 26.0), (0.0, 9.0)
"""With the annotated moment 10 to 20 s an IoU of 1, of 0.625 and of 0."""


def result(
    *,
    videos: tuple[int, ...] = (0,),
    corpus: tuple[tuple[int, tuple[float, float]], ...] = (),
    own: tuple[tuple[float, float], ...] = (),
    kind: str = "vt",
    moments: tuple[tuple[float, float], ...] = ((10.0, 20.0),),
) -> QueryResult:
    """A query about 10 to 20 s of video 0."""
    return QueryResult(
        query_id="q",
        type=kind,
        video=0,
        moments=moments,
        videos=Ranking.of((video, 0, 0, 0) for video in videos),
        corpus_moments=Ranking.of((video, *span, 0) for video, span in corpus),
        video_moments=Ranking.of((0, *span, 0) for span in own),
    )


def test_a_perfect_search() -> None:
    metrics = recalls([result(corpus=((0, HIT),), own=(HIT,))])
    assert set(metrics) == {name for name in METRICS if not name.endswith("/NMS")}
    assert set(metrics.values()) == {1.0}


def test_a_search_that_finds_nothing() -> None:
    assert set(recalls([result(videos=())]).values()) == {0.0}


def test_names_of_the_metrics() -> None:
    assert {"VR/R@1", "SVMR/R@10/IoU=0.5", "VCMR/R@1/IoU=0.7", "VCMR/R@100/IoU=0.5"} <= set(recalls([result()]))


def test_rank_decides_from_where_on_a_hit_counts() -> None:
    metrics = recalls(
        [
            result(
                videos=(3, 4, 5, 6, 0),
                corpus=(*((7, HIT) for _ in range(10)), (0, HIT)),
                own=(*(MISS for _ in range(4)), HIT),
            )
        ]
    )
    assert [metrics[f"VR/R@{rank}"] for rank in RANKS] == [0, 1, 1, 1]
    assert [metrics[f"SVMR/R@{rank}/IoU=0.7"] for rank in RANKS] == [0, 1, 1, 1]
    assert [metrics[f"VCMR/R@{rank}/IoU=0.7"] for rank in RANKS] == [0, 0, 0, 1]


def test_the_threshold_decides_whether_a_moment_counts() -> None:
    metrics = recalls([result(corpus=((0, NEAR),), own=(NEAR,))])
    for task in ("SVMR", "VCMR"):
        assert metrics[f"{task}/R@1/IoU=0.5"] == 1.0
        assert metrics[f"{task}/R@1/IoU=0.7"] == 0.0


@pytest.mark.parametrize(("span", "reached"), [((10.0, 15.0), 1.0), ((10.0, 14.999), 0.0)])
def test_an_iou_equal_to_the_threshold_counts(span: tuple[float, float], reached: float) -> None:
    assert recalls([result(own=(span,))])["SVMR/R@1/IoU=0.5"] == reached


def test_the_right_times_in_the_wrong_video_do_not_count() -> None:
    metrics = recalls([result(corpus=((1, HIT), (0, MISS)))])
    assert metrics["VCMR/R@100/IoU=0.5"] == 0.0


def test_what_comes_after_the_last_rank_does_not_count() -> None:
    metrics = recalls([result(corpus=(*((1, MISS) for _ in range(100)), (0, HIT)), videos=(*range(1, 101), 0))])
    assert metrics["VCMR/R@100/IoU=0.5"] == metrics["VR/R@100"] == 0.0


def test_recall_is_the_mean_over_queries() -> None:
    metrics = recalls([result(own=(HIT,)), result(own=(MISS,)), result(own=(MISS,)), result(own=(MISS, HIT))])
    assert metrics["SVMR/R@1/IoU=0.7"] == 0.25
    assert metrics["SVMR/R@5/IoU=0.7"] == 0.5


def test_query_types_are_told_apart() -> None:
    tables = recalls_by_type([result(kind="v", own=(HIT,)), result(kind="t"), result(kind="v"), result(kind="v")])
    assert set(tables) == {"all", "v", "t"}
    name = "SVMR/R@1/IoU=0.5"
    assert (tables["all"][name], tables["v"][name], tables["t"][name]) == (0.25, pytest.approx(1 / 3), 0.0)


def test_aver_is_the_mean_of_the_first_three_ranks() -> None:
    metrics = recalls([result(videos=(1, 0), own=(MISS,) * 5 + (NEAR,))])
    assert metrics["VR/AveR"] == pytest.approx(2 / 3)
    assert metrics["SVMR/AveR/IoU=0.5"] == pytest.approx(1 / 3)
    assert metrics["SVMR/AveR/IoU=0.7"] == metrics["VCMR/AveR/IoU=0.5"] == 0.0


DIDEMO = ((0.0, 5.0), (0.0, 5.0), (5.0, 10.0), (20.0, 30.0))


@pytest.mark.parametrize(
    ("span", "right"),
    [
        ((0.0, 5.0), True),  # as two of the four annotators
        ((5.0, 10.0), False),  # as one of them
        ((20.0, 30.0), False),
        ((0.0, 10.0), True),  # an IoU of .5 with three
        ((0.0, 10.1), False),
    ],
)
def test_of_several_annotators_two_must_agree(span: tuple[float, float], right: bool) -> None:
    found = recalls([result(moments=DIDEMO, own=(span,), corpus=((0, span),))])
    assert found["SVMR/R@1/IoU=0.5"] == found["VCMR/R@1/IoU=0.5"] == right
    assert right_spans(np.array([span, MISS]), DIDEMO[:1] * 2, 0.5).tolist() == [
        span == (0.0, 5.0) or span == (0.0, 10.0),
        True,
    ]


def test_queries_about_whole_videos_have_no_moment_to_find() -> None:
    """Alone they are measured by VR; beside others the moments of the others are counted."""
    whole = result(moments=(), videos=(1, 0))
    assert set(recalls([whole])) == {name for name in METRICS if name.startswith("VR/")}
    mixed = recalls([whole, result(own=(HIT,))])
    assert mixed["VR/R@1"] == 0.5
    assert mixed["SVMR/R@1/IoU=0.7"] == 1.0


INTERVAL = 1.5
CLIPS, DURATIONS = [8, 5, 2], [11.5, 7.5, 3.0]
MOMENT = MomentSpec((0.0, 1.0, 0.0), (0.0, 1.0, 0.0), min_clips=3, max_clips=5, nms_iou=1.0)


def all_moments() -> list[tuple[int, float, float]]:
    """Everything that search can return, from search itself: no suppression, and as many as there are."""
    rng = np.random.default_rng(0)
    clips = rng.standard_normal((sum(CLIPS), 4)).astype(np.float32)
    vector = rng.standard_normal(4).astype(np.float32)
    spans = search_spans(vector, vector, clips, CLIPS, MOMENT, 10_000)
    times = spans.times(INTERVAL, DURATIONS)
    return [(int(video), float(start), float(end)) for video, (start, end) in zip(spans.video, times, strict=True)]


SEARCHED = Searched(CLIPS, DURATIONS, INTERVAL, MOMENT)


def annotated(video: int, *moments: tuple[float, float], kind: str = "vt") -> QueryResult:
    return QueryResult("q", kind, video, moments, videos=Ranking.of([]))


def test_chance_is_what_drawing_at_random_reaches() -> None:
    """Recalls of 4000 random searches, which draw from the moments that the real search returns."""
    queries = [
        annotated(0, (3.0, 8.0)),
        annotated(1, (0.0, 4.5)),
        annotated(2, (0.0, 3.0)),
        annotated(0, (0.0, 1.0)),
        annotated(0, (0.0, 5.0), (0.0, 5.0), (5.0, 10.0), (0.0, 10.0)),
        annotated(1),
    ]
    moments = all_moments()
    rng = np.random.default_rng(1)
    rounds = 4000
    simulated: dict[str, float] = {}
    for _ in range(rounds):
        results = []
        for query in queries:
            drawn = [(*moments[place], 0.0) for place in rng.permutation(len(moments))]
            results.append(
                replace(
                    query,
                    videos=Ranking.of((video, 0, 0, 0) for video in rng.permutation(len(CLIPS)).tolist()),
                    corpus_moments=Ranking.of(drawn),
                    video_moments=Ranking.of(moment for moment in drawn if moment[0] == query.video),
                )
            )
        for name, value in recalls(results).items():
            simulated[name] = simulated.get(name, 0.0) + value / rounds
    expected = chance(queries, SEARCHED)
    assert expected.keys() == simulated.keys()
    for name, value in expected.items():
        # Five standard errors of a mean over 5 queries per round, at the worst.
        assert simulated[name] == pytest.approx(value, abs=5 * 0.5 / (rounds * 5) ** 0.5), name
    assert 0.0 < expected["VCMR/R@1/IoU=0.7"] < expected["SVMR/R@1/IoU=0.7"] < 1.0


def test_chance_counts_the_spans_that_search_can_return() -> None:
    """Two of the 3 + 2 + 1 spans of 3 to 5 clips match."""
    expected = chance([annotated(0, (0.0, 4.5))], Searched([5], [7.5], INTERVAL, MOMENT))
    assert expected["SVMR/R@1/IoU=0.7"] == pytest.approx(2 / 6)
    assert expected["SVMR/R@5/IoU=0.7"] == 1.0
    assert expected["VR/R@1"] == 1.0


def test_chance_of_a_moment_that_no_span_matches_is_zero() -> None:
    expected = chance([annotated(0, (0.0, 0.5))], SEARCHED)
    assert {value for name, value in expected.items() if not name.startswith("VR")} == {0.0}


def test_chance_of_whole_videos_is_that_of_vr_alone() -> None:
    assert set(chance([annotated(0)], SEARCHED)) == {name for name in METRICS if name.startswith("VR/")}


def test_metrics_with_and_without_suppression_stand_side_by_side_by_type() -> None:
    """The second best moment overlaps the best one; once it is suppressed, the third takes its rank."""
    plain = [result(kind="v", own=(MISS,) * 5 + (HIT,)), result(kind="t", own=(HIT,))]
    kept = [result(kind="v", own=(MISS, HIT)), result(kind="t", own=(HIT,))]
    found = measure_retrieval(plain, kept, Searched([20], [30.0], INTERVAL, MOMENT))
    assert set(found.metrics) == {"all", "v", "t"}
    assert set(found.metrics["all"]) == set(METRICS)
    name = "SVMR/R@5/IoU=0.7"
    assert [found.metrics[group][name] for group in ("all", "v", "t")] == [0.5, 0.0, 1.0]
    assert [found.metrics[group][f"{name}/NMS"] for group in ("all", "v", "t")] == [1.0, 1.0, 1.0]
    assert set(found.baselines) == {"chance", "chance/v", "chance/t"}
    assert not [name for name in found.baselines["chance"] if name.endswith("/NMS")]
    assert found.counts == {"queries": 2, "videos": 1}


def test_a_protocol_without_suppression_has_no_such_metrics() -> None:
    found = measure_retrieval([result()], None, Searched([20], [30.0], INTERVAL, MOMENT))
    assert set(found.metrics["all"]) == {name for name in METRICS if not name.endswith("/NMS")}


def test_no_query_is_an_error() -> None:
    with pytest.raises(DataError, match="no query to evaluate"):
        measure_retrieval([], None, SEARCHED)
