"""Greedy and beam search against the enumeration of all sentences, on decoders that are tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hero_sdk.errors import InputError
from hero_sdk.sentence_search import END_ID, BeamConfig, Sentence, beam_search, greedy_search
from hero_sdk.tokens import BEGIN_ID

Prefix = tuple[int, ...]
VOCABULARY = 4
WORDS = [token for token in range(VOCABULARY) if token != END_ID]


class TableStep:
    """A decoder whose logits are a function of the input and of the words so far; it notes what it is asked."""

    def __init__(self, seed: int, count: int, vocabulary: int = VOCABULARY, grid: float | None = None) -> None:
        self.seed, self.vocabulary, self.grid = seed, vocabulary, grid
        self.rows: list[tuple[int, Prefix]] = [(number, ()) for number in range(count)]
        self.asked: list[list[tuple[int, Prefix]]] = []

    def logits(self, number: int, prefix: Prefix) -> np.ndarray:
        drawn = np.random.default_rng([self.seed, number, *prefix]).normal(size=self.vocabulary, scale=2.0)
        return (drawn if self.grid is None else np.round(drawn / self.grid) * self.grid).astype(np.float32)

    def __call__(self, tokens: np.ndarray, position: int, source: np.ndarray) -> np.ndarray:
        assert tokens.shape == source.shape
        assert len(tokens), "asked for nothing"
        self.rows = [
            (self.rows[row][0], (*self.rows[row][1], int(token))) for row, token in zip(source, tokens, strict=True)
        ]
        assert all(len(prefix) == position + 1 and prefix[0] == BEGIN_ID for _, prefix in self.rows)
        self.asked.append(self.rows)
        return np.stack([self.logits(*row) for row in self.rows])

    def log_probability(self, number: int, sentence: Prefix) -> float:
        """Of a sentence, its end included if it has one; word by word."""
        total = 0.0
        for place, token in enumerate(sentence):
            logits = self.logits(number, (BEGIN_ID, *sentence[:place])).tolist()
            total += logits[token] - math.log(sum(map(math.exp, logits)))
        return total


def all_sentences(limit: int) -> list[Prefix]:
    """Every sentence that ends within the limit, and every one that is cut by it."""
    ended = [(*words, END_ID) for length in range(limit) for words in itertools.product(WORDS, repeat=length)]
    return [*ended, *itertools.product(WORDS, repeat=limit)]


def written(sentence: Sentence) -> Prefix:
    return (*sentence.tokens.tolist(), *([END_ID] if sentence.ended else []))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), limit=st.integers(1, 4), penalty=st.sampled_from([0.0, 0.6, 1.0, 2.0]))
def test_a_beam_that_keeps_everything_ranks_all_sentences(seed: int, limit: int, penalty: float) -> None:
    sentences = all_sentences(limit)
    step = TableStep(seed, 2)
    found = beam_search(step, 2, limit, BeamConfig(len(sentences), penalty))
    for number in range(2):
        scores = {one: step.log_probability(number, one) / len(one) ** penalty for one in sentences}
        ranked = sorted(sentences, key=scores.__getitem__, reverse=True)
        assert [written(one) for one in found[number]] == ranked
        for one in found[number]:
            assert one.log_probability == pytest.approx(step.log_probability(number, written(one)), abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), limit=st.integers(1, 8), count=st.integers(1, 5))
def test_greedy_takes_the_most_probable_word_each_time(seed: int, limit: int, count: int) -> None:
    step = TableStep(seed, count)
    found = greedy_search(step, count, limit)
    for number, sentence in enumerate(found):
        expected: list[int] = []
        while len(expected) < limit:
            logits = step.logits(number, (BEGIN_ID, *expected)).tolist()
            token = max(range(VOCABULARY), key=logits.__getitem__)
            if token == END_ID:
                break
            expected.append(token)
        assert sentence.tolist() == expected
        assert sentence.dtype == np.int32


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    limit=st.integers(1, 8),
    penalty=st.sampled_from([0.0, 1.0, 3.0]),
    grid=st.sampled_from([None, 2.0]),
)
def test_a_beam_of_one_is_greedy_even_among_equals(seed: int, limit: int, penalty: float, grid: float | None) -> None:
    greedy = greedy_search(TableStep(seed, 3, grid=grid), 3, limit)
    beam = beam_search(TableStep(seed, 3, grid=grid), 3, limit, BeamConfig(1, penalty))
    assert [sentence.tolist() for sentence in greedy] == [one.tokens.tolist() for (one,) in beam]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), width=st.integers(1, 6), penalty=st.sampled_from([0.0, 1.0]))
def test_a_beam_keeps_the_best_of_all_ways_to_go_on(seed: int, width: int, penalty: float) -> None:
    """Step by step against a beam over plain tuples, which scores every sentence anew."""
    limit = 5
    step = TableStep(seed, 1)
    kept: list[Prefix] = [()]
    for _ in range(limit):
        grown = [one for one in kept if one[-1:] == (END_ID,)]
        grown += [(*one, token) for one in kept if one[-1:] != (END_ID,) for token in range(VOCABULARY)]
        grown.sort(key=lambda one: step.log_probability(0, one) / len(one) ** penalty, reverse=True)
        kept = grown[:width]
    (found,) = beam_search(step, 1, limit, BeamConfig(width, penalty))
    assert [written(one) for one in found] == kept


class Probabilities(TableStep):
    """A decoder with given probabilities of the next word."""

    def __init__(self, table: dict[Prefix, list[float]]) -> None:
        super().__init__(0, 1)
        self.table = table

    def logits(self, number: int, prefix: Prefix) -> np.ndarray:
        return np.log(np.array(self.table[prefix[1:]], dtype=np.float32))


# Words 0, 1 and 3; the end is 2. The likelier first word leads to the less likely sentence.
TRAP = {
    (): [0.01, 0.55, 0.01, 0.43],
    (1,): [0.3, 0.3, 0.2, 0.2],
    (3,): [0.02, 0.01, 0.96, 0.01],
    (1, 0): [0.3, 0.1, 0.4, 0.2],
    (1, 1): [0.3, 0.1, 0.4, 0.2],
}


def test_a_beam_finds_what_greedy_misses() -> None:
    (greedy,) = greedy_search(Probabilities(TRAP), 1, 3)
    (beam,) = beam_search(Probabilities(TRAP), 1, 3, BeamConfig(width=2, length_penalty=0.0))
    assert greedy.tolist() == [1, 0]
    assert beam[0].tokens.tolist() == [3]
    assert beam[0].log_probability == pytest.approx(math.log(0.43 * 0.96), abs=1e-6)


def test_of_equal_words_the_first_are_kept() -> None:
    (found,) = beam_search(Probabilities({(): [0.1, 0.1, 0.1, 0.7]}), 1, 1, BeamConfig(width=2))
    assert [one.tokens.tolist() for one in found] == [[3], [0]]


def test_the_length_penalty_decides_between_short_and_long() -> None:
    end_or_go_on = {
        (): [0.005, 0.59, 0.4, 0.005],
        (1,): [0.005, 0.005, 0.6, 0.39],
        (1, 3): [0.05, 0.05, 0.85, 0.05],
    }
    best = {}
    for penalty in (0.0, 1.0):
        (found,) = beam_search(Probabilities(end_or_go_on), 1, 3, BeamConfig(2, penalty))
        best[penalty] = found[0].tokens.tolist()
    # log 0.4 = -0.92 and log(0.59 * 0.6) = -1.04; per token -0.92 and -0.52.
    assert best == {0.0: [], 1.0: [1]}


def test_finished_sentences_are_not_asked_again() -> None:
    greedy, beam = TableStep(3, 6), TableStep(3, 6)
    found = greedy_search(greedy, 6, 50)
    assert max(map(len, found)) < 49, "no sentence ended early"
    assert [len(rows) for rows in greedy.asked] == [
        sum(len(sentence) >= position for sentence in found) for position in range(max(map(len, found)) + 1)
    ]
    sentences = beam_search(beam, 6, 50, BeamConfig(3))
    assert all(one.ended for kept in sentences for one in kept)
    assert len(beam.asked) < 50
    assert all(END_ID not in prefix for rows in beam.asked for _, prefix in rows)


def test_a_sentence_that_reaches_the_limit_is_cut() -> None:
    never = {prefix: [0.1, 0.8, 0.0001, 0.1] for prefix in ((), (1,), (1, 1), (1, 1, 1))}
    assert [one.tolist() for one in greedy_search(Probabilities(never), 1, 3)] == [[1, 1, 1]]
    ((cut,),) = beam_search(Probabilities(never), 1, 3, BeamConfig(1))
    assert (cut.tokens.tolist(), cut.ended) == ([1, 1, 1], False)
    assert cut.log_probability == pytest.approx(3 * math.log(0.8 / 1.0001), abs=1e-6)


def test_an_input_gets_the_same_sentence_alone_and_among_others() -> None:
    class Alone(TableStep):
        def logits(self, number: int, prefix: Prefix) -> np.ndarray:
            return super().logits(2, prefix)

    among = beam_search(TableStep(5, 4), 4, 6, BeamConfig(3))[2]
    (alone,) = beam_search(Alone(5, 1), 1, 6, BeamConfig(3))
    assert [written(one) for one in among] == [written(one) for one in alone]


def test_a_beam_wider_than_the_vocabulary() -> None:
    (found,) = beam_search(TableStep(1, 1), 1, 1, BeamConfig(50))
    assert len(found) == VOCABULARY


def test_no_input_gives_no_sentence_and_asks_nothing() -> None:
    step = TableStep(0, 0)
    assert greedy_search(step, 0, 5) == []
    assert beam_search(step, 0, 5, BeamConfig()) == []
    assert not step.asked


def test_large_logits_do_not_overflow() -> None:
    def step(tokens: np.ndarray, position: int, source: np.ndarray) -> np.ndarray:
        return np.tile(np.array([-3e38, 3e38, -3e38, 0.0], np.float32), (len(tokens), 1))

    ((found,),) = beam_search(step, 1, 2, BeamConfig(1))
    assert (found.tokens.tolist(), found.log_probability) == ([1, 1], 0.0)


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_that_leaves_no_word(limit: int) -> None:
    with pytest.raises(InputError, match=rf"may have {limit} tokens; expected a limit of at least 1"):
        greedy_search(TableStep(0, 1), 1, limit)
    with pytest.raises(InputError, match=rf"may have {limit} tokens; expected a limit of at least 1"):
        beam_search(TableStep(0, 1), 1, limit, BeamConfig())


def test_a_beam_without_width() -> None:
    with pytest.raises(InputError, match="beam width is 0; expected at least 1"):
        BeamConfig(width=0)
