"""Where in a graph a variant leaves the model: the error behind every norm, in which each block of a layer ends.

An ONNX graph is given its norms as further outputs. The other engines' files don't offer that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from hero_export.onnx.graphs import Graph
from hero_export.verification.head_cases import Case
from hero_export.verification.report import LayerError
from hero_export.verification.variants import Opened
from hero_sdk.engines.onnxruntime import open_session
from hero_sdk.graph_files import ONNX_SUFFIX

NORMS = ("LayerNormalization", "SkipLayerNormalization", "EmbedLayerNormalization", "SkipSimplifiedLayerNormalization")

LARGEST = 1 << 30
"""Bytes of a graph that is opened with further outputs, which is done in memory; a protocol buffer ends at twice that."""


def layer_errors(
    bundle: Path, opened: Mapping[str, Opened], graphs: Mapping[str, Graph], cases: Mapping[str, Case], threads: int
) -> tuple[list[LayerError], dict[str, str]]:
    """The error behind each norm of each ONNX graph.

    Args:
        bundle: the folder.
        opened: variants that run here.
        graphs: of the model, by name.
        cases: on which input, by graph.
        threads: of a session.

    Returns:
        The errors, and for each variant and graph without them the reason.
    """
    errors: list[LayerError] = []
    absent: dict[str, str] = {}
    for name, graph in graphs.items():
        case = cases[name]
        expected = _hidden_states(graph, case)
        if not expected:
            continue
        for one in opened.values():
            if name not in one.graphs:
                continue
            path = bundle / one.file(name)
            if path.suffix != ONNX_SUFFIX:
                reason = "the file of this engine has no outputs inside the graph"
            elif path.stat().st_size > LARGEST:
                reason = "the graph is too large to be given further outputs"
            else:
                found = _norm_outputs(path, case, threads)
                if [part.shape for part in found] == [tuple(part.shape) for _, part in expected]:
                    pairs = zip(expected, found, strict=True)
                    errors += [
                        _error(one.name, name, place, layer, wanted, got, case)
                        for place, ((layer, wanted), got) in enumerate(pairs)
                    ]
                    continue
                reason = f"the graph has {len(found)} norms and the model {len(expected)}, or of other shapes"
            absent[f"layers of {name}, {one.name}"] = reason
    return errors, absent


def _hidden_states(graph: Graph, case: Case) -> list[tuple[str, np.ndarray]]:
    """What every norm of the module gives, in the order of the calls, with the norm's name."""
    found: list[tuple[str, np.ndarray]] = []

    def keep(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            found.append((name, cast(Tensor, output).numpy()))

        return hook

    norms = [(name, module) for name, module in graph.module.named_modules() if isinstance(module, nn.LayerNorm)]
    hooks = [module.register_forward_hook(keep(name)) for name, module in norms]  # type: ignore[arg-type]
    try:
        with torch.no_grad():
            graph.module(*(torch.from_numpy(case.inputs[tensor.name]) for tensor in graph.inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _norm_outputs(path: Path, case: Case, threads: int) -> list[np.ndarray]:
    """The same from an ONNX file, in the order of its nodes."""
    model = onnx.load(str(path))
    names = [node.output[0] for node in model.graph.node if node.op_type in NORMS]
    declared = {output.name for output in model.graph.output}
    # An output without a type: onnxruntime infers it.
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in declared)
    session = open_session(model.SerializeToString(), threads=threads, providers=["CPUExecutionProvider"])
    taken = {node.name for node in session.get_inputs()}
    return session.run(names, {name: array for name, array in case.inputs.items() if name in taken})


def _error(
    variant: str, graph: str, place: int, layer: str, wanted: np.ndarray, found: np.ndarray, case: Case
) -> LayerError:
    """Over the slots that hold something, where the norm has slots."""
    segments = case.inputs.get("segment_ids")
    if segments is not None and wanted.shape[:-1] == segments.shape:
        wanted, found = wanted[segments > 0], found[segments > 0]
    wanted, found = wanted.astype(np.float64), found.astype(np.float64)
    norms = np.linalg.norm(wanted, axis=-1) * np.linalg.norm(found, axis=-1)
    cosine = (wanted * found).sum(axis=-1) / np.maximum(norms, np.finfo(np.float64).tiny)
    scale = max(float(np.abs(wanted).max()), np.finfo(np.float64).tiny)
    return LayerError(variant, graph, place, layer, float(np.abs(wanted - found).max()) / scale, float(cosine.min()))
