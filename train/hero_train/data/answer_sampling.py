"""Batches of questions or statements, each a pure function of the seed and the step.

The joint batch of several processes is that of one process with as many items.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from hero_train.data.answers import EncodedQuestion, EncodedStatement
from hero_train.data.augmentation import AugmentationConfig, augment_video, crop_video
from hero_train.data.sampling import draw_part, video_rngs
from hero_train.errors import ConfigError, DataError
from hero_train.losses import IGNORED_TARGET

Item = TypeVar("Item", EncodedQuestion, EncodedStatement)


@dataclass(frozen=True)
class AnswerSampling:
    """How batches are drawn.

    Attributes:
        items: questions, or pairs of statements, per batch and process.
        augmentation: noise on the videos that are drawn.
        crop: share of the questions or statements whose video is cut to the moment that decides and some clips around it, where the
            moment is known. What decides is then easier to find, and costs a part of the whole video.
        margin: clips before and after such a moment, at most; each number from 0 on is as likely.
    """

    items: int = 4
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    crop: float = 0.0
    margin: int = 5

    def __post_init__(self) -> None:
        if self.items < 1:
            raise ConfigError(f"sampling.items is {self.items}; expected at least 1.")
        if not 0 <= self.crop <= 1:
            raise ConfigError(f"sampling.crop is {self.crop}; expected a share from 0 to 1.")
        if self.margin < 0:
            raise ConfigError(f"sampling.margin is {self.margin}; expected 0 or more clips.")


@dataclass(frozen=True)
class QuestionSampling(AnswerSampling):
    """How batches of questions are drawn.

    Attributes:
        answers: of each question, the right one and some of the others; None reads all of them. Each answer is read with the
            whole video, so that a question with two costs two fifths of one with five, and the next pass brings other ones.
    """

    answers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.answers is not None and self.answers < 2:
            raise ConfigError(f"sampling.answers is {self.answers}; expected at least 2, the right one and another.")


class AnswerSampler(Generic[Item]):
    """Draws questions or statements. A true and a false statement that were written together are drawn together (as in the paper).

    Args:
        items: the training split.
        config: how to draw.
        seed: of the run.
        rank, world: which part of each joint batch this process draws.

    Raises:
        DataError: fewer items, or pairs, than a joint batch takes.
    """

    def __init__(self, items: Sequence[Item], config: AnswerSampling, seed: int, rank: int = 0, world: int = 1) -> None:
        self._config, self._seed, self._rank, self._world = config, seed, rank, world
        groups: dict[object, list[Item]] = {}
        for number, item in enumerate(items):
            pair = item.pair if isinstance(item, EncodedStatement) else None
            groups.setdefault(number if pair is None else (pair,), []).append(item)
        self._groups: list[list[Item]] = list(groups.values())
        if len(self._groups) < config.items * world:
            raise DataError(
                f"The training set has {len(self._groups)} questions or pairs of statements and a batch takes "
                f"{config.items * world}; lower sampling.items."
            )

    def batch(self, step: int) -> list[Item]:
        """What is drawn for a step, to be collated; the same for the same seed, step and part."""
        size = self._config.items
        chosen = draw_part(len(self._groups), size, step, self._seed, self._rank, self._world)
        rngs = video_rngs(size, step, self._seed, self._rank)
        return [self._vary(item, rng) for index, rng in zip(chosen, rngs, strict=True) for item in self._groups[index]]

    def _vary(self, item: Item, rng: np.random.Generator) -> Item:
        changes: dict[str, Any] = {}
        if isinstance(item, EncodedQuestion) and isinstance(self._config, QuestionSampling):
            changes = some_answers(item, self._config.answers, rng)
        if rng.random() < self._config.crop:
            changes |= around_moment(item, self._config.margin, rng)
        item = dataclasses.replace(item, **changes)
        return dataclasses.replace(item, video=augment_video(item.video, self._config.augmentation, rng))


def around_moment(item: EncodedQuestion | EncodedStatement, margin: int, rng: np.random.Generator) -> dict[str, Any]:
    """What changes in an item whose video is cut to its moment and at most ``margin`` clips before and after it."""
    first, last = item.moment
    if first == IGNORED_TARGET:
        return {}
    before, after = rng.integers(margin + 1, size=2).tolist()
    start, stop = max(first - before, 0), min(last + 1 + after, len(item.video.features))
    return {"video": crop_video(item.video, start, stop), "moment": (first - start, last - start)}


def some_answers(question: EncodedQuestion, count: int | None, rng: np.random.Generator) -> dict[str, Any]:
    """What changes in a question that is asked with its right answer and others only, ``count`` in all, in their order.

    Nothing does where the right answer is not known, or there are no more than ``count``.
    """
    if count is None or count >= len(question.answers) or question.correct == IGNORED_TARGET:
        return {}
    wrong = [place for place in range(len(question.answers)) if place != question.correct]
    kept = sorted([question.correct, *rng.permutation(wrong)[: count - 1].tolist()])
    return {"answers": tuple(question.answers[place] for place in kept), "correct": kept.index(question.correct)}
