"""Both forms of a graph compute what the module computes; what is folded is gone from the graph, and what is fused is counted."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from hero_export.onnx import export as onnx_export
from hero_export.onnx import forms
from hero_export.onnx.forms import write_graph
from hero_export.onnx.fusion import model_nodes, read_model
from hero_export.onnx.graphs import Graph, graphs_of
from hero_export.onnx.speed import BATCHES, SpeedComparison, compare_speed, is_faster
from hero_export.verification.cases import CaseMaker
from hero_export.verification.comparison import GraphRunner, verify_graph
from hero_sdk.manifest import CAPTIONING, QUESTION_ANSWERING, RETRIEVAL
from tests.tiny_checkpoint import ANSWERS, CAPTION_TOKENS, MAX_BATCH, TEXT_GEOMETRY, make_task_model, task_config
from tests.torch_engine import spec_of

GRAPHS = [
    (RETRIEVAL, "query"),
    (QUESTION_ANSWERING, "temporal"),
    (QUESTION_ANSWERING, "answer"),
    (CAPTIONING, "caption_step"),
]
"""All that differs: constant positions, two tables in one graph, a head of three dimensions, a cache."""


def graph_of(task: str, name: str) -> Graph:
    return graphs_of(make_task_model(task), TEXT_GEOMETRY, answers=ANSWERS, caption_tokens=CAPTION_TOKENS)[name]


def maker_of(task: str) -> CaseMaker:
    return CaseMaker(task_config(task), TEXT_GEOMETRY, MAX_BATCH)


@pytest.fixture(scope="module", params=GRAPHS, ids=itertools.chain.from_iterable)
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Graph, dict[str, Path]]:
    """A graph in both forms; the second is made from the first, so that the exporter runs once."""
    task, name = request.param
    graph = graph_of(task, name)
    paths = {form: tmp_path_factory.mktemp(form) for form in ("standard", "onnxruntime")}
    for folder in paths.values():
        (folder / "graphs").mkdir()
    write_graph(graph, paths["standard"], "standard", MAX_BATCH, list)
    exported = (paths["standard"] / graph.file).read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "export_graph", lambda graph, path: path.write_bytes(exported))
        write_graph(graph, paths["onnxruntime"], "onnxruntime", MAX_BATCH, list)
    return task, graph, {form: folder / graph.file for form, folder in paths.items()}


@pytest.mark.parametrize("form", ["standard", "onnxruntime"])
def test_a_graph_computes_what_its_module_does(written: tuple[str, Graph, dict[str, Path]], form: str) -> None:
    task, graph, paths = written
    cases = maker_of(task).cases_of(graph)
    results = verify_graph(GraphRunner(graph.name, paths[form], spec_of(graph)), graph.module, cases)
    assert all(result.passed for result in results)
    assert max(result.relative_error for result in results) < 5e-6


def test_the_forms_have_the_operators_that_the_architecture_implies(
    written: tuple[str, Graph, dict[str, Path]],
) -> None:
    _, graph, paths = written
    assert graph.fused is not None
    for form, path in paths.items():
        nodes = model_nodes(read_model(path))
        names = [f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in nodes]
        expected = graph.fused.counts("standard" if form == "standard" else "onnxruntime")
        assert {name: names.count(name) for name in expected} == expected
        assert [folder.name for folder in path.parent.parent.iterdir()] == ["graphs"]
        assert [file.name for file in path.parent.iterdir()] == [path.name]


def attentions(path: Path) -> list[onnx.NodeProto]:
    return [node for node in onnx.load(str(path)).graph.node if node.op_type in ("Attention", "MultiHeadAttention")]


def test_the_scale_of_attention_stands_in_the_projection_of_queries(
    written: tuple[str, Graph, dict[str, Path]],
) -> None:
    _, graph, paths = written
    assert graph.fused is not None
    for path in paths.values():
        scales = [attribute.f for node in attentions(path) for attribute in node.attribute if attribute.name == "scale"]
        assert scales == [1.0] * graph.fused.attentions


def test_onnxruntime_has_one_mask_for_all_that_look_at_the_same(written: tuple[str, Graph, dict[str, Path]]) -> None:
    _, graph, paths = written
    masks = {node.input[5] for node in attentions(paths["onnxruntime"])}
    assert len(masks) == {"query": 1, "temporal": 1, "answer": 0, "caption_step": 2}[graph.name]
    for node in onnx.load(str(paths["onnxruntime"])).graph.node:
        if node.op_type == "SkipLayerNormalization":
            assert len(node.output) == 1


@pytest.mark.parametrize(("task", "name"), [(RETRIEVAL, "query"), (QUESTION_ANSWERING, "temporal")])
def test_the_type_embedding_is_nowhere_added(task: str, name: str, tmp_path: Path) -> None:
    model = make_task_model(task)
    with torch.no_grad():  # a type that shows wherever it stands
        model.cross_modal.text.token_type.weight[1] = 1e3 * torch.arange(model.config.hidden_size)
    graph = graphs_of(model, TEXT_GEOMETRY)[name]
    onnx_export.export_graph(graph, tmp_path / "graph.onnx")
    stored = onnx.load(str(tmp_path / "graph.onnx")).graph
    large = [
        weight
        for weight in stored.initializer
        if len(weight.dims) == 2 and abs(numpy_helper.to_array(weight)).max() > 1e3
    ]
    (table,) = large
    positions = numpy_helper.to_array(table) - model.cross_modal.text.token_type.weight[1].detach().numpy()
    rows = len(positions)
    expected = model.cross_modal.text.position.weight[:rows].detach().numpy()
    np.testing.assert_allclose(positions, expected, rtol=0, atol=2e-3)
    assert rows == (TEXT_GEOMETRY.query_tokens if name == "query" else model.config.text_positions)


def test_a_graph_without_fused_operators_has_one_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "graphs").mkdir()
    monkeypatch.setattr(forms, "rewrite_graph", None)
    done = write_graph(graph_of(CAPTIONING, "caption_prefill"), tmp_path, "auto", MAX_BATCH, list)
    assert (done.form, done.fused, done.expected, done.speed) == ("standard", {}, {}, ())


def test_weights_beside_the_graph_stay_beside_it_in_either_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.onnx._internal.exporter import _onnx_program

    monkeypatch.setattr(_onnx_program, "_LARGE_MODEL_THRESHOLD", 1)
    graph = graph_of(QUESTION_ANSWERING, "answer")
    (tmp_path / "graphs").mkdir()
    write_graph(graph, tmp_path, "onnxruntime", MAX_BATCH, list)
    assert sorted(file.name for file in (tmp_path / "graphs").iterdir()) == ["answer.onnx", "answer.onnx.data"]
    runner = GraphRunner("answer", tmp_path / graph.file, spec_of(graph))
    assert all(one.passed for one in verify_graph(runner, graph.module, maker_of(QUESTION_ANSWERING).cases_of(graph)))


@pytest.mark.parametrize(("ratio", "form"), [(0.9, "onnxruntime"), (1.1, "standard"), (0.99, "standard")])
def test_auto_keeps_what_was_faster(ratio: float, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compared(first: GraphRunner, second: GraphRunner, inputs: object, max_batch: int) -> list[SpeedComparison]:
        assert [runner.spec.max_batch for runner in (first, second)] == [max_batch] * 2
        return [SpeedComparison(first.name, 1, 5, 1.0, ratio, ratio)]

    monkeypatch.setattr(forms, "compare_speed", compared)
    (tmp_path / "graphs").mkdir()
    graph = graph_of(QUESTION_ANSWERING, "answer")
    maker = maker_of(QUESTION_ANSWERING)
    done = write_graph(graph, tmp_path, "auto", MAX_BATCH, lambda: maker.cases_of(graph))
    assert done.form == form
    assert graph.fused is not None
    assert done.fused == done.expected == graph.fused.counts(done.form)
    assert [one.ratio for one in done.speed] == [ratio]
    domains = {node.domain for node in onnx.load(str(tmp_path / graph.file)).graph.node}
    assert ("com.microsoft" in domains) == (form == "onnxruntime")


class SleepingRunner:
    """Takes a time of its own for each run, and counts them by their batch."""

    def __init__(self, clock: list[float], times: itertools.cycle) -> None:
        self.name, self.clock, self.times, self.batches = "graph", clock, times, list[int]()

    def run(self, inputs: dict[str, np.ndarray]) -> None:
        self.batches.append(len(inputs["x"]))
        self.clock[0] += next(self.times)


def test_forms_run_in_turn_warmed_up_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("hero_export.onnx.speed.time.perf_counter", lambda: clock[0])
    # The machine is ten times slower in every third round, for both.
    standard = SleepingRunner(clock, itertools.cycle([0.010, 0.010, 0.100]))
    fused = SleepingRunner(clock, itertools.cycle([0.008, 0.008, 0.080]))
    compared = compare_speed(standard, fused, {"x": np.zeros((1, 3))}, max_batch=32)  # type: ignore[arg-type]
    assert [one.batch for one in compared] == list(BATCHES)
    for one in compared:
        assert (one.standard_ms, one.onnxruntime_ms) == (pytest.approx(10), pytest.approx(8))
        assert one.ratio == pytest.approx(0.8)
        assert standard.batches.count(one.batch) == fused.batches.count(one.batch) == one.rounds + 2
        assert 5 <= one.rounds <= 50
    assert is_faster(compared)
    slow = SleepingRunner(clock, itertools.cycle([10.0]))
    assert [one.rounds for one in compare_speed(slow, slow, {"x": np.zeros((9, 3))}, max_batch=4)] == [5, 5]  # type: ignore[arg-type]
    assert sorted(set(slow.batches)) == [1, 4]
