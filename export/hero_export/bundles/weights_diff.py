"""Weights of two ONNX files, compared piece by piece from the disk: large graphs need no more memory than small ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from hero_sdk.onnx_file import StoredTensor, read_outline

PIECE = 1 << 20
"""Values compared at a time."""


@dataclass(frozen=True)
class WeightDifference:
    """A weight that differs between two bundles.

    Attributes:
        graph, name: which.
        a, b: type and shape in each, such as "float32 (768, 768)"; None where the weight is missing.
        bytes: size in A, or in B where A has none.
        changed: share of the values that differ; None where the shapes differ.
        max_error: the largest absolute difference; None where there is none to be had, or it is not finite.
        relative_error: norm of the difference as a share of the norm in A; None likewise.
    """

    graph: str
    name: str
    a: str | None
    b: str | None
    bytes: int
    changed: float | None = None
    max_error: float | None = None
    relative_error: float | None = None


@dataclass(frozen=True)
class Weights:
    """The weights of one graph: where they lie."""

    bundle: Path
    file: str
    tensors: dict[str, StoredTensor]

    @classmethod
    def of(cls, bundle: Path, file: str) -> Weights:
        """Look a graph of a checked bundle through."""
        outline = read_outline(bundle, file)
        return cls(bundle, file, {tensor.name: tensor for tensor in outline.tensors if tensor.initializer})

    def values(self, name: str) -> np.ndarray:
        """A weight, flat. It is read from the disk as it is used, unless the graph does not keep it in binary form."""
        tensor, path = self.tensors[name], self.bundle / self.file
        kind = helper.tensor_dtype_to_np_dtype(tensor.dtype)
        size = math.prod(tensor.shape) * kind.itemsize
        place = tensor.raw
        if tensor.external is not None:
            path = path.parent / tensor.external.location
            begin = tensor.external.offset
            place = (begin, begin + (size if tensor.external.length is None else tensor.external.length))
        # Types of less than a byte are packed, two or more in one.
        if place is not None and place[1] - place[0] == size and size:
            return np.memmap(path, dtype=np.uint8, mode="r", offset=place[0], shape=(size,)).view(kind)
        with (self.bundle / self.file).open("rb") as file:
            file.seek(tensor.message[0])
            message = TensorProto.FromString(file.read(tensor.message[1] - tensor.message[0]))
        return numpy_helper.to_array(message, base_dir=str(path.parent)).reshape(-1)

    def described(self, name: str) -> str:
        """Type and shape."""
        tensor = self.tensors[name]
        kind = TensorProto.DataType.Name(tensor.dtype).lower()
        return f"{kind} {tensor.shape}"

    def bytes(self, name: str) -> int:
        """Size of the values."""
        tensor = self.tensors[name]
        return math.prod(tensor.shape) * helper.tensor_dtype_to_np_dtype(tensor.dtype).itemsize


def compare_weights(graph: str, a: Weights, b: Weights) -> list[WeightDifference]:
    """The weights that differ, those with the largest relative difference first, then those that only one graph has."""
    found = []
    for name in a.tensors.keys() & b.tensors.keys():
        if a.tensors[name].shape != b.tensors[name].shape:
            found.append(WeightDifference(graph, name, a.described(name), b.described(name), a.bytes(name)))
        elif (difference := _compare(graph, name, a, b)) is not None:
            found.append(difference)
    found.sort(key=lambda item: (-(math.inf if item.relative_error is None else item.relative_error), item.name))
    for name in sorted(a.tensors.keys() - b.tensors.keys()):
        found.append(WeightDifference(graph, name, a.described(name), None, a.bytes(name)))
    for name in sorted(b.tensors.keys() - a.tensors.keys()):
        found.append(WeightDifference(graph, name, None, b.described(name), b.bytes(name)))
    return found


def _compare(graph: str, name: str, a: Weights, b: Weights) -> WeightDifference | None:
    first, second = a.values(name), b.values(name)
    if first.dtype == object or second.dtype == object:  # texts
        share = float(np.mean(first != second)) if len(first) else 0.0
        return WeightDifference(graph, name, a.described(name), b.described(name), 0, share) if share else None
    changed, largest, squares, norm = 0, 0.0, 0.0, 0.0
    for x, y in _pieces(first, second):
        with np.errstate(invalid="ignore", over="ignore"):  # infinities and NaN are findings, not mishaps
            error = np.abs(x - y)
            # A NaN beside a number differs; beside another NaN it does not.
            error[(x == y) | (np.isnan(x) & np.isnan(y))] = 0
            error[np.isnan(error)] = math.inf
            norm += float(np.square(x).sum())
            squares += float(np.square(error).sum())
        changed += int(np.count_nonzero(error))
        largest = max(largest, float(error.max(initial=0)))
    same_type = a.tensors[name].dtype == b.tensors[name].dtype
    if same_type and not changed:
        return None
    return WeightDifference(
        graph,
        name,
        a.described(name),
        b.described(name),
        a.bytes(name),
        changed=changed / max(len(first), 1),
        max_error=largest if math.isfinite(largest) else None,
        relative_error=math.sqrt(squares / norm) if math.isfinite(squares) and math.isfinite(norm) and norm else None,
    )


def _pieces(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for begin in range(0, len(a), PIECE):
        x, y = a[begin : begin + PIECE], b[begin : begin + PIECE]
        yield x.astype(np.float64), y.astype(np.float64)
