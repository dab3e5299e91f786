"""``hero-export inspect`` says what the graphs of a bundle consist of."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import onnx
import pytest
from onnx import helper

from hero_export import FusionError, inspect_bundle
from hero_sdk.errors import BundleError
from hero_sdk.manifest import read_bundle, sha256_of
from tests.tiny_bundle import seal, write_tiny_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle", external_weights=True)


def add_nodes(folder: Path, graph: str, *operators: str) -> None:
    """Put nodes into a graph whose outputs nobody reads."""
    manifest = read_bundle(folder)
    path = folder / manifest.graphs[graph].file
    model = onnx.load(str(path), load_external_data=False)
    value = model.graph.node[-1].output[0]
    model.graph.node.extend(
        helper.make_node(name, [value], [f"extra_{number}"]) for number, name in enumerate(operators)
    )
    path.write_bytes(model.SerializeToString())
    if graph == "frames":
        frames = dataclasses.replace(manifest.frame_encoder, fingerprint=sha256_of(path))
        manifest = dataclasses.replace(manifest, frame_encoder=frames)
    seal(folder, manifest)


def test_every_operator_of_every_graph_is_counted(folder: Path) -> None:
    inspection = inspect_bundle(folder)
    assert [graph.name for graph in inspection.graphs] == ["frames", "cross_modal", "temporal", "query", "moment"]
    for graph in inspection.graphs:
        nodes = onnx.load(str(folder / graph.file), load_external_data=False).graph.node
        counts = Counter(graph.fused) + Counter(graph.unfused) + Counter(graph.others)
        assert counts == Counter(node.op_type for node in nodes)
        assert graph.opsets == {"": 23}
        assert (graph.precision, graph.max_batch) == ("fp32", 4)


def test_fused_and_unfused_operators_are_told_apart(folder: Path) -> None:
    add_nodes(folder, "temporal", "Gelu", "Softmax", "Erf")
    add_nodes(folder, "query", "Softmax", "Softmax")
    add_nodes(folder, "frames", "Softmax")
    graphs = {graph.name: graph for graph in inspect_bundle(folder).graphs}
    assert graphs["temporal"].fused == {"Gelu": 1}
    assert graphs["temporal"].unfused == {"Softmax": 1, "Erf": 1}
    # The pooling of a query, one softmax, belongs there, and so may anything in a frame encoder.
    assert graphs["query"].others["Softmax"] == 1
    assert graphs["query"].unfused["Softmax"] == 1
    assert graphs["frames"].unfused == {}
    assert graphs["frames"].others["Softmax"] == 1


def test_a_graph_that_was_rewritten_has_not_what_its_architecture_implies(folder: Path) -> None:
    inspect_bundle(folder).require_fused()
    add_nodes(folder, "temporal", "Gelu")
    with pytest.raises(FusionError, match=r"temporal: 1 Gelu, expected none\. .* export the bundle again"):
        inspect_bundle(folder).require_fused()


def test_the_size_of_a_graph_includes_its_external_weights(folder: Path) -> None:
    query = next(graph for graph in inspect_bundle(folder).graphs if graph.name == "query")
    sizes = [path.stat().st_size for path in (folder / "graphs").iterdir() if path.name.startswith("query")]
    assert len(sizes) == 2
    assert query.bytes == sum(sizes)


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no manifest\.json; expected a bundle"):
        inspect_bundle(tmp_path)
