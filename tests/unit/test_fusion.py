"""Fused operators are counted as the architecture has them, and what stands in their place is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional as F

from hero_export import FusionError
from hero_export.fusion import (
    check_fusion,
    expected_counts,
    fused_counts,
    model_nodes,
    module_of,
    operator_counts,
    read_model,
    unfused_counts,
)
from hero_export.graphs import graphs_of
from hero_export.onnx_export import MODULE_PATH, export_graph
from hero_sdk.errors import BundleError
from hero_train.config import HeroConfig
from hero_train.model.hero import HeroModel
from hero_train.model.layers import SelfAttention
from tests.tiny_checkpoint import CONFIG, GEOMETRY, make_model

EXPECTED = {"Attention": 2, "LayerNormalization": 3, "Gelu": 1}


def nodes_of(*operators: str, domain: str = "") -> list[onnx.NodeProto]:
    return [helper.make_node(operator, ["x"], ["y"], name=f"node_{operator}", domain=domain) for operator in operators]


def complete() -> list[onnx.NodeProto]:
    return nodes_of("Attention", "MatMul", "Attention", "Gelu", *["LayerNormalization"] * 3)


@pytest.mark.parametrize(("cross_modal_layers", "temporal_layers"), [(2, 1), (1, 3)])
def test_the_expected_counts_are_what_the_modules_call(
    cross_modal_layers: int, temporal_layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted at run time: every norm and attention by a hook, every GELU by a wrapper."""
    config = HeroConfig(
        **{**vars(CONFIG), "cross_modal_layers": cross_modal_layers, "temporal_layers": temporal_layers}
    )
    calls: Counter[str] = Counter()
    model = HeroModel(config)
    for module in model.modules():
        for kind, operator in ((nn.LayerNorm, "LayerNormalization"), (SelfAttention, "Attention")):
            if isinstance(module, kind):
                module.register_forward_hook(lambda *_, operator=operator: calls.update([operator]))
    gelu = F.gelu

    def counted(hidden: Tensor) -> Tensor:
        calls.update(["Gelu"])
        return gelu(hidden)

    monkeypatch.setattr(F, "gelu", counted)
    for graph in graphs_of(model, GEOMETRY).values():
        calls.clear()
        with torch.no_grad():
            graph.module(*graph.example(batch=2))
        assert expected_counts(config)[graph.name] == calls


def test_a_complete_graph_passes_with_its_counts() -> None:
    assert check_fusion("cross_modal", complete(), EXPECTED) == EXPECTED


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
        check_fusion("cross_modal", nodes, EXPECTED)
    assert str(caught.value).startswith("Graph 'cross_modal' was not exported with the fused operators")


def test_the_pooling_of_queries_is_the_one_softmax_that_belongs_in_a_graph() -> None:
    nodes = complete() + nodes_of("Softmax")
    assert check_fusion("query", nodes, EXPECTED) == EXPECTED
    with pytest.raises(FusionError, match="in its place stand Softmax"):
        check_fusion("query", nodes + nodes_of("Softmax"), EXPECTED)


@pytest.mark.parametrize(("approximate", "refused"), [("tanh", True), ("none", False)])
def test_gelus_approximation_is_another_function(approximate: str, refused: bool) -> None:
    nodes = [*nodes_of("Attention", "Attention", *["LayerNormalization"] * 3)]
    nodes.append(helper.make_node("Gelu", ["x"], ["y"], approximate=approximate))
    if refused:
        with pytest.raises(FusionError, match="1 Gelu with the tanh approximation"):
            check_fusion("cross_modal", nodes, EXPECTED)
    else:
        assert check_fusion("cross_modal", nodes, EXPECTED) == EXPECTED


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
        check_fusion("temporal", [*complete(), node], EXPECTED)


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
    monkeypatch.setattr(owner, name, by_hand)
    export_graph(graph, tmp_path / "temporal.onnx")
    nodes = model_nodes(read_model(tmp_path / "temporal.onnx"))
    with pytest.raises(FusionError, match=message):
        check_fusion("temporal", nodes, expected_counts(CONFIG)["temporal"])
