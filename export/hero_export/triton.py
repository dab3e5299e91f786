"""Writes the model repository that a Triton Inference Server loads, from a bundle and the templates of ``triton_repo/``.

REPO/reproduce.sh                    how it was written
REPO/hero-repository.json            what this folder is, and from which bundle
REPO/hero_bundle/{config.pbtxt,1/}   hands the manifest and the tokenizer to clients
REPO/hero_<graph>/config.pbtxt       one model per graph of the bundle
REPO/hero_<graph>/1/                 model.onnx (with its external weights, if any) and, for the Python backend, model.py
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from string import Template
from typing import Literal, get_args

import numpy as np

from hero_export.report import tool_versions
from hero_export.reproduce import SCRIPT_FILE, Variable, Word, reproduce_script
from hero_sdk.engines.triton import (
    BUNDLE_MODEL,
    FINGERPRINT_PARAMETER,
    GRAPH_FILE,
    SHA256_PARAMETER,
    VARIANT_PARAMETER,
    model_name,
)
from hero_sdk.errors import BundleError, InputError, require
from hero_sdk.manifest import (
    MANIFEST_FILE,
    RETRIEVAL,
    TASK_GRAPHS,
    GraphSpec,
    Manifest,
    TensorSpec,
    read_bundle,
    sha256_of,
)
from hero_sdk.onnx_file import read_outline
from hero_sdk.signature import PublicKeys
from hero_sdk.triton_process import REPOSITORY_FILE
from hero_sdk.variants import ONNXRUNTIME, Variant

__all__ = ["REPOSITORY_FILE", "Backend", "Device", "write_repository"]

Backend = Literal["python", "onnxruntime"]
Device = Literal["cpu", "gpu"]

VERSION_FOLDER = "1"


def write_repository(
    bundle: Path | str,
    out: Path | str,
    *,
    backend: Backend = "python",
    device: Device = "cpu",
    queue_delay: float = 0.001,
    threads: int | None = None,
    variant: str | None = None,
    require_signature: PublicKeys | None = None,
) -> Path:
    """Write a model repository from a bundle.

    The folder appears whole or not at all: it is written beside ``out`` and renamed.

    Args:
        bundle: what ``hero-export onnx`` wrote; every file is checked against its manifest first.
        out: the repository. It may be missing, empty or an earlier repository, which is replaced.
        backend: ``python`` runs the graphs with onnxruntime in Triton's Python backend, ``onnxruntime`` with Triton's own ONNX
            Runtime backend, which NVIDIA's image has and the pytriton wheel has not.
        device: ``gpu`` asks for one instance on every GPU of the server.
        queue_delay: how long a request may wait for others to share its batch, in seconds.
        threads: threads of one run on the CPU; None for all cores that the server may use.
        variant: of the bundle for onnxruntime, such as ``onnxruntime-int8``, whose graphs are served; a graph that it does not
            have is the bundle's own. None serves the bundle's own graphs.
        require_signature: public keys of which one must have signed the bundle; None asks for no signature.

    Returns:
        ``out`` as a path.

    Raises:
        BundleError: the bundle is incomplete, altered, of a task that is not served yet, or has a graph that Triton cannot
            describe.
        SignatureError: none of the required keys signed the bundle.
        InputError: ``out`` holds something else, an argument has no meaning, or the variant is not there or cannot be served.
    """
    bundle, out = Path(bundle), Path(out)
    if backend not in get_args(Backend) or device not in get_args(Device):
        raise InputError(
            f"backend is '{backend}' and device '{device}'; expected one of {get_args(Backend)} and one of {get_args(Device)}."
        )
    if not 0 <= queue_delay <= 10 or (threads is not None and threads < 1):
        raise InputError(
            f"queue_delay is {queue_delay} s and threads {threads}; expected 0 to 10 s and at least 1 thread."
        )
    check_repository_place(out)
    manifest = read_for_triton(bundle, require_signature)
    served = served_variant(manifest, variant, device)
    script = _script(bundle, backend, device, queue_delay, threads, variant)
    with _disk_errors(out), tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        _write_bundle_model(new / BUNDLE_MODEL, bundle, manifest, variant)
        for graph in manifest.graphs:
            file = manifest.file_of(graph, served)
            folder = new / model_name(graph)
            _write_graph_model(folder, bundle, manifest, graph, file, backend, device, queue_delay, threads)
        about = {
            "format_version": 1,
            "fingerprint": manifest.fingerprint,
            "backend": backend,
            "device": device,
            "variant": variant,
            "models": [BUNDLE_MODEL, *map(model_name, manifest.graphs)],
        }
        (new / SCRIPT_FILE).write_text(script, encoding="utf-8")
        (new / REPOSITORY_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        if out.exists():
            out.rename(Path(temporary) / "old")  # goes with the temporary folder
        new.rename(out)
    return out


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error}). See that there is room on the disk and that the folder may be written to."
        ) from error


def check_repository_place(out: Path) -> None:
    """Refuse a place that holds anything but an earlier repository.

    Raises:
        InputError: it does.
    """
    if not out.exists() or (out / REPOSITORY_FILE).is_file():
        return
    if not out.is_dir() or any(out.iterdir()):
        raise InputError(
            f"{out} exists and is not a model repository of hero-export (it has no {REPOSITORY_FILE}); "
            "nothing was written. Choose another folder, or remove this one."
        )


def read_for_triton(bundle: Path, require_signature: PublicKeys | None = None) -> Manifest:
    """Read and check a bundle; that of another task than retrieval is refused.

    Raises:
        BundleError: the bundle is incomplete, altered, or of a task that is not served yet.
        SignatureError: none of the required keys signed it.
    """
    manifest = read_bundle(bundle, require_signature=require_signature)
    if manifest.task != RETRIEVAL:
        # The SDK's client has the way through a server's graphs for retrieval alone.
        own = [graph for graph in manifest.graphs if graph not in TASK_GRAPHS[RETRIEVAL]]
        raise BundleError(
            f"{bundle} is for {manifest.task}; expected a bundle for {RETRIEVAL}, since nothing serves the graphs {own} to clients "
            "yet. Run the bundle in the process of its users: hero_sdk.load."
        )
    return manifest


def served_variant(manifest: Manifest, name: str | None, device: Device) -> Variant | None:
    """The variant that a repository would serve; None for the bundle's own graphs.

    Raises:
        InputError: the bundle has no such variant, or Triton's models, which run onnxruntime, cannot run it.
    """
    if name is None:
        return None
    variant = manifest.variant(name)
    if variant.engine != ONNXRUNTIME:
        there = [one for one, described in manifest.variants.items() if described.engine == ONNXRUNTIME]
        raise InputError(
            f"The variant '{name}' is for {variant.engine}, and the repository's models run graphs in onnxruntime; expected one of "
            f"{there or 'its variants, of which there are none'}. Make one with `hero-export onnx BUNDLE --precision`, or run this "
            "one in the process of its users: hero_sdk.load(bundle, variant=...)."
        )
    if (variant.precision, device) == ("bf16", "cpu"):
        raise InputError(
            f"The variant '{name}' has no kernels on a CPU in onnxruntime; expected --device gpu, or a variant in another "
            "precision."
        )
    return variant


def _write_bundle_model(folder: Path, bundle: Path, manifest: Manifest, variant: str | None) -> None:
    template = _template_folder() / BUNDLE_MODEL
    version = folder / VERSION_FOLDER
    for name in (MANIFEST_FILE, manifest.tokenizer):
        _copy(bundle / name, version / name)
    _copy(template / "model.py", version / "model.py")
    values = {
        "fingerprint": json.dumps(manifest.fingerprint),
        "parameters": "" if variant is None else _parameter(VARIANT_PARAMETER, variant),
    }
    _write_config(folder / "config.pbtxt", template / "config.pbtxt", values)


def _write_graph_model(
    folder: Path,
    bundle: Path,
    manifest: Manifest,
    graph: str,
    file: str,
    backend: Backend,
    device: Device,
    queue_delay: float,
    threads: int | None,
) -> None:
    spec = manifest.graphs[graph]
    version = folder / VERSION_FOLDER
    template = _template_folder() / "hero_graph"
    sources = graph_sources(bundle, file)
    for name, source in sources.items():
        _copy(bundle / source, version / name)
    if backend == "python":
        _copy(template / "model.py", version / "model.py")
    parameters = {FINGERPRINT_PARAMETER: manifest.fingerprint}
    parameters |= {SHA256_PARAMETER + name: manifest.files[source].sha256 for name, source in sources.items()}
    if threads is not None:
        parameters |= _thread_parameters(backend, threads)
    values = {
        "fingerprint": json.dumps(manifest.fingerprint),  # quoted, so that it cannot end the comment it stands in
        "model": folder.name,
        "max_batch": str(spec.max_batch),
        "graph_file": GRAPH_FILE,
        "tensors": _tensors(graph, spec),
        "queue_delay": str(round(queue_delay * 1e6)),
        "kind": f"KIND_{device.upper()}",
        "warmup": " ".join(_warmup(tensor) for tensor in spec.inputs),
        "parameters": "\n".join(_parameter(key, value) for key, value in parameters.items()),
    }
    _write_config(folder / "config.pbtxt", template / f"config.{backend}.pbtxt", values)


def graph_sources(bundle: Path, file: str) -> dict[str, str]:
    """The files of a graph in the bundle, given its ONNX file, by their names in its model's version folder.

    The graph gets the name that Triton expects; its external weights keep the names that the graph knows them by.

    Raises:
        BundleError: weights under the graph's own new name.
    """
    sources = {GRAPH_FILE: file}
    for location in read_outline(bundle, file).external_files:
        if location == GRAPH_FILE:
            raise BundleError(
                f"{bundle / file} keeps weights in {location}, the name that Triton expects the graph under. "
                "Save the graph with another name for its weights."
            )
        sources[location] = PurePosixPath(file).with_name(location).as_posix()
    return sources


def _script(
    bundle: Path, backend: Backend, device: Device, queue_delay: float, threads: int | None, variant: str | None
) -> str:
    """How the repository is written again; the manifest's sha256 stands for the whole bundle, whose files it has."""
    command: list[Word] = ["hero-export", "triton", Variable("BUNDLE"), "--out", Variable("OUT")]
    command += ["--backend", backend, "--device", device, "--queue-delay", queue_delay]
    if threads is not None:
        command += ["--threads", threads]
    if variant is not None:
        command += ["--variant", variant]
    return reproduce_script(
        command,
        variables={"BUNDLE": "the folder of the bundle", "OUT": "the folder to write the repository to"},
        inputs={Variable("BUNDLE", MANIFEST_FILE): sha256_of(bundle / MANIFEST_FILE)},
        tools=tool_versions(),
    )


def _thread_parameters(backend: Backend, threads: int) -> dict[str, str]:
    if backend == "python":
        return {"threads": str(threads)}
    return {"intra_op_thread_count": str(threads), "inter_op_thread_count": "1"}


def _tensors(graph: str, spec: GraphSpec) -> str:
    lines = []
    for kind, tensors in (("input", spec.inputs), ("output", spec.outputs)):
        items = [
            f"  {{ name: {json.dumps(tensor.name)} data_type: {_triton_type(tensor)} dims: [ {_dims(graph, tensor)} ] }}"
            for tensor in tensors
        ]
        lines.append(f"{kind} [\n" + ",\n".join(items) + "\n]")
    return "\n".join(lines)


def _dims(graph: str, tensor: TensorSpec) -> str:
    """The shape without the batch, which Triton adds itself."""
    batch, *rest = tensor.shape or (0,)
    if batch != -1 or not rest or any(size < 1 for size in rest):
        raise BundleError(
            f"Tensor '{tensor.name}' of graph '{graph}' has shape {tensor.shape}; "
            "expected -1 for the batch and then fixed sizes. Export the bundle again."
        )
    return ", ".join(map(str, rest))


def _triton_type(tensor: TensorSpec) -> str:
    to_triton = require("tritonclient.utils", "export", "write a Triton model repository").np_to_triton_dtype
    try:
        name = to_triton(np.dtype(tensor.dtype))
    except TypeError as error:
        raise BundleError(
            f"Tensor '{tensor.name}' has the unknown dtype '{tensor.dtype}'. Export the bundle again."
        ) from error
    if name is None or name == "BYTES":
        raise BundleError(f"Tensor '{tensor.name}' has dtype {tensor.dtype}, which Triton has no numeric type for.")
    return f"TYPE_{name}"


def _warmup(tensor: TensorSpec) -> str:
    dims = ", ".join(map(str, tensor.shape[1:]))
    return (
        f"inputs {{ key: {json.dumps(tensor.name)} "
        f"value: {{ data_type: {_triton_type(tensor)} dims: [ {dims} ] zero_data: true }} }}"
    )


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {json.dumps(key)} value: {{ string_value: {json.dumps(value)} }} }}"


def _write_config(path: Path, template: Path, values: dict[str, str]) -> None:
    """Fill a template in and see that Triton's own parser reads the result."""
    text = Template(template.read_text(encoding="utf-8")).substitute(values)
    messages = require("tritonclient.grpc.model_config_pb2", "export", "write a Triton model repository")
    text_format = require("google.protobuf.text_format", "export", "write a Triton model repository")
    text_format.Parse(text, messages.ModelConfig())
    path.write_text(text, encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _template_folder() -> Path:
    """``triton_repo/`` beside this module in an installed package, at the top of a checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here / "triton_repo", here.parents[1] / "triton_repo"):
        if (folder / "hero_graph" / "model.py").is_file():
            return folder
    raise InputError(
        f"The templates of the model repository are missing: there is no triton_repo in {here} and none in {here.parents[1]}. "
        "Install hero-video-sdk again."
    )
