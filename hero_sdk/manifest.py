"""The manifest of a bundle: the contract between training, export, serving and asking.

A bundle is a folder with ``manifest.json``, the tokenizer, the frame encoder and the graphs. Everything that a client needs to
know about the model stands in the manifest, so that no client guesses a shape, a token id or a threshold.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from hero_sdk.errors import BundleError, InputError
from hero_sdk.rows import RowGeometry

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"

FRAME_GRAPH = "frames"
CROSS_MODAL_GRAPH = "cross_modal"
TEMPORAL_GRAPH = "temporal"
QUERY_GRAPH = "query"
MOMENT_GRAPH = "moment"
ANSWER_GRAPH = "answer"
STATEMENT_GRAPH = "statement"
PREFILL_GRAPH = "caption_prefill"
STEP_GRAPH = "caption_step"

RETRIEVAL = "retrieval"
QUESTION_ANSWERING = "question answering"
STATEMENTS = "statements"
CAPTIONING = "captioning"

_ENCODERS = (FRAME_GRAPH, CROSS_MODAL_GRAPH, TEMPORAL_GRAPH)
TASK_GRAPHS: dict[str, tuple[str, ...]] = {
    RETRIEVAL: (*_ENCODERS, QUERY_GRAPH, MOMENT_GRAPH),
    QUESTION_ANSWERING: (*_ENCODERS, ANSWER_GRAPH),
    STATEMENTS: (*_ENCODERS, STATEMENT_GRAPH),
    CAPTIONING: (*_ENCODERS, PREFILL_GRAPH, STEP_GRAPH),
}
"""The graphs of a bundle of each task, in the order in which a video passes them."""

T = TypeVar("T")


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a graph: ``shape`` has -1 in front for the batch, the only dimension that may vary; ``dtype`` is numpy's name."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class GraphSpec:
    """A graph of the bundle.

    Attributes:
        file: path of the ONNX file, relative to the bundle.
        precision: of the matrix products, such as "fp32".
        max_batch: the largest batch that the export verified; callers cut larger ones.
        inputs, outputs: in the order of the graph.
        fused: how many of each fused operator the graph has.
    """

    file: str
    precision: str
    max_batch: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    fused: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSpec:
    """What the packing needs to know of the model.

    Attributes:
        feature_dim: width of a frame feature.
        hidden_size: width of a clip embedding and of a query vector.
        clip_interval: seconds per clip.
        clip_limit: most clips that the model reads at once; longer videos go through overlapping windows.
        subtitle_context: how many previous subtitles each segment repeats before its own text.
    """

    feature_dim: int
    hidden_size: int
    clip_interval: float
    clip_limit: int
    subtitle_context: int = 0


@dataclass(frozen=True)
class MomentSpec:
    """The moment head and the search protocol (paper, section 3.3 and supplementary).

    Attributes:
        start_taps, end_taps: weights of the two one-dimensional convolutions over query-clip similarities.
        min_clips, max_clips: the shortest and longest span, in clips, both inclusive.
        similarity_scale: factor on the video's cosine before the exponential.
        nms_iou: overlapping spans of one video above this temporal IoU are suppressed; 1.0 keeps all.
    """

    start_taps: tuple[float, ...]
    end_taps: tuple[float, ...]
    min_clips: int = 3
    max_clips: int = 16
    similarity_scale: float = 20.0
    nms_iou: float = 0.5


@dataclass(frozen=True)
class FrameEncoderSpec:
    """The frame encoder: one feature per clip from the frame in the middle of the clip.

    Attributes:
        name: of the network.
        image_size: height and width of the images that it takes, in pixels (uint8, RGB, NHWC).
        feature_dim: width of a feature.
        fingerprint: sha256 of the ONNX file.
    """

    name: str
    image_size: int
    feature_dim: int
    fingerprint: str


@dataclass(frozen=True)
class FileSpec:
    """A file of the bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """The whole contract.

    Attributes:
        task: what the model was trained for, one of ``TASK_GRAPHS``.
        fingerprint: identity of the embedding space (weights, tokenizer, frame encoder, clip settings). Two bundles with the
            same fingerprint give comparable embeddings whatever their engine and precision; a corpus records it.
        moment: of a bundle for retrieval; None for the other tasks, which search no spans.
        graphs: those of the task, by name.
        files: every file of the bundle but the manifest itself, by path relative to the bundle, with forward slashes.
        tools: versions of what made the bundle.
    """

    task: str
    fingerprint: str
    model: ModelSpec
    geometry: RowGeometry
    moment: MomentSpec | None
    tokenizer: str
    frame_encoder: FrameEncoderSpec
    graphs: dict[str, GraphSpec]
    files: dict[str, FileSpec]
    tools: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def require_moment(self) -> MomentSpec:
        """The moment head.

        Raises:
            BundleError: the bundle is for another task than retrieval.
        """
        if self.moment is None:
            raise BundleError(
                f"The bundle is for {self.task}; finding moments needs one for {RETRIEVAL}. Use a bundle that "
                "`hero-export onnx` made from a checkpoint of that task."
            )
        return self.moment

    def to_json(self) -> str:
        """The manifest as the text of ``manifest.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str = MANIFEST_FILE) -> Manifest:
        """Read and check a manifest.

        Args:
            text: the JSON.
            origin: where it came from, for messages.

        Raises:
            BundleError: not JSON, of another format version, or with a missing, unknown or mistyped entry.
        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise BundleError(f"{origin} is not JSON ({error}). Export the bundle again.") from error
        version = content.get("format_version") if isinstance(content, dict) else None
        if version != FORMAT_VERSION:
            raise BundleError(
                f"{origin} has format version {version!r}; this version of the SDK reads {FORMAT_VERSION}. "
                "Export the bundle again with this SDK's hero-export, or install the SDK that goes with the bundle."
            )
        return _build(cls, content, origin)


def check_task(manifest: Manifest, origin: str) -> None:
    """Refuse a manifest of an unknown task, or one without exactly what its task has.

    Raises:
        BundleError: says which task, and which graphs were expected.
    """
    if manifest.task not in TASK_GRAPHS:
        raise BundleError(
            f"{origin} is of a bundle for {manifest.task!r}; this version of the SDK knows {sorted(TASK_GRAPHS)}. "
            "Export the bundle again with this SDK's hero-export, or install the SDK that goes with the bundle."
        )
    if set(manifest.graphs) != set(expected := TASK_GRAPHS[manifest.task]):
        raise BundleError(
            f"{origin} has the graphs {sorted(manifest.graphs)}; a bundle for {manifest.task} has {sorted(expected)}. "
            "Export the bundle again."
        )
    if (manifest.moment is not None) != (manifest.task == RETRIEVAL):
        found = "no moment head" if manifest.moment is None else "a moment head"
        raise BundleError(f"{origin} has {found} in a bundle for {manifest.task}. Export the bundle again.")


def _build(kind: type[T], content: object, where: str) -> T:
    """Make a dataclass from parsed JSON; every field must be there with the right type unless it has a default."""
    if not isinstance(content, Mapping):
        raise BundleError(
            f"{where} is {type(content).__name__}; expected an object with the fields of {kind.__name__}."
        )
    hints = get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(content) - set(fields)):
        raise BundleError(f"{where} has unknown entries {unknown}; expected {sorted(fields)}.")
    values = {}
    for name, item in fields.items():
        if name in content:
            values[name] = _convert(hints[name], content[name], f"{where}: {name}")
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise BundleError(f"{where} has no entry '{name}'. Export the bundle again.")
    try:
        return kind(**values)
    except InputError as error:
        raise BundleError(f"{where} does not fit: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, UnionType):  # only ever "or None"
        return None if value is None else _convert(get_args(hint)[0], value, where)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)  # type: ignore[arg-type]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise BundleError(f"{where} is {value!r}; expected a list.")
        return tuple(_convert(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise BundleError(f"{where} is {value!r}; expected an object.")
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise BundleError(f"{where} is {value!r}; expected {hint.__name__}.")
    return value


def sha256_of(path: Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_bundle(bundle: Path | str) -> Manifest:
    """Read the manifest of a bundle and check every file against it.

    Raises:
        BundleError: no manifest, a file that is missing, outside the bundle or not the one that was exported, or other graphs than
            the bundle's task has.
    """
    bundle = Path(bundle)
    path = bundle / MANIFEST_FILE
    if not path.is_file():
        raise BundleError(f"{bundle} has no {MANIFEST_FILE}; expected a bundle that `hero-export onnx` wrote.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{path} is not JSON ({error}). Copy the bundle again, or export it again.") from error
    manifest = Manifest.from_json(text, str(path))
    for name, expected in manifest.files.items():
        file = bundle / name
        if not file.resolve().is_relative_to(bundle.resolve()):
            raise BundleError(
                f"The manifest of {bundle} names {name}, which lies outside the bundle. Do not use this bundle."
            )
        if not file.is_file():
            raise BundleError(
                f"{bundle} has no {name}, which its manifest lists. Copy the whole folder, or export it again."
            )
        if file.stat().st_size != expected.bytes or sha256_of(file) != expected.sha256:
            raise BundleError(
                f"{file} is not the file that was exported (sha256 or size differ from the manifest). "
                "Copy the bundle again, or export it again."
            )
    for name in [manifest.tokenizer, *(graph.file for graph in manifest.graphs.values())]:
        if name not in manifest.files:
            raise BundleError(
                f"The manifest of {bundle} uses {name} without listing it under files. Export the bundle again."
            )
    check_task(manifest, str(path))
    return manifest
