"""What a graph computes on this machine, and in what precision onnxruntime really computes it here.

A graph's precision is one thing and a processor's another: onnxruntime has no half-precision products for most CPUs, and turns
those of an fp16 graph back into float32 without a word; bfloat16 it refuses. So what it made of a graph is read back as well.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir

from hero_export.precision.cast import HALVES
from hero_export.precision.readback import Readback, precision_of
from hero_export.precision.report import OutputError
from hero_sdk.engines.batching import Arrays
from hero_sdk.engines.onnxruntime import open_session
from hero_sdk.errors import EngineError
from hero_sdk.manifest import GraphSpec

CPU = "CPUExecutionProvider"

_TINY = 1e-12

_MASKS = {
    "hidden": "segment_ids",
    "clip_embeddings": "segment_ids",
    "start": "clip_mask",
    "end": "clip_mask",
    "answer": "answer_mask",
}
"""The input that says which elements of an output mean something; all do where none is named."""


def executed_precision(path: Path) -> Readback:
    """The precision of the matrix products that onnxruntime runs on the CPU for an ONNX file, after all that it changes in it.

    Raises:
        EngineError: it cannot run the graph here.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns that the file is for this machine alone, which is what it is for
        options.optimized_model_filepath = str(changed)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
        try:
            onnxruntime.InferenceSession(str(path), options, providers=[CPU])
        except Exception as error:  # onnxruntime's exceptions share no base class but Exception
            raise EngineError(
                f"onnxruntime {onnxruntime.__version__} cannot run {path.name} on the CPU ({str(error).strip()}); expected kernels "
                "for all of its operators. Run it on a device that has them, or choose another precision."
            ) from error
        return precision_of(onnx.load(str(changed), load_external_data=False), path.stem)


def run_graph(path: Path, spec: GraphSpec, rows: Sequence[Mapping[str, np.ndarray]]) -> list[Arrays]:
    """The outputs of a graph for some rows. One in bfloat16 is computed in float32 with each result rounded to bfloat16.

    Args:
        path: of the ONNX file.
        spec: of the graph in the manifest.
        rows: inputs with the batch in front.

    Raises:
        BundleError: onnxruntime cannot open it.
    """
    model = onnx_ir.load(path)
    with tempfile.TemporaryDirectory() as folder:
        if _is_bfloat(model):
            emulate(model)
            path = Path(folder) / path.name
            onnx_ir.save(model, path, external_data=f"{path.name}.data")
        session = open_session(path, providers=[CPU])
        names = [tensor.name for tensor in spec.outputs]
        return [dict(zip(names, session.run(names, dict(row)), strict=True)) for row in rows]


def output_errors(
    expected: Sequence[Arrays], found: Sequence[Arrays], rows: Sequence[Mapping[str, np.ndarray]]
) -> tuple[OutputError, ...]:
    """How far outputs are from those that are expected, where they mean something: slots that hold something, clips that are there.

    Args:
        expected, found: outputs of each row.
        rows: the inputs.
    """
    errors = []
    for name in expected[0]:
        wanted, got = (np.concatenate([one[name] for one in outputs]) for outputs in (expected, found))
        mask = _MASKS.get(name)
        seen = np.concatenate([row[mask] for row in rows]) > 0 if mask else np.ones(wanted.shape, dtype=bool)
        if seen.any():
            wanted, got = wanted[seen], got[seen]
        with np.errstate(invalid="ignore"):  # infinity beside infinity is a finding, not a mishap
            difference, size = np.abs(got.astype(np.float64) - wanted), np.abs(wanted.astype(np.float64))
        errors.append(
            OutputError(
                name,
                largest=float(difference.max() / max(size.max(), _TINY)),
                mean=float(difference.mean() / max(size.mean(), _TINY)),
            )
        )
    return tuple(errors)


def _is_bfloat(model: onnx_ir.Model) -> bool:
    half, _ = HALVES["bf16"]
    return any(node.op_type == "Cast" and node.attributes["to"].value == half for node in model.graph)


def emulate(model: onnx_ir.Model) -> None:
    """Turn a graph in bfloat16 into one in float32 that rounds every result to bfloat16, in place.

    It computes what a processor does that multiplies bfloat16 and adds in float32.
    """
    half, _ = HALVES["bf16"]
    for weight in list(model.graph.initializers.values()):
        if weight.dtype == half:
            assert weight.const_value is not None
            wide = onnx_ir.tensor(weight.const_value.numpy().astype(np.float32), name=weight.name)
            weight.const_value = wide
            weight.dtype = onnx_ir.DataType.FLOAT
    for node in list(model.graph):
        results = [value for value in node.outputs if value.dtype == half]
        for value in results:
            if node.op_type != "Cast":
                value.dtype = onnx_ir.DataType.FLOAT
            rounded = value if node.op_type == "Cast" else _cast_after(node, value, half, f"{value.name}.rounded")
            maker = rounded.producer()
            assert maker is not None
            wide_again = _cast_after(maker, rounded, onnx_ir.DataType.FLOAT, f"{value.name}.wide")
            for use in list(value.uses()):
                if use.node not in (maker, wide_again.producer()):
                    use.node.replace_input_with(use.idx, wide_again)


def _cast_after(node: onnx_ir.Node, value: onnx_ir.Value, kind: onnx_ir.DataType, name: str) -> onnx_ir.Value:
    cast = onnx_ir.node("Cast", [value], {"to": kind}, name=f"{name}.cast")
    cast.outputs[0].name, cast.outputs[0].dtype, cast.outputs[0].shape = name, kind, value.shape
    assert node.graph is not None
    node.graph.insert_after(node, cast)
    return cast.outputs[0]
