"""The outline of an ONNX file: its inputs and outputs, and where each weight lies, without reading a weight or importing onnx.

An ONNX file is a protobuf message. Its weights are byte strings inside it, or lie in other files that it names, so a program
that opens a graph can be led to any file. Here the message is walked field by field, and what is not needed is skipped. Field
numbers are those of ``onnx.proto``. What protobuf allows and no ONNX file has (groups, deep nesting) is refused.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from hero_sdk.bundle_files import open_file
from hero_sdk.errors import BundleError

DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
}  # fmt: skip
"""Names of numpy's dtypes by ONNX's numbers; the smaller types that only weights have are not among them."""

EXTERNAL = 1
"""``data_location`` of a tensor whose values lie in another file."""

MAX_DEPTH = 100
"""Messages inside messages; protobuf's own limit."""

MAX_FIELDS = 2_000_000
"""Fields in all. A graph of a HERO has some ten thousand; a file made of tiny fields would take minutes."""

# Messages inside messages that may hold a tensor, by message and field number.
_NESTED = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class External:
    """Where a tensor's values lie in another file; ``offset`` and ``length`` as the graph writes them, in bytes."""

    location: str
    offset: int = 0
    length: int | None = None


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that a graph stores.

    Attributes:
        name: empty where the graph gives none, as in an attribute.
        dtype: ONNX's number of the type.
        shape: its dimensions.
        message: where its whole message lies in the file: the first byte and the one after the last.
        raw: where its values lie in the file in their binary form, or None when they lie elsewhere or are written otherwise.
        external: where they lie in another file, or None.
        initializer: a weight of the graph itself, not of an attribute, a subgraph or a function.
    """

    name: str
    dtype: int
    shape: tuple[int, ...]
    message: tuple[int, int]
    raw: tuple[int, int] | None
    external: External | None
    initializer: bool


@dataclass(frozen=True)
class Port:
    """An input or output: ``dtype`` is numpy's name, ``shape`` has None for a dimension that the graph leaves open."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Outline:
    """What a graph takes and gives, and what it consists of.

    Attributes:
        inputs, outputs: in the order of the graph; weights are no inputs.
        tensors: every tensor that it stores, those of subgraphs and functions included.
        operators: how many of each operator, likewise; one of another domain than the standard's carries its domain.
        opsets: version of each operator set, by domain ("" is the standard's).
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    tensors: tuple[StoredTensor, ...]
    operators: dict[str, int]
    opsets: dict[str, int]

    @property
    def external_files(self) -> tuple[str, ...]:
        """The files that weights lie in, as the graph names them, each once, sorted."""
        return tuple(sorted({tensor.external.location for tensor in self.tensors if tensor.external is not None}))


def read_outline(bundle: Path, name: str) -> Outline:
    """Walk an ONNX file of a bundle.

    Args:
        bundle: the folder.
        name: of the file, relative to it.

    Raises:
        BundleError: the file cannot be opened, or is not a whole ONNX file.
    """
    path = bundle / name
    with open_file(bundle, name) as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise BundleError(f"{path} is empty; expected an ONNX graph. Copy the bundle again.") from error
        with data:
            return _Walk(data, path).outline()


@dataclass
class _Found:
    """What the walk of one file collects."""

    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    tensors: list[StoredTensor] = field(default_factory=list)
    operators: Counter[str] = field(default_factory=Counter)
    opsets: dict[str, int] = field(default_factory=dict)
    graphs: int = 0


class _Walk:
    """One walk through one file."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data = data
        self._path = path
        self._fields = 0
        self._found = _Found()

    def outline(self) -> Outline:
        self._message("Model", 0, len(self._data), depth=1, top=True)
        found = self._found
        if not found.graphs:
            self._refuse("it holds no graph")
        weights = {tensor.name for tensor in found.tensors if tensor.initializer}
        # Before version 4 of the format a weight was also listed as an input.
        inputs = tuple(port for port in found.inputs if port.name not in weights)
        operators = dict(found.operators.most_common())
        return Outline(inputs, tuple(found.outputs), tuple(found.tensors), operators, found.opsets)

    def _message(self, kind: str, start: int, end: int, depth: int, top: bool) -> None:
        """Walk a message; ``top`` while in the model's own graph, not in a subgraph."""
        if depth > MAX_DEPTH:
            self._refuse(f"its messages are nested more than {MAX_DEPTH} deep")
        nested = _NESTED[kind]
        operator, domain = "", ""
        for number, wire, first, last in self._each(start, end):
            if wire != _BYTES:
                continue
            inner = nested.get(number)
            if inner == "Tensor":
                self._found.tensors.append(self._tensor(first, last, initializer=top and kind == "Graph"))
            elif inner is not None:
                main = kind == "Model" and number == 7
                self._found.graphs += main
                self._message(inner, first, last, depth + 1, top=main)
            elif top and kind == "Graph" and number in (11, 12):
                ports = self._found.inputs if number == 11 else self._found.outputs
                ports.append(self._port(first, last))
            elif kind == "Node" and number == 4:
                operator = self._text(first, last)
            elif kind == "Node" and number == 7:
                domain = self._text(first, last)
            elif kind == "Model" and number == 8:
                self._opset(first, last)
        if kind == "Node":
            self._found.operators[f"{domain}::{operator}" if domain else operator] += 1

    def _opset(self, start: int, end: int) -> None:
        domain, version = "", 0
        for number, wire, first, last in self._each(start, end):
            if number == 1 and wire == _BYTES:
                domain = self._text(first, last)
            elif number == 2 and wire == _VARINT:
                version = self._varint(first, last)[0]
        self._found.opsets[domain] = version

    def _tensor(self, start: int, end: int, initializer: bool) -> StoredTensor:
        name, dtype, location = "", 0, 0
        shape: list[int] = []
        raw: tuple[int, int] | None = None
        entries: list[tuple[str, str]] = []
        for number, wire, first, last in self._each(start, end):
            if number == 1 and wire == _VARINT:
                shape.append(self._varint(first, last)[0])
            elif number == 1 and wire == _BYTES:
                shape += self._packed(first, last)
            elif number == 2 and wire == _VARINT:
                dtype = self._varint(first, last)[0]
            elif number == 8 and wire == _BYTES:
                name = self._text(first, last)
            elif number == 9 and wire == _BYTES:
                raw = (first, last)
            elif number == 13 and wire == _BYTES:
                entries.append(self._entry(first, last))
            elif number == 14 and wire == _VARINT:
                location = self._varint(first, last)[0]
        external = self._external(name, entries) if entries or location == EXTERNAL else None
        return StoredTensor(name, dtype, tuple(shape), (start, end), None if external else raw, external, initializer)

    def _external(self, tensor: str, entries: list[tuple[str, str]]) -> External:
        """A reader may take the first or the last of two entries of one name, so there must be one."""
        values = dict(entries)
        if len(values) != len(entries) or "location" not in values:
            self._refuse(
                f"the weight '{tensor}' lies in another file and does not name that file once: {sorted(entries)}"
            )
        numbers: dict[str, int] = {}
        for key in ("offset", "length"):
            text = values.get(key)
            if text is not None:
                if not (text.isascii() and text.isdigit() and len(text) < 20):
                    self._refuse(
                        f"the weight '{tensor}' has the {key} '{text}' in its file, expected a number of bytes"
                    )
                numbers[key] = int(text)
        return External(values["location"], numbers.get("offset", 0), numbers.get("length"))

    def _entry(self, start: int, end: int) -> tuple[str, str]:
        parts = {1: "", 2: ""}
        for number, wire, first, last in self._each(start, end):
            if wire == _BYTES and number in parts:
                parts[number] = self._text(first, last)
        return parts[1], parts[2]

    def _port(self, start: int, end: int) -> Port:
        name, dtype = "", "no tensor"
        shape: tuple[int | None, ...] | None = None
        for number, wire, first, last in self._each(start, end):
            if number == 1 and wire == _BYTES:
                name = self._text(first, last)
            elif number == 2 and wire == _BYTES:
                for kind, kind_wire, *tensor_type in self._each(first, last):
                    if kind == 1 and kind_wire == _BYTES:
                        dtype, shape = self._tensor_type(*tensor_type)
        return Port(name, dtype, shape)

    def _tensor_type(self, start: int, end: int) -> tuple[str, tuple[int | None, ...] | None]:
        dtype, shape = "unknown", None
        for number, wire, first, last in self._each(start, end):
            if number == 1 and wire == _VARINT:
                value = self._varint(first, last)[0]
                dtype = DTYPES.get(value, f"type {value}")
            elif number == 2 and wire == _BYTES:
                shape = tuple(self._dimension(*place) for kind, _, *place in self._each(first, last) if kind == 1)
        return dtype, shape

    def _dimension(self, start: int, end: int) -> int | None:
        sizes = [
            self._varint(first, last)[0]
            for number, wire, first, last in self._each(start, end)
            if number == 1 and wire == _VARINT
        ]
        return sizes[-1] if sizes else None

    def _each(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """The fields of a message: number, wire type, and where the value begins and ends."""
        position = start
        while position < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                self._refuse(f"it has more than {MAX_FIELDS} fields")
            key, position = self._varint(position, end)
            number, wire = key >> 3, key & 7
            if number == 0 or key >= 1 << 32:
                self._refuse(f"there is no field at byte {position}")
            first = position
            if wire == _VARINT:
                _, position = self._varint(position, end)
            elif wire == _BYTES:
                length, first = self._varint(position, end)
                position = first + length
            elif wire in (_FIXED32, _FIXED64):
                position += 4 if wire == _FIXED32 else 8
            else:
                self._refuse(f"it has a field of wire type {wire} at byte {position}")
            if position > end:
                self._refuse(f"a field that begins at byte {first} ends after byte {end}")
            yield number, wire, first, position

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if position >= end:
                self._refuse(f"it breaks off at byte {position}")
            byte = self._data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (1 << 64) - 1, position
        raise self._error(f"there is no number at byte {position}")

    def _packed(self, position: int, end: int) -> list[int]:
        values = []
        while position < end:
            value, position = self._varint(position, end)
            values.append(value)
        return values

    def _text(self, start: int, end: int) -> str:
        try:
            return self._data[start:end].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._error(f"there is no text at byte {start}") from error

    def _refuse(self, why: str) -> NoReturn:
        raise self._error(why)

    def _error(self, why: str) -> BundleError:
        return BundleError(f"{self._path} is not a whole ONNX file: {why}. Copy the bundle again, or export it again.")
