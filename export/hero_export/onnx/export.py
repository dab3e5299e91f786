"""From a PyTorch module to an ONNX file: traced once, static but for the batch, free of what only the exporting machine knows."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir
import torch

from hero_export.errors import ExportError
from hero_export.onnx.folding import fold_weights
from hero_export.onnx.graphs import Graph

OPSET = 23
"""The first with ``Attention`` as a standard operator."""

MODULE_PATH = "pkg.torch.onnx.name_scopes"
"""Metadata of a node: the modules that it came from. Kept, since messages and inspection name nodes by it."""

_REGISTRY_LOGGER = "torch.onnx._internal.exporter._registration"


def export_graph(graph: Graph, path: Path) -> None:
    """Export a graph to ONNX and check the file.

    The weights lie in the file, or in ``<file>.data`` beside it when they come near the 2 GB that one file can hold.

    Args:
        graph: what to export.
        path: of the ONNX file; its folder must exist.

    Raises:
        ExportError: the exporter cannot translate the module, or the file is not what the graph promises.
    """
    batch = torch.export.Dim("batch", min=1)
    # One named dimension names the batch; the exporter finds by itself that the others equal it, and warns when they are
    # named again.
    shapes = tuple({0: batch if number == 0 else torch.export.Dim.DYNAMIC} for number in range(len(graph.inputs)))
    try:
        with _quiet_exporter(), torch.no_grad():
            program = torch.onnx.export(
                graph.module,
                # A batch of 2: a dimension of size 1 would be taken for a constant.
                graph.example(batch=2),
                dynamo=True,
                opset_version=OPSET,
                input_names=[tensor.name for tensor in graph.inputs],
                output_names=[tensor.name for tensor in graph.outputs],
                dynamic_shapes=shapes,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(
            f"Graph '{graph.name}' cannot be exported with torch {torch.__version__}: {_first_line(error)} "
            "Export with the versions that constraints.txt names; with a model of your own, change what the exporter refuses."
        ) from error
    assert program is not None  # torch.onnx.export returns a program whenever dynamo is True
    assert isinstance(program.model, onnx_ir.Model)
    fold_weights(program.model)
    _strip_metadata(program.model)
    program.save(path)
    _check_file(graph, path)


def rewrite_graph(graph: Graph, source: Path, target: Path, change: Callable[[onnx_ir.Model], None]) -> None:
    """Write an exported graph once more with some of it changed, and check the file.

    Args:
        graph: what was exported.
        source: of ``export_graph``.
        target: of the new file; its folder must exist. Weights lie beside it if they lie beside the source.
        change: changes the graph in place.

    Raises:
        ExportError: the file is not what the graph promises any more.
    """
    model = onnx_ir.load(source)
    change(model)
    _strip_metadata(model)
    beside = source.with_name(source.name + ".data").exists()
    onnx_ir.save(model, target, external_data=f"{target.name}.data" if beside else None)
    _check_file(graph, target)


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines() or ["no message"]
    return f"{type(cause).__name__}: {lines[0].rstrip('.')}."


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what torch's exporter says about itself and what no user can act on."""

    def about_torchvision(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    logger = logging.getLogger(_REGISTRY_LOGGER)
    logger.addFilter(about_torchvision)
    try:
        with warnings.catch_warnings():
            # torch copies its own pytree specs in a way that it has deprecated itself.
            warnings.filterwarnings(
                "ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated", category=FutureWarning
            )
            yield
    finally:
        logger.removeFilter(about_torchvision)


def _strip_metadata(model: onnx_ir.Model) -> None:
    """Remove the exporter's notes, stack traces with the paths of this machine among them; keep the modules' names.

    What remains depends on the model and the exporter's version alone, so that the same checkpoint gives the same file on another
    machine.
    """
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    for node in model.graph.all_nodes():
        kept = {key: text for key, text in node.metadata_props.items() if key == MODULE_PATH}
        node.metadata_props.clear()
        node.metadata_props.update(kept)
        for value in node.outputs:
            value.metadata_props.clear()


def _check_file(graph: Graph, path: Path) -> None:
    """Check the file with ONNX's own checker, its inputs and outputs against the graph's, and that every weight is used."""
    try:
        # By path: the checker then reads external data, and models beyond 2 GB.
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"The exported graph '{graph.name}' is not valid ONNX: {_first_line(error)} "
            "Export with the versions that constraints.txt names."
        ) from error
    content = onnx.load(str(path), load_external_data=False).graph
    for kind, promised, found in (("inputs", graph.inputs, content.input), ("outputs", graph.outputs, content.output)):
        expected = [(tensor.name, tensor.dtype, ("batch", *tensor.shape[1:])) for tensor in promised]
        if (actual := [_described(value) for value in found]) != expected:
            raise ExportError(
                f"The exported graph '{graph.name}' has the {kind} {actual}; expected {expected}. "
                "Export with the versions that constraints.txt names."
            )
    used = {name for node in content.node for name in node.input}
    if idle := sorted(weight.name for weight in content.initializer if weight.name not in used):
        raise ExportError(
            f"The exported graph '{graph.name}' carries weights that nothing reads: {idle[:5]} ({len(idle)} in all); "
            "expected none. Export with the versions that constraints.txt names."
        )


def _described(value: onnx.ValueInfoProto) -> tuple[str, str, tuple[str | int, ...]]:
    kind = value.type.tensor_type
    shape = tuple(size.dim_param or size.dim_value for size in kind.shape.dim)
    return value.name, str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)), shape
