"""One module to one ONNX file: what is written, and which files are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.onnx._internal.exporter import _onnx_program

from hero_export import ExportError
from hero_export.onnx.export import MODULE_PATH, _check_file, export_graph
from hero_export.onnx.fusion import graph_bytes, read_model
from hero_export.onnx.graphs import Graph
from hero_sdk.manifest import TensorSpec

WIDTH = 4


class Affine(nn.Module):
    """A linear map in a module of its own, of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())

    def forward(self, values: Tensor, shift: Tensor) -> Tensor:
        return self.inner(values) + shift


class FixedBatch(nn.Module):
    """Takes the batch that it is traced with for a constant."""

    def forward(self, values: Tensor, shift: Tensor) -> Tensor:
        return values.reshape(2, WIDTH) + shift


class Untranslatable(nn.Module):
    """Uses a function that ONNX has not."""

    def forward(self, values: Tensor, shift: Tensor) -> Tensor:
        return torch.special.bessel_j0(values) + shift


class Narrow(nn.Module):
    """Gives another shape than the graph promises."""

    def forward(self, values: Tensor, shift: Tensor) -> Tensor:
        return (values + shift)[:, 1:]


def graph_of(module: nn.Module) -> Graph:
    inputs = tuple(TensorSpec(name, "float32", (-1, WIDTH)) for name in ("values", "shift"))
    return Graph("part", module.eval(), inputs, (TensorSpec("sums", "float32", (-1, WIDTH)),))


def run(path: Path, batch: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(batch)
    inputs = {name: rng.standard_normal((batch, WIDTH), dtype=np.float32) for name in ("values", "shift")}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["sums"], inputs)
    return inputs, found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("graph") / "part.onnx"
    export_graph(graph_of(Affine()), target)
    return target


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_batch_is_free(path: Path, batch: int) -> None:
    inputs, found = run(path, batch)
    with torch.no_grad():
        expected = Affine()(*(torch.from_numpy(array) for array in inputs.values())).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_nodes_keep_the_names_of_their_modules_and_no_other_notes(path: Path) -> None:
    model = onnx.load(str(path))
    modules = set()
    for node in model.graph.node:
        assert {entry.key for entry in node.metadata_props} <= {MODULE_PATH}
        modules |= {entry.value for entry in node.metadata_props}
    assert any("'inner.0'" in names for names in modules)
    assert not model.metadata_props
    assert not any(value.metadata_props for value in (*model.graph.input, *model.graph.value_info))
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


def test_weights_that_do_not_fit_one_file_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The limit is lowered; a model of gigabytes would not fit a test.
    monkeypatch.setattr(_onnx_program, "_LARGE_MODEL_THRESHOLD", 1)
    target = tmp_path / "part.onnx"
    export_graph(graph_of(Affine()), target)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["part.onnx", "part.onnx.data"]
    sizes = [(tmp_path / name).stat().st_size for name in ("part.onnx", "part.onnx.data")]
    assert graph_bytes(target, read_model(target)) == sum(sizes)
    inputs, found = run(target, 3)
    with torch.no_grad():
        expected = Affine()(*(torch.from_numpy(array) for array in inputs.values())).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (FixedBatch(), r"'part' cannot be exported with torch .*Constraints violated \(batch\)"),
        (Narrow(), r"has the outputs .*\('batch', 3\).*; expected .*\('batch', 4\)"),
        (Untranslatable(), r"'part' cannot be exported with torch .*bessel_j0"),
    ],
)
def test_a_module_that_does_not_give_the_promised_graph_is_refused(
    tmp_path: Path, module: nn.Module, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        export_graph(graph_of(module), tmp_path / "part.onnx")


def rename_output(model: ModelProto) -> None:
    model.graph.node[-1].output[0] = "other"


def add_idle_weight(model: ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "idle"))


def give_wrong_shape(model: ModelProto) -> None:
    """A weight whose shape does not go with the input."""
    weight = next(weight for weight in model.graph.initializer if len(weight.dims) == 2)
    weight.CopyFrom(numpy_helper.from_array(np.zeros((WIDTH + 1, WIDTH), np.float32), weight.name))


def change_dtype(model: ModelProto) -> None:
    cast = helper.make_node(
        "Cast", [model.graph.input[1].name + "_64"], [model.graph.input[1].name], to=TensorProto.FLOAT
    )
    model.graph.node.insert(0, cast)
    model.graph.input[1].name += "_64"
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.DOUBLE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_output, "is not valid ONNX: "),
        (give_wrong_shape, "is not valid ONNX: "),
        (add_idle_weight, r"carries weights that nothing reads: \['idle'\] \(1 in all\)"),
        (change_dtype, r"has the inputs .*\('shift_64', 'float64'"),
    ],
)
def test_a_file_that_is_not_what_the_graph_promises_is_refused(
    path: Path, tmp_path: Path, change: Callable[[ModelProto], None], message: str
) -> None:
    model = onnx.load(str(path))
    change(model)
    onnx.save(model, str(tmp_path / "part.onnx"))
    with pytest.raises(ExportError, match=message):
        _check_file(graph_of(Affine()), tmp_path / "part.onnx")
