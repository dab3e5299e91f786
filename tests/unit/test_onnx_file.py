"""The outline of an ONNX file says what onnx itself reads there, and a broken file gets nothing but a refusal."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from hero_export.onnx.fusion import model_nodes, operator_counts
from hero_sdk.errors import BundleError
from hero_sdk.onnx_file import _NESTED, MAX_DEPTH, Outline, read_outline
from tests.tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("onnx") / "bundle", external_weights=True)


def saved(folder: Path, model: ModelProto | bytes) -> Outline:
    (folder / "graph.onnx").write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return read_outline(folder, "graph.onnx")


def external(name: str, **entries: object) -> TensorProto:
    """A weight in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def model_of(graph: GraphProto, **more: object) -> ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11, **more)


def graph_of(nodes: list, weights: list[TensorProto], **more: object) -> GraphProto:
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
    return helper.make_graph(nodes, "g", [], [value], weights, **more)


def every_tensor(message: object) -> Iterator[TensorProto]:
    """All tensors anywhere in a message, found through protobuf's own description of it."""
    for descriptor, value in message.ListFields():  # type: ignore[attr-defined]
        if descriptor.message_type is None:
            continue
        for item in value if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]:
            if isinstance(item, TensorProto):
                yield item
            yield from every_tensor(item)


@pytest.mark.parametrize("graph", ["frames", "cross_modal", "temporal", "query"])
def test_it_is_what_onnx_reads(bundle: Path, graph: str) -> None:
    path = bundle / "graphs" / f"{graph}.onnx"
    outline, model = read_outline(bundle, f"graphs/{graph}.onnx"), onnx.load(str(path), load_external_data=False)
    for ports, values in ((outline.inputs, model.graph.input), (outline.outputs, model.graph.output)):
        assert [(port.name, port.dtype) for port in ports] == [
            (value.name, str(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))) for value in values
        ]
        assert [port.shape for port in ports] == [
            tuple(None if size.dim_param else size.dim_value for size in value.type.tensor_type.shape.dim)
            for value in values
        ]
    found = [tensor for tensor in outline.tensors if tensor.initializer]
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in found] == [
        (weight.name, weight.data_type, tuple(weight.dims)) for weight in model.graph.initializer
    ]
    content = path.read_bytes()
    for tensor, weight in zip(found, model.graph.initializer, strict=True):
        assert TensorProto.FromString(content[slice(*tensor.message)]) == weight
        assert (content[slice(*tensor.raw)] if tensor.raw else b"") == weight.raw_data
        entries = {entry.key: entry.value for entry in weight.external_data}
        if entries:
            assert tensor.external is not None
            assert tensor.external.location == entries["location"] == "query.weights"
            assert (tensor.external.offset, tensor.external.length) == (int(entries["offset"]), int(entries["length"]))
    assert outline.external_files == (("query.weights",) if graph == "query" else ())
    assert outline.operators == operator_counts(model_nodes(model))
    assert outline.opsets == {"": 23}


def in_weights(tensor: TensorProto) -> ModelProto:
    return model_of(graph_of([], [tensor]))


def in_attribute(tensor: TensorProto) -> ModelProto:
    return model_of(graph_of([helper.make_node("Constant", [], ["y"], value=tensor)], []))


def in_attribute_list(tensor: TensorProto) -> ModelProto:
    node = helper.make_node("Odd", [], ["y"])
    node.attribute.add(name="all", type=onnx.AttributeProto.TENSORS).tensors.append(tensor)
    return model_of(graph_of([node], []))


def in_subgraph(tensor: TensorProto) -> ModelProto:
    return model_of(graph_of([helper.make_node("If", ["c"], ["y"], then_branch=graph_of([], [tensor]))], []))


def in_sparse_weights(tensor: TensorProto) -> ModelProto:
    indices = numpy_helper.from_array(np.array([0]), "indices")
    sparse = helper.make_sparse_tensor(tensor, indices, [4])
    return model_of(graph_of([], [], sparse_initializer=[sparse]))


def in_sparse_attribute(tensor: TensorProto) -> ModelProto:
    node = helper.make_node("Constant", [], ["y"])
    attribute = node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.CopyFrom(helper.make_sparse_tensor(tensor, numpy_helper.from_array(np.array([0])), [4]))
    return model_of(graph_of([node], []))


def in_function(tensor: TensorProto) -> ModelProto:
    node = helper.make_node("Constant", [], ["y"], value=tensor, domain="own")
    function = helper.make_function("own", "F", [], ["y"], [node], [helper.make_opsetid("", 23)])
    return model_of(graph_of([], []), functions=[function])


def in_training(tensor: TensorProto) -> ModelProto:
    model = model_of(graph_of([], []))
    model.training_info.add().algorithm.CopyFrom(graph_of([], [tensor]))
    return model


def in_a_second_graph(tensor: TensorProto) -> bytes:
    """Readers merge the two graphs of a file that has two."""
    return model_of(graph_of([], [])).SerializeToString() + in_weights(tensor).SerializeToString()


def holders() -> dict[str, dict[int, str]]:
    """From the descriptions of the installed onnx: which fields of which messages hold a tensor, or a message that does."""
    messages: dict[str, dict[int, str]] = {}

    def visit(descriptor: Any) -> None:
        if descriptor.name not in messages:
            fields = {item.number: item.message_type for item in descriptor.fields if item.message_type is not None}
            messages[descriptor.name] = {number: inner.name for number, inner in fields.items()}
            for inner in fields.values():
                visit(inner)

    visit(ModelProto.DESCRIPTOR)
    holding = {"TensorProto"}
    while more := {name for name, fields in messages.items() if holding & set(fields.values())} - holding:
        holding |= more
    return {
        name.removesuffix("Proto"): {
            number: inner.removesuffix("Proto") for number, inner in fields.items() if inner in holding
        }
        for name, fields in messages.items()
        if name in holding - {"TensorProto"}
    }


def test_no_place_for_a_tensor_is_left_out() -> None:
    """A version of the format with another place fails here."""
    assert holders() == _NESTED


PLACES = [
    in_weights, in_attribute, in_attribute_list, in_subgraph, in_sparse_weights, in_sparse_attribute, in_function,
    in_training, in_a_second_graph,
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_weight_in_another_file_is_found_wherever_it_hides(
    tmp_path: Path, place: Callable[[TensorProto], ModelProto | bytes]
) -> None:
    model = place(external("w", location="../../secret", offset=8, length=16))
    outline = saved(tmp_path, model)
    assert outline.external_files == ("../../secret",)
    (tensor,) = (tensor for tensor in outline.tensors if tensor.external)
    assert (tensor.name, tensor.external.offset, tensor.external.length) == ("w", 8, 16)  # type: ignore[union-attr]
    assert tensor.raw is None
    parsed = model if isinstance(model, ModelProto) else ModelProto.FromString(model)
    assert len(outline.tensors) == len(list(every_tensor(parsed)))
    assert outline.operators == operator_counts(model_nodes(parsed))
    assert outline.opsets == {entry.domain: entry.version for entry in parsed.opset_import}


def test_a_location_is_found_even_where_the_weight_claims_to_be_in_the_file(tmp_path: Path) -> None:
    tensor = external("w", location="/etc/passwd")
    tensor.data_location = TensorProto.DEFAULT
    assert saved(tmp_path, in_weights(tensor)).external_files == ("/etc/passwd",)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "does not name that file once"),
        ([("offset", "0")], "does not name that file once"),
        ([("location", "a"), ("location", "b")], "does not name that file once"),
        ([("location", "a"), ("offset", "-1")], "the offset '-1'"),
        ([("location", "a"), ("length", "1e3")], "the length '1e3'"),
        ([("location", "a"), ("length", "9" * 20)], "the length '9"),
        ([("location", "a"), ("length", "³")], "the length '³'"),
    ],
)
def test_entries_that_two_readers_could_take_differently(
    tmp_path: Path, entries: list[tuple[str, str]], message: str
) -> None:
    tensor = external("w")
    for key, value in entries:
        tensor.external_data.add(key=key, value=value)
    with pytest.raises(BundleError, match=rf"graph\.onnx is not a whole ONNX file: the weight 'w' .*{message}"):
        saved(tmp_path, in_weights(tensor))


def test_a_weight_that_is_listed_as_an_input_is_none(tmp_path: Path) -> None:
    model = in_weights(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    for name in ("x", "w"):
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT32, [2, None, "n"]))
    assert [(port.name, port.dtype, port.shape) for port in saved(tmp_path, model).inputs] == [
        ("x", "int32", (2, None, None))
    ]


def test_inputs_that_are_no_tensors_or_have_no_shape(tmp_path: Path) -> None:
    model = in_weights(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    model.graph.input.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None))
    model.graph.input.append(helper.make_tensor_value_info("t", TensorProto.FLOAT8E5M2, None))
    assert [(port.dtype, port.shape) for port in saved(tmp_path, model).inputs] == [
        ("no tensor", None),
        (f"type {TensorProto.FLOAT8E5M2}", None),
    ]


def test_every_truncation_of_the_graph_is_refused(bundle: Path, tmp_path: Path) -> None:
    content = (bundle / "graphs" / "query.onnx").read_bytes()
    whole = saved(tmp_path, content)
    # The fields behind the graph are small: cut among them, the graph itself is still whole.
    for length in range(0, len(content) - 20, 7):
        with pytest.raises(BundleError):
            saved(tmp_path, content[:length])
    assert saved(tmp_path, content) == whole


def nested(depth: int) -> bytes:
    """A graph in an attribute of a node of a graph, and so on; onnx's own helpers give up before this reader does."""
    graph = graph_of([], []).SerializeToString()
    for _ in range(depth):
        for key in (b"\x32", b"\x2a", b"\x0a"):  # graph of an attribute, attribute of a node, node of a graph
            graph = key + varint(len(graph)) + graph
    return b"\x3a" + varint(len(graph)) + graph


def test_nesting_is_limited(tmp_path: Path) -> None:
    saved(tmp_path, nested((MAX_DEPTH - 2) // 3))
    with pytest.raises(BundleError, match="nested more than 100 deep"):
        saved(tmp_path, nested((MAX_DEPTH - 2) // 3 + 1))


def test_a_file_of_nothing_but_tiny_fields_is_not_walked_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hero_sdk.onnx_file.MAX_FIELDS", 1000)
    with pytest.raises(BundleError, match="more than 1000 fields"):
        saved(tmp_path, b"\x08\x01" * 1001)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x08\x01", "holds no graph"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x00\x01", "there is no field"),
        (b"\x80" * 11, "there is no number"),
        (b"\x3a\x7f", "ends after byte"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "ends after byte"),
        (b"\x0d\x01", "ends after byte"),
        (b"\xff\xff\xff\xff\x7f\x01", "there is no field"),
        (b"\x3a\x05\x2a\x03\x42\x01\xff", "there is no text"),
    ],
)
def test_what_is_no_onnx_file(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        saved(tmp_path, content)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_file_is_refused_or_read_as_onnx_reads_it(bundle: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Bytes changed, cut out and put in: no location that onnx sees is missed, and nothing but a BundleError is raised."""
    content = bytearray(in_attribute(external("w", location="beside.bin")).SerializeToString())
    content += in_subgraph(external("v", location="../up.bin", offset=4)).SerializeToString()
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        cut, new = data.draw(st.integers(0, 3)), data.draw(st.binary(max_size=4))
        content[place : place + cut] = new
    try:
        outline = saved(tmp_path, bytes(content))
    except BundleError:
        return
    try:
        model = ModelProto.FromString(bytes(content))
    except DecodeError:
        return
    seen = {
        entry.value
        for tensor in every_tensor(model)
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert seen <= set(outline.external_files)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(tmp_path: Path, content: bytes) -> None:
    with contextlib.suppress(BundleError):
        assert saved(tmp_path, content).external_files == ()


def test_a_large_weight_is_not_read(tmp_path: Path) -> None:
    """A file of a gigabyte that takes no room on the disk is walked at once."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 28]).SerializeToString()
    size = 1 << 30
    tensor = weight + b"\x4a" + varint(size)
    graph = b"\x2a" + varint(len(tensor) + size) + tensor
    head = b"\x3a" + varint(len(graph) + size) + graph
    with (tmp_path / "graph.onnx").open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    (found,) = read_outline(tmp_path, "graph.onnx").tensors
    assert (found.name, found.shape, found.raw) == ("w", (1 << 28,), (len(head), len(head) + size))


def varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return struct.pack(f"{len(parts) + 1}B", *parts, value)
