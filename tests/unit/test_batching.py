"""Checking and cutting batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hero_sdk.engines.batching import run_in_batches
from hero_sdk.errors import EngineError, InputError
from hero_sdk.manifest import GraphSpec, TensorSpec

SPEC = GraphSpec(
    file="graph.onnx",
    precision="fp32",
    max_batch=4,
    inputs=(TensorSpec("a", "float32", (-1, 3)), TensorSpec("b", "int32", (-1,))),
    outputs=(TensorSpec("sum", "float32", (-1, 3)), TensorSpec("count", "int32", (-1,))),
)


def inputs(batch: int) -> dict[str, np.ndarray]:
    return {
        "b": np.arange(batch, dtype=np.int32),
        "a": np.random.default_rng(batch).standard_normal((batch, 3), dtype=np.float32),
    }


def call(piece: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    assert list(piece) == ["a", "b"]
    assert 1 <= len(piece["a"]) == len(piece["b"]) <= 4
    assert all(array.flags.c_contiguous for array in piece.values())
    return {"sum": piece["a"] + piece["b"][:, None].astype(np.float32), "count": piece["b"] * 2, "unused": piece["a"]}


@given(st.integers(1, 30))
def test_the_pieces_are_joined_in_order(batch: int) -> None:
    arrays = inputs(batch)
    found = run_in_batches(SPEC, "graph", arrays, call)
    assert list(found) == ["sum", "count"]
    assert np.array_equal(found["sum"], arrays["a"] + arrays["b"][:, None].astype(np.float32))
    assert np.array_equal(found["count"], arrays["b"] * 2)


def test_arrays_that_are_not_contiguous() -> None:
    arrays = inputs(5)
    turned = {"a": np.asfortranarray(arrays["a"]), "b": np.repeat(arrays["b"], 2)[::2]}
    assert np.array_equal(
        run_in_batches(SPEC, "g", turned, call)["sum"], run_in_batches(SPEC, "g", arrays, call)["sum"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": None}, r"without inputs \['b'\]"),
        ({"c": np.zeros(2)}, r"unknown inputs \['c'\]"),
        ({"a": np.zeros((2, 3))}, r"'a' .* float64 of shape \(2, 3\); expected float32 of shape \(batch, 3\)"),
        ({"a": np.zeros((2, 4), np.float32)}, r"shape \(2, 4\); expected float32 of shape \(batch, 3\)"),
        ({"b": np.zeros((2, 1), np.int32)}, r"shape \(2, 1\); expected int32 of shape \(batch\)"),
        ({"b": np.zeros(3, np.int32)}, "batch of 3 and 'a' one of 2"),
        ({"b": [1, 2]}, "a list; expected a numpy array"),
        ({"a": np.zeros((0, 3), np.float32), "b": np.zeros(0, np.int32)}, "empty batch"),
    ],
)
def test_inputs_that_do_not_fit(change: dict, message: str) -> None:
    arrays = {name: array for name, array in {**inputs(2), **change}.items() if array is not None}
    with pytest.raises(InputError, match=message) as caught:
        run_in_batches(SPEC, "graph", arrays, call)
    assert "graph" in str(caught.value)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"sum": np.zeros((2, 3), np.float32)}, "not 'count'"),
        ({"sum": np.zeros((2, 3)), "count": np.zeros(2, np.int32)}, "float64"),
        ({"sum": np.zeros((1, 3), np.float32), "count": np.zeros(2, np.int32)}, "batch of 1; expected 2"),
    ],
)
def test_outputs_that_do_not_fit(output: dict, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        run_in_batches(SPEC, "graph", inputs(2), lambda piece: output)
