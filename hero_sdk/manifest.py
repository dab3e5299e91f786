"""The manifest of a bundle: the contract between training, export, serving and asking.

A bundle is a folder with ``manifest.json``, the tokenizer, the frame encoder and the graphs. Everything that a client needs to
know about the model stands in the manifest, so that no client guesses a shape, a token id or a threshold.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from hero_sdk.bundle_files import (
    FILE_NAME_PATTERN,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    check_file,
    check_names,
    read_file,
)
from hero_sdk.errors import BundleError, InputError
from hero_sdk.geometry import AT_LEAST_ONE, RowGeometry
from hero_sdk.graph_files import check_graphs
from hero_sdk.json_reading import build, strict_json
from hero_sdk.signature import PublicKeys, check_signature
from hero_sdk.variants import ENGINE_SUFFIXES, Variant, check_origins

FORMAT_VERSION = 2

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
    max_batch: int = field(metadata=AT_LEAST_ONE)
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

    feature_dim: int = field(metadata=AT_LEAST_ONE)
    hidden_size: int = field(metadata=AT_LEAST_ONE)
    clip_interval: float = field(metadata={"exclusiveMinimum": 0})
    clip_limit: int = field(metadata=AT_LEAST_ONE)
    subtitle_context: int = field(default=0, metadata={"minimum": 0})


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
    """A file of the bundle: its sha256 in hexadecimal digits, its size in bytes."""

    sha256: str = field(metadata={"pattern": "^[0-9a-f]{64}$"})
    bytes: int = field(metadata={"minimum": 0})


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
        variants: the graphs for other engines and in other precisions, by name.
    """

    task: str
    fingerprint: str
    model: ModelSpec
    geometry: RowGeometry
    moment: MomentSpec | None
    tokenizer: str
    frame_encoder: FrameEncoderSpec
    graphs: dict[str, GraphSpec]
    files: dict[str, FileSpec] = field(metadata={"propertyNames": {"pattern": FILE_NAME_PATTERN}})
    tools: dict[str, str] = field(default_factory=dict)
    variants: dict[str, Variant] = field(default_factory=dict)
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

    def variant(self, name: str) -> Variant:
        """A variant.

        Raises:
            InputError: the bundle has none of this name.
        """
        if name not in self.variants:
            raise InputError(
                f"The bundle has no variant {name!r}; it has {sorted(self.variants) or 'none'}. Choose one of these, none for "
                "the bundle's own graphs, or add it with hero-export."
            )
        return self.variants[name]

    def file_of(self, graph: str, variant: Variant | None) -> str:
        """The file of what runs a graph: the variant's where it has one, else the bundle's own."""
        if variant is not None and graph in variant.graphs:
            return variant.graphs[graph].file
        return self.graphs[graph].file

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
        if len(text) > MAX_MANIFEST_BYTES:
            raise BundleError(
                f"{origin} has {len(text)} characters; expected at most {MAX_MANIFEST_BYTES}. Do not use this bundle."
            )
        try:
            content = strict_json(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{origin} is not JSON ({error}). Export the bundle again.") from error
        _check_version(content, origin)
        manifest = build(cls, content, origin)
        check_names({name: file.bytes for name, file in manifest.files.items()}, origin)
        _check_variants(manifest, origin)
        used = [graph.file for graph in manifest.graphs.values()]
        used += [file for variant in manifest.variants.values() for file in variant.files]
        for name in [manifest.tokenizer, *used]:
            if name not in manifest.files:
                raise BundleError(f"{origin} uses {name} without listing it under files. Export the bundle again.")
        sums = {name: manifest.files[graph.file].sha256 for name, graph in manifest.graphs.items()}
        for name, variant in manifest.variants.items():
            check_origins(variant, sums, f"{origin} has the variant {name!r}")
        return manifest


def _check_version(content: object, origin: str) -> None:
    version = content.get("format_version") if isinstance(content, dict) else None
    if version == FORMAT_VERSION and type(version) is int:
        return
    found = f"{origin} has format version {version!r}; this version of the SDK reads {FORMAT_VERSION}."
    if type(version) is int and version > FORMAT_VERSION:
        raise BundleError(f"{found} A newer hero-export wrote it: pip install --upgrade hero-video-sdk")
    if type(version) is int and version > 0:
        raise BundleError(
            f"{found} Export the checkpoint again, or install the SDK that wrote the bundle (the manifest's tools name it)."
        )
    raise BundleError(f"{found} Expected the manifest of a bundle that `hero-export onnx` wrote.")


def _check_variants(manifest: Manifest, origin: str) -> None:
    """Refuse variants under a wrong name, of an unknown engine, or with graphs or files that are none of theirs."""
    for name, variant in manifest.variants.items():
        where = f"{origin} has the variant {name!r}"
        if variant.engine not in ENGINE_SUFFIXES:
            raise BundleError(
                f"{where} of the engine {variant.engine!r}; this version of the SDK knows {sorted(ENGINE_SUFFIXES)}. "
                "Install a newer one, or make the variant again."
            )
        if name != variant.name:
            raise BundleError(f"{where}, which is {variant.name!r} by what it says of itself. Make it again.")
        if strange := sorted(set(variant.graphs) - set(manifest.graphs)):
            raise BundleError(f"{where} with the graphs {strange}, which the bundle does not have. Make it again.")
        suffix = ENGINE_SUFFIXES[variant.engine]
        if wrong := [graph.file for graph in variant.graphs.values() if not graph.file.endswith(suffix)]:
            raise BundleError(f"{where} with the files {wrong}; expected {suffix} for {variant.engine}. Make it again.")


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


def sha256_of(path: Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_bundle(bundle: Path | str, *, require_signature: PublicKeys | None = None) -> Manifest:
    """Read the manifest of a bundle and check every file against it. No weight is read into memory.

    Args:
        bundle: the folder.
        require_signature: public keys of which one must have signed the bundle, see ``hero_sdk.signature``.

    Raises:
        BundleError: no manifest, or a file that is missing, outside the bundle or not the one that was exported; graphs that are
            not what the manifest says or its task has, or keep weights elsewhere.
        SignatureError: none of the required keys signed this manifest.
        InputError: a required key that is none.
        MissingPackageError: a signature is required and the package that checks it is not installed.
    """
    bundle = Path(bundle)
    path = bundle / MANIFEST_FILE
    if not path.exists() and not path.is_symlink():
        raise BundleError(f"{bundle} has no {MANIFEST_FILE}; expected a bundle that `hero-export onnx` wrote.")
    data = read_file(bundle, MANIFEST_FILE, MAX_MANIFEST_BYTES)
    if require_signature is not None:
        check_signature(bundle, data, require_signature)
    try:
        manifest = Manifest.from_json(data.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise BundleError(f"{path} is not JSON ({error}). Copy the bundle again, or export it again.") from error
    for name, expected in manifest.files.items():
        check_file(bundle, name, expected.bytes, expected.sha256)
    check_task(manifest, str(path))
    check_graphs(bundle, manifest)
    return manifest
