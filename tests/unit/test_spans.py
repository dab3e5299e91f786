"""Span search equals torch's convolution and softmax, and a search by three plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hero_sdk.errors import InputError
from hero_sdk.manifest import MomentSpec
from hero_sdk.spans import (
    Spans,
    best_spans,
    non_maximum_suppression,
    search_spans,
    span_logits,
    temporal_iou,
    video_similarity,
)

HIDDEN = 8
TAPS = MomentSpec(start_taps=(0.3, -0.1, 0.9, 0.2, 0.05), end_taps=(-0.2, 0.4, 0.7, 0.1, 0.6), min_clips=2, max_clips=4)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_logits_are_those_of_torch_conv1d_of_each_video_alone() -> None:
    lengths = [7, 1, 12, 3]
    clips, queries = random(sum(lengths), HIDDEN), random(2, HIDDEN, seed=1)
    start, end = span_logits(queries, clips, TAPS, lengths)
    assert start.shape == end.shape == (2, 4, 12)
    for video, embeddings in enumerate(np.split(clips, np.cumsum(lengths)[:-1])):
        similarity = torch.from_numpy(queries @ embeddings.T)[:, None]
        for logits, taps in ((start, TAPS.start_taps), (end, TAPS.end_taps)):
            expected = torch.nn.functional.conv1d(similarity, torch.tensor(taps)[None, None], padding=2)[:, 0]
            np.testing.assert_allclose(logits[:, video, : len(embeddings)], expected, rtol=1e-5, atol=1e-5)
            assert np.isneginf(logits[:, video, len(embeddings) :]).all()


def test_taps_are_not_flipped() -> None:
    clips = np.eye(5, dtype=np.float32)
    moment = MomentSpec(start_taps=(0, 0, 0, 0, 1), end_taps=(1, 0, 0, 0, 0))
    start, end = span_logits(np.array([0, 0, 1, 0, 0], np.float32), clips, moment)
    assert start.tolist() == [[1, 0, 0, 0, 0]]
    assert end.tolist() == [[0, 0, 0, 0, 1]]


def test_a_video_gets_the_same_logits_alone_and_beside_others() -> None:
    clips, query = random(20, HIDDEN), random(HIDDEN, seed=1)
    together, _ = span_logits(query, clips, TAPS, [5, 15])
    alone, _ = span_logits(query, clips[:5], TAPS)
    np.testing.assert_allclose(together[0, :5], alone[0], rtol=1e-6)


def test_probabilities_are_those_of_torch_softmax() -> None:
    start, end = random(9), random(9, seed=1)
    spans = best_spans(start, end, TAPS)
    p_start, p_end = (torch.from_numpy(logits).softmax(-1).numpy() for logits in (start, end))
    np.testing.assert_allclose(spans.score, p_start[spans.first] * p_end[spans.last], rtol=1e-5)
    lengths = spans.last - spans.first + 1
    assert (lengths.min(), lengths.max()) == (2, 4)
    assert len(spans) == 8 + 7 + 6
    assert (np.diff(spans.score) <= 0).all()


def test_a_limit_gives_the_head_of_all_even_with_ties() -> None:
    start = end = np.zeros((3, 6), np.float32)
    every = best_spans(start, end, TAPS)
    head = best_spans(start, end, TAPS, limit=7)
    assert len(head) == 7
    for name in ("video", "first", "last"):
        assert getattr(head, name).tolist() == getattr(every, name)[:7].tolist()
    assert head.video.tolist() == [0] * 7


def test_a_video_shorter_than_the_shortest_span_is_one_span() -> None:
    moment = MomentSpec(TAPS.start_taps, TAPS.end_taps, min_clips=3, max_clips=5)
    start, end = span_logits(random(HIDDEN), random(7, HIDDEN), moment, [2, 1, 4])
    spans = best_spans(start, end, moment)
    found = sorted(zip(spans.video.tolist(), spans.first.tolist(), spans.last.tolist(), strict=True))
    assert found == [(0, 0, 1), (1, 0, 0), (2, 0, 2), (2, 0, 3), (2, 1, 3)]


def test_similarity_is_the_best_cosine_with_torch_normalize() -> None:
    clips, queries = random(9, HIDDEN), random(3, HIDDEN, seed=1)
    clips[4] = 0.0
    clips[5] *= 1e-6
    normal = torch.nn.functional.normalize
    cosine = normal(torch.from_numpy(queries), eps=1e-5) @ normal(torch.from_numpy(clips), eps=1e-5).T
    expected = torch.stack([cosine[:, :4].amax(1), cosine[:, 4:6].amax(1), cosine[:, 6:].amax(1)], dim=1)
    found = video_similarity(queries, clips, [4, 2, 3])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(video_similarity(queries[1], clips, [4, 2, 3]), found[1], rtol=1e-6)
    assert video_similarity(clips[0], clips).tolist() == [pytest.approx(1.0)]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 4), (2, 6), 2 / 6),
        ((0, 2), (2, 4), 0.0),
        ((1, 1), (1, 1), 0.0),
        ((0, 3), (0, 3), 1.0),
        ((5, 6), (0, 1), 0.0),
    ],
)
def test_temporal_iou(first: tuple[float, float], second: tuple[float, float], expected: float) -> None:
    assert temporal_iou(first, second) == pytest.approx(expected)
    assert temporal_iou([second], [first, first]).tolist() == pytest.approx([expected, expected])


def test_suppression_is_per_video_strict_and_stable() -> None:
    spans = Spans(*map(np.asarray, ([0, 0, 1, 0, 0], [0, 1, 0, 0, 4], [3, 4, 3, 1, 5], [0.9, 0.8, 0.7, 0.6, 0.5])))
    kept = non_maximum_suppression(spans, 0.5)
    # Of video 0, [1, 5) overlaps [0, 4) by 3/5; [0, 2) overlaps it by exactly 1/2, which is not above the threshold.
    assert kept.score.tolist() == [0.9, 0.7, 0.6, 0.5]
    assert non_maximum_suppression(spans, 1.0).score.tolist() == spans.score.tolist()
    assert non_maximum_suppression(spans, 0.5, limit=2).score.tolist() == [0.9, 0.7]
    assert len(non_maximum_suppression(spans.take(slice(0)), 0.5)) == 0


def test_times_are_seconds_inside_the_video() -> None:
    spans = Spans(np.array([0, 1]), np.array([2, 0]), np.array([4, 1]), np.array([0.5, 0.4]))
    assert spans.times(1.5).tolist() == [[3.0, 7.5], [0.0, 3.0]]
    assert spans.times(1.5, [7.0, 9.0]).tolist() == [[3.0, 7.0], [0.0, 3.0]]


@pytest.mark.parametrize("lengths", [[3, 3], [0, 5], [], [[5]], [6, -1]])
def test_lengths_must_fit_the_clips(lengths: list[int]) -> None:
    with pytest.raises(InputError, match="for 5 clips"):
        video_similarity(random(HIDDEN), random(5, HIDDEN), lengths)


def correlate_by_loops(values: list[float], taps: tuple[float, ...]) -> list[float]:
    padded = [0.0, 0.0, *values, 0.0, 0.0]
    return [sum(tap * padded[clip + offset] for offset, tap in enumerate(taps)) for clip in range(len(values))]


def softmax_by_loops(logits: list[float]) -> list[float]:
    exponentials = [math.exp(logit - max(logits)) for logit in logits]
    return [value / sum(exponentials) for value in exponentials]


def search_by_loops(
    query: np.ndarray, span: np.ndarray, videos: list[np.ndarray], moment: MomentSpec, top_k: int, video_limit: int
) -> list[tuple[int, int, int, float]]:
    """The protocol in words of one syllable, in float64."""
    scored = []
    for number, clips in enumerate(videos):
        cosines = [float(clip @ query) / (np.linalg.norm(clip) * np.linalg.norm(query)) for clip in clips]
        scored.append((max(cosines), number))
    found = []
    for similarity, number in sorted(scored, key=lambda item: -item[0])[:video_limit]:
        products = [float(clip @ span) for clip in videos[number]]
        start = softmax_by_loops(correlate_by_loops(products, moment.start_taps))
        end = softmax_by_loops(correlate_by_loops(products, moment.end_taps))
        for first in range(len(products)):
            for last in range(len(products)):
                if min(moment.min_clips, len(products)) <= last - first + 1 <= moment.max_clips:
                    score = start[first] * end[last] * math.exp(moment.similarity_scale * (similarity - 1))
                    found.append((number, first, last, score))
    found.sort(key=lambda item: -item[3])
    kept: list[tuple[int, int, int, float]] = []
    for item in found:
        rivals = [other for other in kept if other[0] == item[0]]
        span_of_item = (item[1], item[2] + 1)
        if all(temporal_iou((other[1], other[2] + 1), span_of_item) <= moment.nms_iou for other in rivals):
            kept.append(item)
    return kept[:top_k]


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
    top_k=st.integers(1, 400),
    video_limit=st.integers(1, 6),
    iou=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    shortest=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_search_equals_three_plain_loops(
    lengths: list[int], seed: int, top_k: int, video_limit: int, iou: float, shortest: int
) -> None:
    rng = np.random.default_rng(seed)
    query, span, clips = (rng.standard_normal(shape) for shape in (HIDDEN, HIDDEN, (sum(lengths), HIDDEN)))
    moment = MomentSpec(tuple(rng.standard_normal(5)), tuple(rng.standard_normal(5)), shortest, 6, 5.0, iou)
    found = search_spans(
        *(array.astype(np.float32) for array in (query, span, clips)), lengths, moment, top_k, video_limit=video_limit
    )
    expected = search_by_loops(query, span, np.split(clips, np.cumsum(lengths)[:-1]), moment, top_k, video_limit)
    assert list(zip(found.video, found.first, found.last, strict=True)) == [item[:3] for item in expected]
    known = video_similarity(query.astype(np.float32), clips.astype(np.float32), lengths)
    again = search_spans(
        *(array.astype(np.float32) for array in (query, span, clips)),
        lengths,
        moment,
        top_k,
        video_limit=video_limit,
        similarity=known,
    )
    assert again.score.tolist() == found.score.tolist()
    np.testing.assert_allclose(found.score, [item[3] for item in expected], rtol=2e-4)
    assert (found.score <= 1.0).all()


def test_suppression_that_eats_the_first_candidates_still_gives_enough() -> None:
    """One video whose spans all rank first must not hide the others from the result."""
    clips = random(60 + 40, HIDDEN) * 0.01
    query = random(HIDDEN, seed=3)
    clips[:60] += query
    moment = MomentSpec(TAPS.start_taps, TAPS.end_taps, 1, 30, 20.0, 0.0)
    lengths = [60] + [4] * 10
    found = search_spans(query, query * 0.01, clips, lengths, moment, 40)
    assert len(best_spans(*span_logits(query, clips, moment, lengths), moment)) > 1000
    assert len(found) == 40
    assert len(set(found.video.tolist())) > 5
