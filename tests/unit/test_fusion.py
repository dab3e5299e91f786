"""Fused operators are counted as the architecture has them, and what stands in their place is found."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional as F

from hero_export import FusionError
from hero_export.onnx.export import MODULE_PATH, export_graph
from hero_export.onnx.fusion import (
    POOLINGS,
    check_fusion,
    model_nodes,
    module_of,
    operator_counts,
    read_model,
    unfused_counts,
)
from hero_export.onnx.graphs import graphs_of
from hero_export.onnx.onnxruntime_form import DOMAIN
from hero_export.onnx.operators import ATTENTION, GELU, NORM, FusedOperators, fused_counts
from hero_sdk.errors import BundleError
from hero_sdk.manifest import CAPTIONING, QUESTION_ANSWERING, RETRIEVAL, STATEMENTS
from hero_train.model.tasks import MODEL_CLASSES
from tests.tiny_checkpoint import ANSWERS, CAPTION_TOKENS, GEOMETRY, TEXT_GEOMETRY, make_model, task_config

FUSED = FusedOperators(attentions=2, norms=3, sums=2, gelus=1, biased=1)
EXPECTED = {"Attention": 2, "LayerNormalization": 3, "Gelu": 1}


def nodes_of(*operators: str, domain: str = "") -> list[onnx.NodeProto]:
    return [helper.make_node(operator, ["x"], ["y"], name=f"node_{operator}", domain=domain) for operator in operators]


def complete() -> list[onnx.NodeProto]:
    return nodes_of("Attention", "MatMul", "Attention", "Gelu", *["LayerNormalization"] * 3)


MODELS = [
    (RETRIEVAL, {"cross_modal_layers": 2, "temporal_layers": 1}),
    (RETRIEVAL, {"cross_modal_layers": 1, "temporal_layers": 3}),
    (QUESTION_ANSWERING, {"temporal_layers": 2}),
    (STATEMENTS, {"temporal_layers": 2}),
    (CAPTIONING, {"decoder_layers": 3}),
]


@pytest.mark.parametrize(("task", "changes"), MODELS)
def test_the_implied_operators_are_what_the_modules_call(
    task: str, changes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted at run time: every norm by a hook, every attention, GELU and softmax by a wrapper."""
    calls: Counter[str] = Counter()
    model = MODEL_CLASSES[task](dataclasses.replace(task_config(task), **changes))
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(lambda *_: calls.update([NORM]))

    def counted(owner: object, name: str, operator: str) -> None:
        original = getattr(owner, name)

        def wrapper(*args: Any, **options: Any) -> Any:
            calls.update([operator])
            return original(*args, **options)

        monkeypatch.setattr(owner, name, wrapper)

    counted(F, "gelu", GELU)
    counted(F, "scaled_dot_product_attention", ATTENTION)
    counted(Tensor, "softmax", "Softmax")
    for graph in graphs_of(model, TEXT_GEOMETRY, answers=ANSWERS, caption_tokens=CAPTION_TOKENS).values():
        calls.clear()
        with torch.no_grad():
            graph.module(*graph.example(batch=2))
        assert graph.fused is not None
        poolings = {"Softmax": POOLINGS[graph.name]} if graph.name in POOLINGS else {}
        assert graph.fused.counts("standard") | poolings == calls


def test_a_complete_graph_passes_with_its_counts() -> None:
    assert check_fusion("cross_modal", complete(), FUSED) == EXPECTED


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (complete()[1:], "1 Attention, expected 2"),
        (complete() + nodes_of("Attention"), "3 Attention, expected 2"),
        (complete() + nodes_of("Softmax"), "2 Attention, expected 2; in its place stand Softmax 'node_Softmax'"),
        (complete() + nodes_of("LogSoftmax"), "in its place stand LogSoftmax"),
        (complete()[:-1], "2 LayerNormalization, expected 3"),
        (complete()[:-1] + nodes_of("ReduceMean", "Sqrt"), "ReduceMean 'node_ReduceMean', Sqrt 'node_Sqrt'"),
        (complete() + nodes_of("Erf"), "1 Gelu, expected 1; in its place stand Erf"),
        (complete()[2:] + nodes_of("Attention", domain="com.microsoft"), "1 Attention, expected 2"),
        ([], "0 Attention, expected 2. 0 LayerNormalization, expected 3. 0 Gelu, expected 1"),
        (complete() + nodes_of(*["Erf"] * 5), r"'node_Erf' and 2 more"),
    ],
)
def test_a_missing_surplus_or_written_out_operator_is_refused(nodes: list[onnx.NodeProto], message: str) -> None:
    with pytest.raises(FusionError, match=message) as caught:
        check_fusion("cross_modal", nodes, FUSED)
    assert str(caught.value).startswith("Graph 'cross_modal' was not exported with the fused operators")


def test_the_pooling_of_queries_is_the_one_softmax_that_belongs_in_a_graph() -> None:
    nodes = complete() + nodes_of("Softmax")
    assert check_fusion("query", nodes, FUSED) == EXPECTED
    with pytest.raises(FusionError, match="in its place stand Softmax"):
        check_fusion("query", nodes + nodes_of("Softmax"), FUSED)


def in_onnxruntimes_form() -> list[onnx.NodeProto]:
    own = nodes_of(
        "MultiHeadAttention", "MultiHeadAttention", *["SkipLayerNormalization"] * 2, "BiasGelu", domain=DOMAIN
    )
    return [*own, *nodes_of("LayerNormalization", "MatMul")]


def test_onnxruntimes_form_has_operators_of_its_own() -> None:
    expected = {
        "LayerNormalization": 1,
        "com.microsoft::MultiHeadAttention": 2,
        "com.microsoft::SkipLayerNormalization": 2,
        "com.microsoft::BiasGelu": 1,
    }
    assert check_fusion("cross_modal", in_onnxruntimes_form(), FUSED, "onnxruntime") == expected
    assert FUSED.counts("onnxruntime") == expected


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (in_onnxruntimes_form()[1:], "1 com.microsoft::MultiHeadAttention, expected 2"),
        (complete(), "2 Attention, expected 0. 0 com.microsoft::MultiHeadAttention, expected 2"),
        ([*in_onnxruntimes_form(), *nodes_of("Erf")], "expected 1; in its place stand Erf 'node_Erf'"),
        (in_onnxruntimes_form()[:4], "0 com.microsoft::BiasGelu, expected 1"),
    ],
)
def test_an_operator_that_is_missing_in_onnxruntimes_form_is_refused(nodes: list[onnx.NodeProto], message: str) -> None:
    with pytest.raises(FusionError, match=message):
        check_fusion("cross_modal", nodes, FUSED, "onnxruntime")


@pytest.mark.parametrize(("approximate", "refused"), [("tanh", True), ("none", False)])
def test_gelus_approximation_is_another_function(approximate: str, refused: bool) -> None:
    nodes = [*nodes_of("Attention", "Attention", *["LayerNormalization"] * 3)]
    nodes.append(helper.make_node("Gelu", ["x"], ["y"], approximate=approximate))
    if refused:
        with pytest.raises(FusionError, match="1 Gelu with the tanh approximation"):
            check_fusion("cross_modal", nodes, FUSED)
    else:
        assert check_fusion("cross_modal", nodes, FUSED) == EXPECTED


def test_counts_say_which_operators_are_not_the_standards() -> None:
    counts = operator_counts([*complete(), *nodes_of("Gelu", domain="com.microsoft")])
    assert counts["com.microsoft::Gelu"] == 1
    assert next(iter(counts)) == "LayerNormalization"
    assert fused_counts(counts) == EXPECTED
    assert fused_counts({"MatMul": 3}) == {}


def test_pieces_are_looked_for_everywhere_but_in_the_frame_encoder() -> None:
    counts = {"Softmax": 3, "Erf": 1, "MatMul": 9}
    assert unfused_counts("cross_modal", counts) == {"Softmax": 3, "Erf": 1}
    assert unfused_counts("query", counts) == {"Softmax": 2, "Erf": 1}
    assert unfused_counts("answer", counts) == {"Softmax": 1, "Erf": 1}
    assert unfused_counts("frames", counts) == {}


def graph_of(nodes: Sequence[onnx.NodeProto], name: str = "graph") -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])


def test_nodes_of_functions_and_of_subgraphs_are_counted() -> None:
    inner = helper.make_node(
        "If", ["c"], ["y"], then_branch=graph_of(nodes_of("Erf")), else_branch=graph_of(nodes_of("Sqrt"))
    )
    function = helper.make_function(
        "own", "Block", ["x"], ["y"], nodes_of("Softmax"), [helper.make_opsetid("", 23)], []
    )
    outer = helper.make_node("If", ["c"], ["y"], then_branch=graph_of([inner]), else_branch=graph_of(nodes_of("Pow")))
    model = helper.make_model(graph_of([*nodes_of("MatMul"), outer]), functions=[function])
    counts = operator_counts(model_nodes(model))
    assert counts == {"If": 2, "MatMul": 1, "Erf": 1, "Sqrt": 1, "Pow": 1, "Softmax": 1}


def test_a_node_is_placed_in_its_innermost_module() -> None:
    node = nodes_of("Softmax")[0]
    assert module_of(node) == ""
    entry = node.metadata_props.add()
    entry.key, entry.value = MODULE_PATH, "['', 'temporal', 'temporal.layers.0', 'softmax']"
    assert module_of(node) == "temporal.layers.0"
    with pytest.raises(FusionError, match=r"Softmax 'node_Softmax' of temporal\.layers\.0"):
        check_fusion("temporal", [*complete(), node], FUSED)


def test_a_file_that_is_not_onnx(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(b"\xff" * 40)
    with pytest.raises(BundleError, match=r"graph\.onnx is not a whole ONNX file"):
        read_model(tmp_path / "graph.onnx")


def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor, dropout_p: float) -> Tensor:
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    return scores.masked_fill(~attn_mask, -1e4).softmax(dim=-1) @ value


def norm(module: nn.LayerNorm, hidden: Tensor) -> Tensor:
    centred = hidden - hidden.mean(dim=-1, keepdim=True)
    scale = torch.rsqrt(centred.pow(2).mean(dim=-1, keepdim=True) + module.eps)
    return centred * scale * module.weight + module.bias


def gelu(hidden: Tensor) -> Tensor:
    return hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))


@pytest.mark.parametrize(
    ("owner", "name", "by_hand", "message"),
    [
        (F, "scaled_dot_product_attention", attention, "0 Attention, expected 1; in its place stand Softmax"),
        (nn.LayerNorm, "forward", norm, "0 LayerNormalization, expected 4; in its place stand ReduceMean"),
        (F, "gelu", gelu, "0 Gelu, expected 1; in its place stand Erf"),
    ],
)
def test_a_model_with_an_operator_written_out_by_hand_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, by_hand: object, message: str
) -> None:
    graph = graphs_of(make_model(), GEOMETRY)["temporal"]
    assert graph.fused is not None
    monkeypatch.setattr(owner, name, by_hand)
    export_graph(graph, tmp_path / "temporal.onnx")
    nodes = model_nodes(read_model(tmp_path / "temporal.onnx"))
    with pytest.raises(FusionError, match=message):
        check_fusion("temporal", nodes, graph.fused)
