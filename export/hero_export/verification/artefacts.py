"""What the files of a bundle are, whatever its manifest says of them.

ONNX's own checker and its inference of shapes and types look at each, and the precision of each is read back.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import onnx

from hero_export.onnx.fusion import fusion_problems, model_nodes, read_model
from hero_export.onnx.graphs import Graph
from hero_export.onnx.operators import Operators
from hero_export.precision.microsoft import known_to_onnx
from hero_export.precision.readback import Readback, read_precision
from hero_export.verification.report import BASE, ArtefactCheck
from hero_sdk.graph_files import ONNX_SUFFIX
from hero_sdk.manifest import Manifest
from hero_sdk.variants import ONNXRUNTIME, OPENVINO, VARIANTS_FOLDER, VariantGraph

FORMS: tuple[Operators, ...] = get_args(Operators)

CHECKER, SHAPES, FUSION, PRECISION = "onnx.checker", "shape inference", "fusion", "precision"


def check_artefacts(
    bundle: Path, manifest: Manifest, variants: list[str], graphs: Mapping[str, Graph]
) -> list[ArtefactCheck]:
    """Check every ONNX file of a bundle whose files are known to be the ones that were exported.

    Args:
        bundle: the folder.
        manifest: of it.
        variants: whose files are checked, beside the bundle's own.
        graphs: of the model, whose architecture implies the fused operators.
    """
    files = [(BASE, graph, spec.file, spec.fused) for graph, spec in manifest.graphs.items()]
    files += [
        (name, graph, one.file, one.fused) for name in variants for graph, one in manifest.variants[name].graphs.items()
    ]
    checks = []
    for variant, graph, file, fused in files:
        if file.endswith(ONNX_SUFFIX):
            path = bundle / file
            said = {
                CHECKER: check_model(path),
                SHAPES: infer_shapes(path),
                FUSION: check_fused(path, graph, fused, graphs.get(graph)),
            }
            checks += [ArtefactCheck(variant, graph, file, check, problem) for check, problem in said.items()]
    for name in variants:
        described = manifest.variants[name]
        read = {
            graph: found
            for graph, one in described.graphs.items()
            if (found := _read_back(bundle / one.file, described.engine)) is not None
        }
        checks += [
            ArtefactCheck(
                name, graph, described.graphs[graph].file, PRECISION, check_precision(found, described.graphs[graph])
            )
            for graph, found in read.items()
        ]
        if read and not any(described.precision in found.counts() for found in read.values()):
            problem = f"not one matrix product of the variant is in {described.precision}"
            checks.append(ArtefactCheck(name, "", f"{VARIANTS_FOLDER}/{name}", PRECISION, problem))
    return checks


def _read_back(path: Path, engine: str) -> Readback | None:
    """The precision of a file's products; None where nothing on this machine can read it."""
    if engine == ONNXRUNTIME:
        return read_precision(path)
    if engine == OPENVINO:
        try:
            openvino = importlib.import_module("openvino")
        except ImportError:
            return None
        reader = importlib.import_module("hero_export.openvino.readback")
        found: Readback = reader.read_products(openvino.Core().read_model(str(path)))
        return found
    return None


def check_fused(path: Path, name: str, declared: Mapping[str, int], graph: Graph | None) -> str | None:
    """How the fused operators of a file differ from what the manifest says and the architecture implies; None where they don't.

    Args:
        path: of the ONNX file.
        name: of the graph.
        declared: how many of each the manifest says.
        graph: of the model; None for the frame encoder, which may be any network.
    """
    nodes = model_nodes(read_model(path))
    implied = [] if graph is None or graph.fused is None else [graph.fused.counts(form) for form in FORMS]
    if implied and dict(declared) not in implied:
        return f"the manifest says {dict(declared)}, and the architecture implies {' or '.join(map(str, implied))}"
    return ". ".join(fusion_problems(name, nodes, declared)) or None


def check_precision(readback: Readback, graph: VariantGraph) -> str | None:
    """How the matrix products of a file differ from what the manifest says of them; None where they don't.

    Args:
        readback: of the file.
        graph: what the manifest says.
    """
    found = readback.counts()
    shown = ", ".join(f"{count} in {kind}" for kind, count in found.items()) or "none"
    if found != graph.products:
        wanted = ", ".join(f"{count} in {kind}" for kind, count in graph.products.items()) or "none"
        return f"its matrix products are {shown}; the manifest says {wanted}"
    if found and graph.precision not in found:
        return f"its matrix products are {shown}; the manifest says that most are in {graph.precision}"
    return None


def check_model(path: Path) -> str | None:
    """What ONNX's full check has to say about a file; None where it is content."""
    try:
        # By path: the checker then reads external data, and models beyond 2 GB.
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return _first_line(error)
    return None


def infer_shapes(path: Path) -> str | None:
    """What strict shape inference, with data propagation and types checked, has to say about a file; None where it is content.

    Also said: an output whose shape is another one than the graph declares.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / path.name
        try:
            with known_to_onnx():
                onnx.shape_inference.infer_shapes_path(
                    str(path), str(target), check_type=True, strict_mode=True, data_prop=True
                )
        except onnx.shape_inference.InferenceError as error:
            return _first_line(error)
        inferred = onnx.load(str(target), load_external_data=False).graph
    declared = onnx.load(str(path), load_external_data=False).graph
    for found, wanted in zip(inferred.output, declared.output, strict=True):
        if found.type != wanted.type:
            return f"the output {wanted.name} is declared as another type than it has"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
