"""Writing a sentence word by word: greedy and beam search.

Plain numpy. What runs the decoder is behind ``Step``: it keeps its cache to itself, in whatever form its engine has, and only
token ids, row numbers and scores pass between the two. So an engine without torch can be searched with the same code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from hero_sdk.errors import InputError
from hero_sdk.tokens import BEGIN_ID, SEPARATOR_ID
from hero_sdk.types import FloatArray, IntArray

END_ID = SEPARATOR_ID


class Step(Protocol):
    """One step of a decoder that keeps a row of cache for each sentence."""

    def __call__(self, tokens: IntArray, position: int, source: IntArray) -> FloatArray:
        """Read one token per sentence and score the next one.

        Args:
            tokens: (N,) int32 the last token of each sentence.
            position: its place, counted from 0; the same for all.
            source: (N,) int32 which row of the previous step each sentence continues; at position 0, which input. Rows that are
                not named are finished and may be dropped, and a row may be named more than once.

        Returns:
            (N, vocabulary) float32 logits.
        """


@dataclass(frozen=True)
class BeamConfig:
    """How a beam search decides.

    Attributes:
        width: sentences kept at each step; 1 is the greedy search.
        length_penalty: sentences are compared by their log-probability divided by their length (the end counts) to this power:
            0 compares the log-probabilities, which favours short sentences, and 1 their mean per token.
    """

    width: int = 5
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"The beam width is {self.width}; expected at least 1.")


@dataclass(frozen=True)
class Sentence:
    """A sentence that a search found.

    Attributes:
        tokens: (tokens,) int32, without begin and end.
        log_probability: of the tokens, and of the end if it was reached.
        ended: whether the end was reached within the limit.
    """

    tokens: IntArray
    log_probability: float
    ended: bool


def greedy_search(step: Step, count: int, limit: int) -> list[IntArray]:
    """The most probable token, one after the other, until every sentence has ended.

    Args:
        step: the decoder.
        count: number of inputs to write a sentence for.
        limit: most tokens of a sentence, its end included.

    Returns:
        For each input its tokens, (tokens,) int32, without begin and end.

    Raises:
        InputError: a limit below 1.
    """
    _check_limit(limit)
    written = np.full((count, limit), END_ID, dtype=np.int32)
    sentence = source = np.arange(count, dtype=np.int32)
    last = np.full(count, BEGIN_ID, dtype=np.int32)
    for position in range(limit):
        if not len(source):
            break
        choice = step(last, position, source).argmax(axis=1).astype(np.int32)
        written[sentence, position] = choice
        source = np.flatnonzero(choice != END_ID).astype(np.int32)
        sentence, last = sentence[source], choice[source]
    return [row[: np.append(np.flatnonzero(row == END_ID), limit)[0]] for row in written]


@dataclass(frozen=True)
class _Hypothesis:
    """A sentence in the making; ``row`` is its row of the last step."""

    row: int
    tokens: tuple[int, ...] = field(default=())
    log_probability: float = 0.0

    @property
    def ended(self) -> bool:
        return self.tokens[-1:] == (END_ID,)

    def score(self, length_penalty: float) -> float:
        return self.log_probability / len(self.tokens) ** length_penalty

    def sentence(self) -> Sentence:
        tokens = self.tokens[:-1] if self.ended else self.tokens
        return Sentence(np.array(tokens, dtype=np.int32), self.log_probability, self.ended)


def beam_search(step: Step, count: int, limit: int, config: BeamConfig) -> list[list[Sentence]]:
    """Beam search: of all ways to go on with the sentences of an input, the best few are kept.

    A sentence that has ended keeps its place as long as no other one takes it, so the search is over when all that are kept have
    ended. Of equal sentences the first is kept, as by ``argmax``.

    Args:
        step: the decoder.
        count: number of inputs to write a sentence for.
        limit: most tokens of a sentence, its end included.
        config: width and length penalty.

    Returns:
        For each input at most ``config.width`` sentences, the best first.

    Raises:
        InputError: a limit below 1.
    """
    _check_limit(limit)
    beams = [[_Hypothesis(row)] for row in range(count)]
    last = np.full(count, BEGIN_ID, dtype=np.int32)
    source = np.arange(count, dtype=np.int32)
    for position in range(limit):
        if not len(source):
            break
        log_probabilities = _log_softmax(step(last, position, source))
        beams = [_extend(beam, log_probabilities, config) for beam in beams]
        live = [hypothesis for beam in beams for hypothesis in beam if not hypothesis.ended]
        source = np.array([hypothesis.row for hypothesis in live], dtype=np.int32)
        last = np.array([hypothesis.tokens[-1] for hypothesis in live], dtype=np.int32)
        rows = iter(range(len(live)))
        beams = [
            [one if one.ended else _Hypothesis(next(rows), one.tokens, one.log_probability) for one in beam]
            for beam in beams
        ]
    return [[hypothesis.sentence() for hypothesis in beam] for beam in beams]


def _extend(beam: list[_Hypothesis], log_probabilities: FloatArray, config: BeamConfig) -> list[_Hypothesis]:
    """The best of a beam's ended sentences and of all continuations of the others, best first."""
    candidates = []
    for hypothesis in beam:
        if hypothesis.ended:
            candidates.append(hypothesis)
            continue
        row = log_probabilities[hypothesis.row]
        for token in _best(row, config.width):
            total = hypothesis.log_probability + float(row[token])
            candidates.append(_Hypothesis(hypothesis.row, (*hypothesis.tokens, int(token)), total))
    return sorted(candidates, key=lambda one: one.score(config.length_penalty), reverse=True)[: config.width]


def _best(scores: FloatArray, count: int) -> IntArray:
    """Indices of the highest scores, best first, the first of equals first."""
    count = min(count, len(scores))
    among = np.flatnonzero(scores >= np.partition(scores, -count)[-count]).astype(np.int32)
    return among[np.argsort(-scores[among], kind="stable")[:count]]


def _log_softmax(logits: FloatArray) -> FloatArray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _check_limit(limit: int) -> None:
    if limit < 1:
        raise InputError(f"A sentence may have {limit} tokens; expected a limit of at least 1.")
