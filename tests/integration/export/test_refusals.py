"""What ``hero-export onnx`` refuses, and what it leaves on the disk then."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch.nn import functional as F

from hero_export import ExportError, FusionError, VerificationError, export_bundle
from hero_export.cli import main
from hero_export.onnx import forms
from hero_export.onnx.graphs import Graph
from hero_sdk.manifest import read_bundle
from hero_train.model.hero import HeroModel
from tests.integration.export.exported import GRAPHS, OPTIONS, Exported, content
from tests.tiny_checkpoint import GEOMETRY, MAX_BATCH


def written_out(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor, **_: float
) -> torch.Tensor:
    """Attention as three operations."""
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    return scores.masked_fill(~attn_mask, -1e4).softmax(dim=-1) @ value


def test_attention_written_out_by_hand_is_refused(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(F, "scaled_dot_product_attention", written_out)
    with pytest.raises(
        FusionError, match=r"'cross_modal' .* 0 Attention, expected 2; in its place stand Softmax"
    ) as caught:
        export_bundle(exported.checkpoint, tmp_path / "bundle", geometry=GEOMETRY, max_batch=MAX_BATCH)
    assert "of cross_modal.layers.0.attention" in str(caught.value)
    assert not list(tmp_path.iterdir())


def alter_weight(path: Path) -> None:
    """Change the largest matrix of a graph a little, as a bad cast or a bad optimisation pass would."""
    graph = onnx.load(str(path))
    weights = [tensor for tensor in graph.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    weight = max(weights, key=lambda tensor: len(tensor.raw_data))
    values = numpy_helper.to_array(weight).copy()
    values *= 1.01
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(graph, str(path))


@pytest.mark.parametrize("name", GRAPHS)
def test_weights_altered_after_the_export_fail_verification(
    copied: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = forms.export_graph

    def sabotaged(graph: Graph, path: Path) -> None:
        real(graph, path)
        if graph.name == name:
            alter_weight(path)

    monkeypatch.setattr(forms, "export_graph", sabotaged)
    with pytest.raises(VerificationError, match=rf"comparisons with the model failed(.|\n)* {name} -> "):
        copied(tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_refused(exported: Exported, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(exported.checkpoint, tmp_path / "checkpoint"))
    broken = HeroModel.from_pretrained(checkpoint)
    with torch.no_grad():
        broken.temporal.norm.bias[3] = float("nan")
    broken.save_pretrained(checkpoint)
    with pytest.raises(ExportError, match=r"not finite: \['temporal\.norm\.bias'\] \(1 in all\)"):
        export_bundle(checkpoint, tmp_path / "bundle", geometry=GEOMETRY)
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_that_is_there_stays_untouched_without_force(
    copy: Path, exported: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(copy)
    monkeypatch.setattr(sys, "argv", ["hero-export", "onnx", str(exported.checkpoint), "--out", str(copy), *OPTIONS])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 3
    output = capsys.readouterr()
    assert "already a bundle" in output.err
    assert "--force" in output.err
    assert output.out == ""
    assert content(copy) == before


def test_force_replaces_a_bundle_whole(copied: Callable[..., object], copy: Path) -> None:
    (copy / "reports" / "mine.txt").write_text("old")
    copied(copy, force=True)
    assert sorted(content(copy)) == sorted([*read_bundle(copy).files, "manifest.json"])
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


@pytest.mark.parametrize("stage", ["Exporting query", "Comparing temporal with the model", "Writing the report"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_failure_in_the_middle_leaves_nothing_behind(
    copied: Callable[..., object], copy: Path, stage: str, error: BaseException
) -> None:
    before = content(copy)

    def fail(begun: str) -> None:
        if begun.startswith(stage):
            raise error

    expected = KeyboardInterrupt if error is KeyboardInterrupt else ExportError
    with pytest.raises(expected):
        copied(copy, force=True, on_stage=fail)
    with pytest.raises(expected):
        copied(copy.parent / "new", on_stage=fail)
    assert content(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
