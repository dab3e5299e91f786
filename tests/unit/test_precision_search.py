"""The search for layers to keep: its logic on made-up metrics, and the whole of it on a graph in which one layer is sensitive."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from hero_export.errors import PrecisionError
from hero_export.precision.quantise import quantise_file
from hero_export.precision.running import output_errors, run_graph
from hero_export.precision.search import rank_layers, search_layers
from tests.precision_graphs import write_chain

LAYERS = [f"graph:layers.{number}" for number in range(12)]


def losing(costs: dict[str, float], asked: list[frozenset[str]] | None = None):
    """A metric of 80 that loses what each layer costs that is not kept."""

    def metric(kept: frozenset[str]) -> float:
        if asked is not None:
            asked.append(kept)
        return 80.0 - sum(cost for layer, cost in costs.items() if layer not in kept)

    return metric


def test_nothing_is_kept_where_nothing_is_lost() -> None:
    found = search_layers(losing({LAYERS[0]: 0.4}), LAYERS, baseline=80.0, budget=1.0)
    assert (found.kept, found.metric, found.reached, len(found.trail)) == ((), 79.6, True, 1)


@pytest.mark.parametrize("needed", [{0}, {0, 1, 2}, {5}, {3, 8}, {11}])
def test_what_is_needed_is_found_and_what_is_not_is_given_back(needed: set[int]) -> None:
    asked: list[frozenset[str]] = []
    metric = losing({LAYERS[number]: 2.0 for number in needed}, asked)
    found = search_layers(metric, LAYERS, baseline=80.0, budget=1.0)
    assert set(found.kept) == {LAYERS[number] for number in needed}
    assert found.reached
    assert found.metric == 80.0
    assert len(asked) == len(set(asked)) == len(found.trail) <= 24
    assert [frozenset(trial.kept) for trial in found.trail] == asked
    assert all(trial.within == (trial.metric >= 79.0) for trial in found.trail)


def test_a_budget_that_cannot_be_kept_is_said() -> None:
    asked: list[frozenset[str]] = []

    def metric(kept: frozenset[str]) -> float:
        asked.append(kept)
        return 50.0 + len(kept)

    found = search_layers(metric, LAYERS, baseline=80.0, budget=1.0)
    assert not found.reached
    assert found.metric == 62.0
    assert found.kept == tuple(LAYERS)


def test_a_metric_that_is_no_number_is_no_success() -> None:
    found = search_layers(lambda kept: float("nan"), LAYERS[:2], baseline=80.0, budget=1.0)
    assert not found.reached


def test_a_candidate_that_cannot_be_made_counts_as_lost() -> None:
    """As when everything is kept, and nothing is left to round."""

    def metric(kept: frozenset[str]) -> float:
        if len(kept) == len(LAYERS):
            raise PrecisionError("nothing to quantise")
        return 70.0 + len(kept) / 10

    found = search_layers(metric, LAYERS, baseline=80.0, budget=1.0)
    assert not found.reached
    assert found.metric == 70.8
    assert found.trail[-1].metric is None

    def refuses(kept: frozenset[str]) -> float:
        raise PrecisionError("no such graph")

    with pytest.raises(PrecisionError, match="no such graph"):
        search_layers(refuses, LAYERS, baseline=80.0, budget=1.0)


def test_trials_are_counted() -> None:
    counter = itertools.count()

    def metric(kept: frozenset[str]) -> float:
        next(counter)
        return 80.0 if len(kept) == 12 else 0.0

    found = search_layers(metric, LAYERS, baseline=80.0, budget=1.0, most_trials=3)
    assert next(counter) == 3
    assert not found.reached


@pytest.fixture
def sensitive(tmp_path: Path):
    """A chain of five layers. What the third reads has one channel that is a thousand times as large as the others, and that it
    does not look at: its range takes up all steps of eight bits."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((32, 32)) / 6 for _ in range(5)]
    weights[1][:, 7] *= 1000
    weights[2][7] = 0
    path = tmp_path / "chain.onnx"
    spec = write_chain(path, weights, activation="Relu")
    rows = [{"x": row} for row in rng.standard_normal((24, 1, 32), dtype=np.float32)]
    return path, spec, rows


def test_the_sensitive_layer_is_ranked_first_and_found(sensitive, tmp_path: Path) -> None:
    path, spec, rows = sensitive
    ranking = rank_layers(path, spec, "int8", rows[:8], "chain", calibrated=rows)
    assert ranking[0].layer == "chain:layers.2"
    assert ranking[0].error > 5 * ranking[1].error
    assert [one.error for one in ranking] == sorted((one.error for one in ranking), reverse=True)
    expected = run_graph(path, spec, rows)

    def metric(kept: frozenset[str]) -> float:
        target = tmp_path / "candidate.onnx"
        keep = [layer.partition(":")[2] for layer in kept]
        quantise_file(path, target, "int8", rows=rows, keep=keep)
        (error,) = output_errors(expected, run_graph(target, spec, rows), rows)
        return 100 * (1 - error.mean)

    found = search_layers(metric, [one.layer for one in ranking], baseline=100.0, budget=10.0)
    assert found.reached
    assert found.kept == ("chain:layers.2",)
    assert [trial.within for trial in found.trail] == [False, True]


@pytest.mark.parametrize("precision", ["fp16", "int8-dynamic"])
def test_other_precisions_are_ranked_too(precision: str, sensitive) -> None:
    path, spec, rows = sensitive
    ranking = rank_layers(path, spec, precision, rows[:4], "chain")  # type: ignore[arg-type]
    assert {one.layer for one in ranking} == {f"chain:layers.{number}" for number in range(5)}
    if precision == "int8-dynamic":
        assert ranking[0].layer == "chain:layers.2"
