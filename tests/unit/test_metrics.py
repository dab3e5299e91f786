"""Recalls of hand-made results, and chance against drawing at random many times."""

from __future__ import annotations

import numpy as np
import pytest

from hero_sdk.manifest import MomentSpec
from hero_sdk.spans import search_spans
from hero_train.metrics import IOUS, RANKS, Prediction, QueryResult, chance, recalls, recalls_by_type

HIT, NEAR, MISS = (10.0, 20.0), (10.0, 26.0), (0.0, 9.0)
"""With the annotated moment 10 to 20 s an IoU of 1, of 0.625 and of 0."""


def result(
    *,
    videos: tuple[int, ...] = (0,),
    corpus: tuple[tuple[int, tuple[float, float]], ...] = (),
    own: tuple[tuple[float, float], ...] = (),
    kind: str = "vt",
) -> QueryResult:
    """A query about 10 to 20 s of video 0."""
    return QueryResult(
        type=kind,
        video=0,
        moment=(10.0, 20.0),
        videos=videos,
        corpus_moments=[Prediction(video, *span) for video, span in corpus],
        video_moments=[Prediction(0, *span) for span in own],
    )


def test_a_perfect_search() -> None:
    metrics = recalls([result(corpus=((0, HIT),), own=(HIT,))])
    assert len(metrics) == len(RANKS) + 2 * len(RANKS) * len(IOUS)
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


def annotated(video: int, moment: tuple[float, float]) -> QueryResult:
    return QueryResult("vt", video, moment, videos=(), corpus_moments=(), video_moments=())


def test_chance_is_what_drawing_at_random_reaches() -> None:
    """Recalls of 4000 random searches, which draw from the moments that the real search returns."""
    queries = [annotated(0, (3.0, 8.0)), annotated(1, (0.0, 4.5)), annotated(2, (0.0, 3.0)), annotated(0, (0.0, 1.0))]
    moments = all_moments()
    rng = np.random.default_rng(1)
    rounds = 4000
    simulated: dict[str, float] = {}
    for _ in range(rounds):
        results = []
        for query in queries:
            drawn = [Prediction(*moments[place]) for place in rng.permutation(len(moments))]
            own = [moment for moment in drawn if moment.video == query.video]
            videos = rng.permutation(len(CLIPS)).tolist()
            results.append(QueryResult("vt", query.video, query.moment, videos, drawn, own))
        for name, value in recalls(results).items():
            simulated[name] = simulated.get(name, 0.0) + value / rounds
    expected = chance(queries, CLIPS, DURATIONS, INTERVAL, MOMENT)
    assert expected.keys() == simulated.keys()
    for name, value in expected.items():
        # Five standard errors of a mean over 4 queries per round, at the worst.
        assert simulated[name] == pytest.approx(value, abs=5 * 0.5 / (rounds * len(queries)) ** 0.5), name
    assert 0.0 < expected["VCMR/R@1/IoU=0.7"] < expected["SVMR/R@1/IoU=0.7"] < 1.0


def test_chance_counts_the_spans_that_search_can_return() -> None:
    """Two of the 3 + 2 + 1 spans of 3 to 5 clips match."""
    expected = chance([annotated(0, (0.0, 4.5))], [5], [7.5], INTERVAL, MOMENT)
    assert expected["SVMR/R@1/IoU=0.7"] == pytest.approx(2 / 6)
    assert expected["SVMR/R@5/IoU=0.7"] == 1.0
    assert expected["VR/R@1"] == 1.0


def test_chance_of_a_moment_that_no_span_matches_is_zero() -> None:
    expected = chance([annotated(0, (0.0, 0.5))], CLIPS, DURATIONS, INTERVAL, MOMENT)
    assert {value for name, value in expected.items() if not name.startswith("VR")} == {0.0}
