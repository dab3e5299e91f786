"""``hero-export diff`` finds what differs, from the contract down to single weights, and nothing where nothing does."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hero_export.bundles.diff import GROUPS, BundleDifference, contract_differences, diff_bundles
from hero_export.bundles.weights_diff import WeightDifference, Weights, compare_weights
from hero_sdk.manifest import Manifest, read_bundle
from tests.tiny_bundle import seal, write_tiny_bundle
from tests.unit.hero_export_command import RunExport, make_export_run


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "a", external_weights=True)


@pytest.fixture
def b(a: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(a, tmp_path / "b"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunExport:
    return make_export_run(monkeypatch, capsys)


def resealed(bundle: Path, **changes: object) -> None:
    manifest = Manifest.from_json((bundle / "manifest.json").read_text(encoding="utf-8"))
    seal(bundle, dataclasses.replace(manifest, **changes))  # type: ignore[arg-type]


def found(difference: BundleDifference) -> dict[str, tuple[object, object]]:
    return {f"{item.group}: {item.what}": (item.a, item.b) for item in difference.differences if item.group != "files"}


def change_weight(bundle: Path, graph: str, change: Callable[[np.ndarray], np.ndarray]) -> str:
    """Change the last matrix of a graph; gives its name."""
    path = bundle / "graphs" / f"{graph}.onnx"
    model = onnx.load(str(path))
    weight = [item for item in model.graph.initializer if item.data_type == TensorProto.FLOAT][-1]
    weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight).copy()), weight.name))
    onnx.save(model, str(path))
    return str(weight.name)


def test_a_copy_is_equal(a: Path, b: Path, run: RunExport) -> None:
    assert diff_bundles(a, b) == BundleDifference(True, True, (), ())
    done = run("diff", a, b)
    assert (done.code, done.out) == (0, "The bundles are equal.\n")
    done = run("diff", a, b, "--json")
    assert (done.code, json.loads(done.out)) == (
        0,
        {"equal": True, "searchable": True, "differences": [], "weights": []},
    )


def test_the_contract(a: Path, b: Path) -> None:
    manifest = read_bundle(b)
    query = dataclasses.replace(manifest.graphs["query"], max_batch=9, precision="int8", fused={"Gelu": 1})
    resealed(
        b,
        graphs={**manifest.graphs, "query": query},
        moment=dataclasses.replace(manifest.moment, nms_iou=0.7, end_taps=(1.0,)),
        tools={"torch": "3"},
    )
    difference = diff_bundles(a, b)
    assert found(difference) == {
        "contract: graphs/query/precision": ("fp32", "int8"),
        "contract: graphs/query/max_batch": (4, 9),
        "contract: graphs/query/fused/Gelu": (None, 1),
        "contract: moment/end_taps": ("(0.0, 0.0, 1.0, 0.0, 0.0)", "(1.0,)"),
        "contract: moment/nms_iou": (0.5, 0.7),
        "versions: torch": (None, "3"),
    }
    assert (difference.equal, difference.searchable, difference.weights) == (False, True, ())


def test_a_graph_that_one_has_alone(a: Path) -> None:
    """As between bundles of two tasks."""
    manifest = read_bundle(a)
    other = dataclasses.replace(
        manifest, graphs={name: graph for name, graph in manifest.graphs.items() if name != "temporal"}
    )
    differences = {item.what: (item.a, item.b) for item in contract_differences(manifest, other)}
    assert differences["graphs/temporal/inputs/matched"] == ("float32 (-1, 16, 4)", None)
    assert all(name.startswith("graphs/temporal/") for name in differences)


def test_the_fingerprint_says_who_searches_whose_corpora(a: Path, b: Path, run: RunExport) -> None:
    resealed(b, fingerprint="another")
    difference = diff_bundles(a, b)
    assert not difference.searchable
    assert found(difference) == {"fingerprint: fingerprint": ("tiny-0", "another")}
    assert "Neither may search the other's corpora" in run("diff", a, b).out
    resealed(b, fingerprint="tiny-0", tools={"x": "1"})
    assert "Each may search the other's corpora" in run("diff", a, b).out


def test_the_tokenizer(a: Path, b: Path) -> None:
    path = b / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary["blue"], vocabulary["green"] = 12, 13
    del vocabulary["red"]
    vocabulary["robot"], vocabulary["gem"] = vocabulary["gem"], vocabulary["robot"]
    content["normalizer"] = {"type": "Lowercase"}
    path.write_text(json.dumps(content), encoding="utf-8")
    resealed(b)
    assert found(diff_bundles(a, b)) == {
        "tokenizer: tokens": (12, 13),
        "tokenizer: tokens of one alone": ("1: red", "2: blue, green"),
        "tokenizer: tokens with another id": (2, 2),
        "tokenizer: normalizer": ("null", '{"type": "Lowercase"}'),
    }
    path.write_text((a / "tokenizer.json").read_text(encoding="utf-8") + " ", encoding="utf-8")
    resealed(b)
    assert found(diff_bundles(a, b)) == {"tokenizer: written in another way, with the same content": ("", "")}


def test_the_frame_encoder(a: Path, b: Path) -> None:
    name = change_weight(b, "frames", lambda weight: weight * np.float32(1.5))
    sha256 = seal(b, Manifest.from_json((b / "manifest.json").read_text())).files["graphs/frames.onnx"].sha256
    resealed(b, frame_encoder=dataclasses.replace(read_spec(b), name="another", fingerprint=sha256))
    difference = diff_bundles(a, b)
    assert set(found(difference)) == {"frame encoder: name", "frame encoder: fingerprint"}
    (weight,) = difference.weights
    assert (weight.graph, weight.name, weight.relative_error) == ("frames", name, pytest.approx(0.5))


def read_spec(bundle: Path) -> object:
    return Manifest.from_json((bundle / "manifest.json").read_text(encoding="utf-8")).frame_encoder


def test_weights_and_by_how_much(a: Path, b: Path) -> None:
    """The numbers are those of numpy on the whole arrays."""
    kept = {}

    def change(weight: np.ndarray) -> np.ndarray:
        kept["before"] = weight.copy()
        weight[0, 0] += 3
        weight[1, 2] -= 0.5
        kept["after"] = weight
        return weight

    name = change_weight(b, "cross_modal", change)
    resealed(b)
    difference = diff_bundles(a, b)
    assert found(difference) == {}
    (weight,) = difference.weights
    before, after = kept["before"].astype(np.float64), kept["after"].astype(np.float64)
    assert (weight.graph, weight.name, weight.a) == ("cross_modal", name, f"float {before.shape}")
    assert weight.changed == pytest.approx(2 / before.size)
    assert weight.max_error == pytest.approx(np.abs(after - before).max())
    assert weight.relative_error == pytest.approx(np.linalg.norm(after - before) / np.linalg.norm(before))
    assert weight.bytes == before.size * 4


def test_weights_in_a_file_of_their_own(a: Path, b: Path) -> None:
    data = bytearray((b / "graphs" / "query.weights").read_bytes())
    data[3] ^= 0x80  # the sign of the first value
    (b / "graphs" / "query.weights").write_bytes(data)
    resealed(b)
    (weight,) = diff_bundles(a, b).weights
    first = abs(float(np.frombuffer(bytes(data[:4]), np.float32)[0]))
    assert (weight.graph, weight.max_error) == ("query", pytest.approx(2 * first))


def test_operators_are_counted(a: Path, b: Path) -> None:
    path = b / "graphs" / "temporal.onnx"
    model = onnx.load(str(path))
    model.graph.node.append(helper.make_node("Gelu", [model.graph.node[-1].output[0]], ["extra"]))
    onnx.save(model, str(path))
    resealed(b)
    assert found(diff_bundles(a, b)) == {"graphs: temporal: Gelu": (None, 1)}


def test_a_graph_that_differs_in_something_else(a: Path, b: Path) -> None:
    path = b / "graphs" / "temporal.onnx"
    model = onnx.load(str(path))
    model.graph.doc_string = "changed"
    onnx.save(model, str(path))
    resealed(b)
    assert found(diff_bundles(a, b)) == {"graphs: temporal: other attributes, constants or order of nodes": ("", "")}


def test_numbers_of_the_reports(a: Path, b: Path) -> None:
    for folder, error, metric in ((a, 1e-6, 0.5), (b, 2e-6, float("nan"))):
        cases = [
            {"graph": "query", "output": "query_vector", "max_error": error, "passed": True},
            {"graph": "temporal", "output": "clip_embeddings", "max_error": 1e-7, "passed": True},
        ]
        (folder / "reports").mkdir()
        report = {"cases": cases if folder == a else cases[::-1], "metrics": {"R@1": metric, "list": [1, 2]}}
        (folder / "reports" / "export.json").write_text(json.dumps(report), encoding="utf-8")
        resealed(folder)
    assert found(diff_bundles(a, b)) == {
        "reports: export: cases/query/query_vector/max_error": (1e-6, 2e-6),
        "reports: export: metrics/R@1": (0.5, None),
    }


def test_every_file_that_differs_is_listed(a: Path, b: Path) -> None:
    (b / "reports").mkdir()
    (b / "reports" / "export.md").write_text("new", encoding="utf-8")
    resealed(b)
    (only,) = diff_bundles(a, b).differences
    assert (only.group, only.what, only.a) == ("files", "reports/export.md", None)
    assert str(only.b).startswith("3 bytes, sha256 ")


def test_the_command(a: Path, b: Path, run: RunExport, tmp_path: Path) -> None:
    change_weight(b, "cross_modal", lambda weight: weight * np.float32(2))
    resealed(b, fingerprint="[red]x[/red]", tools={f"tool{number}": "1" for number in range(30)})
    done = run("diff", a, b)
    assert done.code == 1
    for text in (
        "Fingerprint",
        "[red]x[/red]",
        "Versions",
        "and 10 more (--json shows all)",
        "Weights",
        "1.00e+00",
        "100.0 %",
    ):
        assert text in done.out, text
    content = json.loads(run("diff", a, b, "--json").out)
    assert [item["group"] for item in content["differences"]].count("versions") == 30
    assert {item["group"] for item in content["differences"]} <= set(GROUPS)
    assert content["weights"][0]["relative_error"] == 1.0
    for arguments in ((a, tmp_path / "nowhere"), (tmp_path, a)):
        done = run("diff", *arguments)
        assert (done.code, done.out) == (2, "")
        assert "BundleError" in done.err
    (b / "tokenizer.json").write_text("{}")
    assert run("diff", a, b).code == 2


# Weights alone


def weights(folder: Path, name: str, *tensors: TensorProto) -> Weights:
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph([], "g", [], [value], list(tensors))
    (folder / name).write_bytes(helper.make_model(graph).SerializeToString())
    return Weights.of(folder, name)


def compared(folder: Path, first: list[TensorProto], second: list[TensorProto]) -> list[WeightDifference]:
    return compare_weights("g", weights(folder, "a.onnx", *first), weights(folder, "b.onnx", *second))


def tensor(values: object, kind: object = np.float32, name: str = "w") -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=kind), name)  # type: ignore[arg-type]


def test_another_precision_of_the_same_values(tmp_path: Path) -> None:
    (weight,) = compared(tmp_path, [tensor([1.0, 2.0])], [tensor([1.0, 2.0], np.float16)])
    assert (weight.a, weight.b, weight.changed, weight.max_error) == ("float (2,)", "float16 (2,)", 0, 0)
    (weight,) = compared(tmp_path, [tensor([1.0, 0.1])], [tensor([1.0, 0.1], ml_dtypes.bfloat16)])
    assert weight.changed == 0.5
    assert weight.max_error == pytest.approx(abs(float(ml_dtypes.bfloat16(0.1)) - np.float32(0.1)))


def test_another_shape_has_no_error(tmp_path: Path) -> None:
    (weight,) = compared(tmp_path, [tensor([[1.0, 2.0]])], [tensor([1.0, 2.0])])
    assert weight == WeightDifference("g", "w", "float (1, 2)", "float (2,)", 8)


def test_weights_of_one_graph_alone_come_last(tmp_path: Path) -> None:
    first = [tensor([1.0], name="small"), tensor([1.0], name="large"), tensor([1.0], name="gone")]
    second = [tensor([1.1], name="small"), tensor([3.0], name="large"), tensor([1.0], name="new")]
    names = [(weight.name, weight.a is None, weight.b is None) for weight in compared(tmp_path, first, second)]
    assert names == [("large", False, False), ("small", False, False), ("gone", False, True), ("new", True, False)]


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    assert compared(tmp_path, [tensor([np.nan, np.inf])], [tensor([np.nan, np.inf])]) == []
    (weight,) = compared(tmp_path, [tensor([np.nan, 1.0])], [tensor([2.0, 1.0])])
    assert (weight.changed, weight.max_error, weight.relative_error) == (0.5, None, None)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            helper.make_tensor("w", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("w", TensorProto.INT64, [2], [1, 5]),
        ),
        (
            helper.make_tensor("w", TensorProto.INT4, [3], [1, 2, 3]),
            helper.make_tensor("w", TensorProto.INT4, [3], [1, 2, 6]),
        ),
        (
            helper.make_tensor("w", TensorProto.BOOL, [2], [0, 1]),
            helper.make_tensor("w", TensorProto.BOOL, [2], [1, 1]),
        ),
        (
            helper.make_tensor("w", TensorProto.STRING, [2], [b"a", b"b"]),
            helper.make_tensor("w", TensorProto.STRING, [2], [b"a", b"c"]),
        ),
    ],
)
def test_values_that_are_not_kept_as_plain_bytes(tmp_path: Path, first: TensorProto, second: TensorProto) -> None:
    assert compared(tmp_path, [first], [first]) == []
    (weight,) = compared(tmp_path, [first], [second])
    assert weight.changed == pytest.approx(1 / first.dims[0])


def test_large_weights_are_compared_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two weights of 16 MB each, and far less than one of them in memory."""
    monkeypatch.setattr("hero_export.bundles.weights_diff.PIECE", 1 << 16)
    values = np.random.default_rng(0).standard_normal(1 << 22).astype(np.float32)
    first = weights(tmp_path, "a.onnx", tensor(values))
    values[-1] += 1
    second = weights(tmp_path, "b.onnx", tensor(values))
    tracemalloc.start()
    (weight,) = compare_weights("g", first, second)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert weight.changed == 1 / (1 << 22)
    assert weight.max_error == pytest.approx(1)
    assert peak < 8 << 20
