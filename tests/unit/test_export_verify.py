"""Comparisons with the model: what is measured, and that everything beyond rounding fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, save_model
from torch import Tensor, nn

from hero_export import VerificationError
from hero_export.report import CaseResult
from hero_export.tolerances import tolerance_of
from hero_export.verification.comparison import GraphRunner, check_frame_graph, compare, require_passed, verify_graph
from hero_export.verification.head_cases import Case
from hero_sdk.frame_encoder import GRAPH_FILE
from hero_sdk.manifest import GraphSpec, TensorSpec
from tests.tiny_checkpoint import IMAGE, write_frame_encoder


@pytest.fixture
def expected() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3, 5, 8)).astype(np.float32)


def compared(found: np.ndarray, expected: np.ndarray, used: np.ndarray | None = None) -> CaseResult:
    return compare(
        "temporal",
        "clips",
        "case",
        len(found),
        found,
        expected,
        np.ones(found.shape[:-1], bool) if used is None else used,
    )


def test_the_numbers_are_those_of_the_definition(expected: np.ndarray) -> None:
    found = expected + np.random.default_rng(1).standard_normal(expected.shape).astype(np.float32) * 0.1
    used = np.random.default_rng(2).random(expected.shape[:-1]) < 0.6
    result = compared(found, expected, used)
    errors, cosines = [], []
    for row, slot in zip(*np.nonzero(used), strict=True):
        one, other = found[row, slot].astype(float), expected[row, slot].astype(float)
        errors.append(abs(one - other))
        cosines.append(one @ other / (one @ one * (other @ other)) ** 0.5)
    assert result.vectors == len(errors)
    assert result.max_error == pytest.approx(np.max(errors))
    assert result.mean_error == pytest.approx(np.mean(errors))
    assert result.cosine == pytest.approx(np.min(cosines))
    assert result.scale == np.abs(expected[used]).max()
    assert result.relative_error == pytest.approx(result.max_error / result.scale)
    assert (result.batch, result.finite, result.passed) == (3, True, False)


def test_below_fp32_a_vector_in_a_thousand_may_be_astray() -> None:
    """Which a slot that a graph gets wrong is not: it is one of each row."""
    rng = np.random.default_rng(3)
    expected = rng.standard_normal((20, 100, 8)).astype(np.float32)
    used = np.ones(expected.shape[:-1], bool)
    found = expected.copy()

    def judged() -> CaseResult:
        return compare("temporal", "clips", "case", 20, found, expected, used, wide)

    wide = replace(tolerance_of("int8"), max_relative_error=10.0)
    found[0, :2] = -found[0, :2]
    assert (judged().stray, judged().passed) == (2, True)
    assert judged().cosine == pytest.approx(-1)
    assert not compare("temporal", "clips", "case", 20, found, expected, used, replace(wide, stray=0.0)).passed
    found[1, 0] = -found[1, 0]
    assert (judged().stray, judged().passed) == (3, False)
    found[:] = expected
    found[:, 7] = -found[:, 7]
    assert (judged().stray, judged().passed) == (20, False)
    found[:] = expected
    found[0, 0] = np.nan
    assert (judged().stray, judged().passed) == (1, False)


def test_an_equal_output_passes(expected: np.ndarray) -> None:
    result = compared(expected, expected)
    assert result.passed
    assert (result.max_error, result.cosine) == (0, pytest.approx(1))


@pytest.mark.parametrize(("share", "passes"), [(0.9e-4, True), (1.1e-4, False)])
def test_the_largest_error_decides(expected: np.ndarray, share: float, passes: bool) -> None:
    found = expected.copy()
    found[1, 2, 3] += share * np.abs(expected).max()
    assert compared(found, expected).passed is passes


def test_a_short_vector_in_another_direction_fails_by_its_cosine(expected: np.ndarray) -> None:
    expected[0, 0] = 1e-5
    found = expected.copy()
    found[0, 0, 0] = 1.1e-5
    result = compared(found, expected)
    assert result.relative_error < 1e-6
    assert not result.passed


def test_the_error_of_logits_is_a_share_of_one_at_least_and_their_direction_means_nothing() -> None:
    expected = np.array([[2e-5, -0.3]], np.float32)
    for error, passes in ((4e-5, True), (2e-4, False)):
        result = compare(
            "answer", "answer", "case", 1, expected - np.float32(error), expected, np.array([[True, False]])
        )
        assert (result.scale, result.passed) == (1.0, passes)
    large = compare(
        "answer", "start", "case", 1, expected * 1000 + np.float32(2e-2), expected * 1000, np.ones((1, 2), bool)
    )
    assert large.scale == pytest.approx(300)
    assert large.passed
    assert not compare("query", "query_vector", "case", 1, expected[0] * -1, expected[0], np.array(True)).passed


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(0, 0, 0), (2, 4, 7)])
def test_a_value_that_is_not_finite_fails_in_an_empty_slot_as_well(
    expected: np.ndarray, value: float, place: tuple[int, int, int]
) -> None:
    found, used = expected.copy(), np.ones(expected.shape[:-1], bool)
    used[2] = False
    found[place] = value
    result = compared(found, expected, used)
    assert not result.finite
    assert not result.passed


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_gives_no_numbers_fails_even_where_the_graph_gives_the_same(
    expected: np.ndarray, value: float
) -> None:
    broken = expected.copy()
    broken[0, 0, 0] = value
    assert not compared(expected, broken).passed
    assert not compared(broken, broken).passed


def test_empty_slots_may_hold_anything_finite(expected: np.ndarray) -> None:
    found, used = expected.copy(), np.ones(expected.shape[:-1], bool)
    used[2] = False
    found[2] = 1e6
    assert compared(found, expected, used).passed


def test_the_message_names_the_worst_cases_first(expected: np.ndarray) -> None:
    results = [compared(expected, expected)]
    require_passed(results)
    for number in range(7):
        found = expected + np.float32(0.01 * (number + 1))
        results.append(compare("query", "query_vector", f"case {number}", 3, found, expected, np.ones((3, 5), bool)))
    found = expected.copy()
    found[:] = np.nan
    results.append(compared(found, expected))
    with pytest.raises(VerificationError) as caught:
        require_passed(results)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("8 of 9 comparisons with the model failed; expected a max error of at most 0.0001")
    assert lines[0].startswith("  temporal -> clips, case (batch 3)")
    assert lines[0].endswith("not finite")
    assert [line.split(", ")[1].split(" (")[0] for line in lines[1:5]] == [f"case {number}" for number in (6, 5, 4, 3)]
    assert lines[5] == "  and 3 more"


# Running graphs


def run_frames(folder: Path, change: Callable[[ModelProto], None] | None = None) -> None:
    spec = GraphSpec(
        file=GRAPH_FILE,
        precision="fp32",
        max_batch=8,
        inputs=(TensorSpec("images", "uint8", (-1, IMAGE, IMAGE, 3)),),
        outputs=(TensorSpec("features", "float32", (-1, 6)),),
    )
    write_frame_encoder(folder, 6, change)
    check_frame_graph(GraphRunner("frames", folder / GRAPH_FILE, spec))


def replace_matmul(model: ModelProto, *nodes: object) -> None:
    """Put other nodes in the place of the last one of the frame encoder, from ``colour`` to ``features``."""
    model.graph.node.pop()
    model.graph.node.extend(nodes)


def leak(model: ModelProto) -> None:
    """Features relative to the mean of the batch, as batch normalisation in training mode gives them."""
    model.graph.initializer.append(helper.make_tensor("batch_axis", TensorProto.INT64, [1], [0]))
    replace_matmul(
        model,
        helper.make_node("ReduceMean", ["colour", "batch_axis"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["colour", "mean"], ["centred"]),
        helper.make_node("MatMul", ["centred", "weights"], ["features"]),
    )


def divide_by_zero(model: ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    replace_matmul(
        model,
        helper.make_node("MatMul", ["colour", "weights"], ["products"]),
        helper.make_node("Div", ["products", "zero"], ["features"]),
    )


def fix_batch(model: ModelProto) -> None:
    """A reshape to the batch that the graph was traced with."""
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [2], [2, 3]))
    replace_matmul(
        model,
        helper.make_node("Reshape", ["colour", "shape"], ["pair"]),
        helper.make_node("MatMul", ["pair", "weights"], ["features"]),
    )


def test_a_frame_encoder_that_takes_each_image_by_itself_passes(tmp_path: Path) -> None:
    run_frames(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (leak, "gives an image another feature alone than in a batch of 8"),
        (divide_by_zero, "features that are not finite on random images"),
        (fix_batch, "Graph 'frames' failed in onnxruntime with a batch of 8 .* expected any batch up to 8 to run"),
    ],
)
def test_a_frame_encoder_that_does_not_is_refused(
    tmp_path: Path, change: Callable[[ModelProto], None], message: str
) -> None:
    with pytest.raises(VerificationError, match=rf"(?s){message}"):
        run_frames(tmp_path, change)


class Doubling(nn.Module):
    """What the graph below computes, times ``factor``."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        return values * 2 * self.factor, values - more


def write_doubling(path: Path) -> GraphSpec:
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "abcd"]
    nodes = [helper.make_node("Add", ["a", "a"], ["c"]), helper.make_node("Sub", ["a", "b"], ["d"])]
    graph = helper.make_graph(nodes, "doubling", shapes[:2], shapes[2:])
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11), path)
    tensors = [TensorSpec(name, "float32", (-1, 3)) for name in "abcd"]
    return GraphSpec(path.name, "fp32", 2, tuple(tensors[:2]), tuple(tensors[2:]))


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_every_output_of_every_case_is_compared(tmp_path: Path, factor: float) -> None:
    """The cases have their inputs in another order than the module, and more rows than the largest batch."""
    rng = np.random.default_rng(0)
    cases = [
        Case(
            "doubling",
            f"{batch} rows",
            {name: rng.standard_normal((batch, 3), dtype=np.float32) for name in "ba"},
            dict.fromkeys("cd", np.ones(batch, bool)),
        )
        for batch in (1, 2, 5)
    ]
    runner = GraphRunner("doubling", tmp_path / "graph.onnx", write_doubling(tmp_path / "graph.onnx"))
    results = verify_graph(runner, Doubling(factor), cases)
    assert [(result.case, result.output, result.batch) for result in results] == [
        (f"{batch} rows", output, batch) for batch in (1, 2, 5) for output in "cd"
    ]
    assert [result.passed for result in results] == [factor == 1, True] * 3
