"""The losses against their formulas, written out one query, one video and one clip at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hero_train.losses import (
    IGNORED_TARGET,
    RetrievalLossConfig,
    clip_loss,
    ranking_losses,
    retrieval_loss,
    span_loss,
)

QUERIES, VIDEOS, CLIPS = 9, 4, 6
OWNER = torch.tensor([0, 0, 1, 2, 2, 2, 3, 3, 1])
UNKNOWN = (IGNORED_TARGET, IGNORED_TARGET)


def seeded(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64) * 2 - 1


def close(actual: Tensor, expected: list[float] | float) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def negatives_by_loops(similarity: Tensor, owner: Tensor) -> list[tuple[float, list[float], list[float]]]:
    """Of each query: its positive, the scores of other videos, the scores of other videos' queries with its video."""
    found = []
    for query in range(len(owner)):
        own = int(owner[query])
        videos = [float(similarity[query, video]) for video in range(similarity.shape[1]) if video != own]
        queries = [float(similarity[other, own]) for other in range(len(owner)) if int(owner[other]) != own]
        found.append((float(similarity[query, own]), videos, queries))
    return found


def hinge(positive: float, negative: float) -> float:
    return max(0.0, 0.1 + negative - positive)


def lse(positive: float, negative: float) -> float:
    return math.log(1 + math.exp(negative - positive))


@pytest.mark.parametrize(("ranking", "formula"), [("hinge", hinge), ("lse", lse)])
def test_ranking_is_the_mean_over_all_negatives(ranking: str, formula: Callable[[float, float], float]) -> None:
    similarity = seeded(QUERIES, VIDEOS)
    actual = ranking_losses(similarity, OWNER, RetrievalLossConfig(ranking=ranking))  # type: ignore[arg-type]
    pairs = negatives_by_loops(similarity, OWNER)
    close(actual[0], [sum(formula(positive, score) for score in videos) / len(videos) for positive, videos, _ in pairs])
    close(actual[1], [sum(formula(positive, score) for score in scores) / len(scores) for positive, _, scores in pairs])


def test_the_margin_is_the_hinges() -> None:
    similarity = torch.tensor([[0.5, 0.3], [0.0, 0.9]], dtype=torch.float64)
    owner = torch.tensor([0, 1])
    for margin, expected in ((0.1, [0.0, 0.0]), (0.3, [0.1, 0.0]), (1.0, [0.8, 0.1])):
        close(ranking_losses(similarity, owner, RetrievalLossConfig(margin=margin))[0], expected)


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_nce_is_the_cross_entropy_of_the_positive_among_its_negatives(scale: float) -> None:
    similarity = seeded(QUERIES, VIDEOS)
    actual = ranking_losses(similarity, OWNER, RetrievalLossConfig(ranking="nce", scale=scale))

    def cross_entropy(positive: float, scores: list[float]) -> float:
        weights = [math.exp(scale * score) for score in [positive, *scores]]
        return -math.log(weights[0] / sum(weights))

    pairs = negatives_by_loops(similarity, OWNER)
    close(actual[0], [cross_entropy(positive, videos) for positive, videos, _ in pairs])
    close(actual[1], [cross_entropy(positive, queries) for positive, _, queries in pairs])


@pytest.mark.parametrize("pool", [1, 2, 5, 100])
@pytest.mark.parametrize(("ranking", "formula"), [("hinge", hinge), ("lse", lse)])
def test_the_highest_scoring_negatives_weigh_more(
    ranking: str, formula: Callable[[float, float], float], pool: int
) -> None:
    similarity = seeded(QUERIES, VIDEOS)
    config = RetrievalLossConfig(ranking=ranking, hard_negatives=True, hard_pool=pool, hard_weight=7.0)  # type: ignore[arg-type]
    actual = ranking_losses(similarity, OWNER, config)

    def weighted(positive: float, scores: list[float]) -> float:
        ordered = sorted(scores, reverse=True)
        return sum(
            (7.0 if rank < pool else 0.1) * formula(positive, score) for rank, score in enumerate(ordered)
        ) / len(ordered)

    pairs = negatives_by_loops(similarity, OWNER)
    close(actual[0], [weighted(positive, videos) for positive, videos, _ in pairs])
    close(actual[1], [weighted(positive, queries) for positive, _, queries in pairs])


def test_a_videos_own_queries_are_no_negatives() -> None:
    """Each query scores its own video low and the other query of that video scores it high: only the videos matter."""
    similarity = torch.tensor([[0.0, 0.0], [0.9, 0.0], [0.0, 0.5]], dtype=torch.float64)
    _, against_queries = ranking_losses(similarity, torch.tensor([0, 0, 1]), RetrievalLossConfig())
    close(against_queries, [0.1, 0.0, 0.0])


@pytest.mark.parametrize("ranking", ["hinge", "lse", "nce"])
def test_a_single_video_has_no_negative(ranking: str) -> None:
    similarity = seeded(3, 1).requires_grad_()
    config = RetrievalLossConfig(ranking=ranking)  # type: ignore[arg-type]
    for part in ranking_losses(similarity, torch.zeros(3, dtype=torch.long), config):
        close(part, [0.0, 0.0, 0.0])


@pytest.mark.parametrize("ranking", ["hinge", "lse", "nce"])
def test_a_video_that_owns_all_queries_has_no_negative_query(ranking: str) -> None:
    """As when a view is drawn that one video of the batch only has queries for."""
    similarity = seeded(3, 2).requires_grad_()
    config = RetrievalLossConfig(ranking=ranking)  # type: ignore[arg-type]
    against_videos, against_queries = ranking_losses(similarity, torch.zeros(3, dtype=torch.long), config)
    close(against_queries, [0.0, 0.0, 0.0])
    (against_videos + against_queries).sum().backward()
    assert similarity.grad is not None
    assert similarity.grad.isfinite().all()


def test_span_loss_is_the_cross_entropy_of_start_and_end() -> None:
    start, end = seeded(4, CLIPS), seeded(CLIPS, 4).T
    targets = torch.tensor([(0, 2), (5, 5), UNKNOWN, (3, 4)])

    def cross_entropy(logits: Tensor, target: int) -> float:
        return math.log(sum(math.exp(value) for value in logits.tolist())) - float(logits[target])

    expected = [
        0.0 if first == IGNORED_TARGET else cross_entropy(start[row], first) + cross_entropy(end[row], last)
        for row, (first, last) in enumerate(targets.tolist())
    ]
    close(span_loss(start, end, targets), expected)


def clip_loss_by_loops(cosine: Tensor, targets: Tensor, owner: Tensor, scale: float) -> list[float]:
    losses = []
    for query, (first, last) in enumerate(targets.tolist()):
        if first == IGNORED_TARGET:
            losses.append(0.0)
            continue
        weights = {
            (video, clip): math.exp(scale * float(cosine[query, video, clip]))
            for video in range(cosine.shape[1])
            for clip in range(cosine.shape[2])
        }
        shares = [weights[int(owner[query]), clip] / sum(weights.values()) for clip in range(first, last + 1)]
        losses.append(-sum(map(math.log, shares)) / len(shares))
    return losses


def batch_with_ends() -> tuple[Tensor, Tensor]:
    """Cosines of videos of 6, 4, 5 and 2 clips, and moments within them, one of them unknown."""
    cosine = seeded(QUERIES, VIDEOS, CLIPS)
    for video, length in enumerate((6, 4, 5, 2)):
        cosine[:, video, length:] = -1e4
    targets = [(0, 0), (2, 5), (1, 3), (0, 4), UNKNOWN, (2, 3), (0, 1), (1, 1), (3, 3)]
    return cosine, torch.tensor(targets)


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_clip_loss_is_the_cross_entropy_of_the_moments_clips_among_all_clips(scale: float) -> None:
    cosine, targets = batch_with_ends()
    close(clip_loss(cosine, targets, OWNER, scale), clip_loss_by_loops(cosine, targets, OWNER, scale))


def test_an_unknown_moment_gives_no_gradient_and_no_nan() -> None:
    cosine, targets = batch_with_ends()
    cosine.requires_grad_()
    clip_loss(cosine, targets, OWNER, 20.0).sum().backward()
    assert cosine.grad is not None
    assert cosine.grad.isfinite().all()
    changed = cosine.grad.abs().sum(dim=(1, 2)) > 0
    assert changed.tolist() == [first != IGNORED_TARGET for first, _ in targets.tolist()]


def test_the_whole_loss_is_the_weighted_sum_of_its_parts() -> None:
    cosine, targets = batch_with_ends()
    start, end = seeded(QUERIES, CLIPS), -seeded(QUERIES, CLIPS)
    config = RetrievalLossConfig(span_weight=0.5, video_weight=2.0, query_weight=3.0, clip_weight=5.0, scale=4.0)
    loss = retrieval_loss(cosine, start, end, targets, OWNER, config)
    pairs = negatives_by_loops(cosine.amax(dim=-1), OWNER)
    known = QUERIES - 1
    video = sum(sum(hinge(positive, score) for score in scores) / len(scores) for positive, scores, _ in pairs)
    query = sum(sum(hinge(positive, score) for score in scores) / len(scores) for positive, _, scores in pairs)
    clip = sum(clip_loss_by_loops(cosine, targets, OWNER, 4.0))
    close(loss.span, 0.5 * float(span_loss(start, end, targets).sum()) / known)
    close(loss.video, 2.0 * video / QUERIES)
    close(loss.query, 3.0 * query / QUERIES)
    close(loss.clip, 5.0 * clip / known)
    close(loss.total, sum(map(float, (loss.span, loss.video, loss.query, loss.clip))))


def test_the_span_loss_leaves_out_what_nobody_marked() -> None:
    cosine, targets = batch_with_ends()
    start, end = seeded(QUERIES, CLIPS), -seeded(QUERIES, CLIPS)
    marked = torch.arange(QUERIES) % 3 == 0
    config = RetrievalLossConfig(clip_weight=1.0)
    whole = retrieval_loss(cosine, start, end, targets, OWNER, config)
    loss = retrieval_loss(cosine, start, end, targets, OWNER, config, marked)
    counted = marked & (targets[:, 0] != IGNORED_TARGET)
    close(loss.span, config.span_weight * float(span_loss(start, end, targets)[counted].mean()))
    close(loss.clip, float(whole.clip))
    close(loss.video, float(whole.video))


def test_parts_may_be_left_out() -> None:
    cosine, targets = batch_with_ends()
    loss = retrieval_loss(cosine, None, None, targets, OWNER, RetrievalLossConfig())
    assert float(loss.span) == float(loss.clip) == 0.0
    assert float(loss.total) == float(loss.video + loss.query) > 0.0


def test_no_known_moment_leaves_the_ranking() -> None:
    cosine, _ = batch_with_ends()
    targets = torch.full((QUERIES, 2), IGNORED_TARGET)
    start = seeded(QUERIES, CLIPS)
    loss = retrieval_loss(cosine, start, start, targets, OWNER, RetrievalLossConfig(clip_weight=1.0))
    assert float(loss.span) == float(loss.clip) == 0.0
    assert loss.total.isfinite()
