"""The ranges of what goes into a graph's matrix products, on real rows: the graph is run, and the largest values are kept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir

from hero_sdk.engines.onnxruntime import OnnxRuntimeSession


def largest_values(path: Path, names: Iterable[str], rows: Iterable[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """The largest absolute value of some tensors of a graph.

    Args:
        path: of the ONNX file, float32.
        names: of tensors that it computes, or of its inputs.
        rows: inputs of the graph, one batch after another.

    Returns:
        By name; nothing where there are no rows.

    Raises:
        BundleError: onnxruntime cannot run the graph.
    """
    model = onnx_ir.load(path)
    values = {value.name: value for node in model.graph for value in node.outputs if value.name is not None}
    outputs = {value.name for value in model.graph.outputs}
    computed = [name for name in dict.fromkeys(names) if name in values]
    given = [name for name in dict.fromkeys(names) if name not in values]
    for name in computed:
        if name not in outputs:
            values[name].dtype = onnx_ir.DataType.FLOAT
            model.graph.outputs.append(values[name])
    largest: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        shown = Path(folder) / "shown.onnx"
        onnx_ir.save(model, shown, external_data="shown.data")
        session = OnnxRuntimeSession(shown, providers=["CPUExecutionProvider"])
        for row in rows:
            # Without a name onnxruntime would give all outputs.
            results = session.run(computed, row) if computed else []
            found = dict(zip(computed, results, strict=True)) | {name: row[name] for name in given}
            for name, array in found.items():
                # Not max, which would lose a NaN.
                largest[name] = float(np.maximum(np.abs(array).max(), largest.get(name, 0.0)))
    return largest
