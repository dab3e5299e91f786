"""A variant on NVIDIA's real tritonserver: what it answers is the variant's, and a client is told which one it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hero_export.triton import write_repository
from hero_sdk.engines.local import LocalEngine
from hero_sdk.engines.triton import TritonEngine
from hero_sdk.errors import ServerError
from hero_sdk.serve import running_server
from tests.integration.export.variants import add_half
from tests.tiny_bundle import example_inputs


def test_a_server_runs_the_variant_that_its_repository_holds(copy: Path, tmp_path: Path) -> None:
    name = add_half(copy)
    repository = write_repository(copy, tmp_path / "repository", variant=name)
    with (
        running_server(repository) as server,
        TritonEngine(server.grpc_url) as served,
        LocalEngine(copy, variant=name) as local,
        LocalEngine(copy) as base,
    ):
        assert served.variant == name
        for graph in ("query", "temporal", "moment"):
            inputs = example_inputs(served.manifest, graph, 2)
            found, expected, exact = (engine.run(graph, inputs) for engine in (served, local, base))
            for output, array in expected.items():
                np.testing.assert_allclose(found[output], array, rtol=1e-5, atol=1e-5)
                rounded = float(np.abs(array - exact[output]).max())
                assert (rounded > 1e-4) == (graph != "moment"), "only the graphs of the variant are rounded"


def test_a_server_of_another_variant_than_it_says_is_refused(copy: Path, tmp_path: Path) -> None:
    """As when a model of the repository was replaced by the bundle's own, which its own sha256 parameter goes with."""
    name = add_half(copy)
    repository = write_repository(copy, tmp_path / "repository", variant=name)
    own = write_repository(copy, tmp_path / "own")
    config = repository / "hero_bundle" / "config.pbtxt"
    text = config.read_text(encoding="utf-8")
    for found, said, message in (
        (
            name,
            "onnxruntime-int4-weights",
            r"runs the variant 'onnxruntime-int4-weights'; its manifest has \['onnxruntime-fp16'\]",
        ),
        (name, None, "was written from another bundle than the manifest served there: its sha256:model.onnx"),
    ):
        said_text = (
            text.replace(json.dumps(found), json.dumps(said))
            if said
            else (own / "hero_bundle" / "config.pbtxt").read_text()
        )
        config.write_text(said_text, encoding="utf-8")
        with running_server(repository) as server, pytest.raises(ServerError, match=message):
            TritonEngine(server.grpc_url)
