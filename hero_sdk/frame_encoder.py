"""The frame encoder: one feature per clip, from an ONNX graph.

A frame encoder is a folder with ``frame_encoder.onnx`` and ``frame_encoder.json``. Any image network can be one (CLIP, ResNet,
...) whose graph takes ``images``, uint8 (batch, size, size, 3), RGB, and gives ``features``, float32 (batch, feature_dim); it
scales and normalises the pixels itself, so that nobody who runs it can do so in another way. ``describe_frame_encoder`` writes
the JSON file for it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hero_sdk.engines.batching import run_in_batches
from hero_sdk.engines.onnxruntime import open_session
from hero_sdk.errors import BundleError, EngineError, FingerprintError
from hero_sdk.manifest import FrameEncoderSpec, GraphSpec, TensorSpec, sha256_of
from hero_sdk.media import iterate_clip_frames
from hero_sdk.types import FloatArray

if TYPE_CHECKING:
    import onnxruntime

    from hero_sdk.decoding import ImageArray

GRAPH_FILE = "frame_encoder.onnx"
SPEC_FILE = "frame_encoder.json"
INPUT, OUTPUT = "images", "features"

MAX_BATCH = 32
"""Images per call; beyond that a call takes more memory and no less time per image."""


class FrameEncoder:
    """Turns pictures and videos into features. Made by ``load_frame_encoder``."""

    def __init__(self, spec: FrameEncoderSpec, session: onnxruntime.InferenceSession) -> None:
        self._spec = spec
        self._session = session
        size = spec.image_size
        self._graph = GraphSpec(
            file=GRAPH_FILE,
            precision="fp32",
            max_batch=MAX_BATCH,
            inputs=(TensorSpec(INPUT, "uint8", (-1, size, size, 3)),),
            outputs=(TensorSpec(OUTPUT, "float32", (-1, spec.feature_dim)),),
        )

    @property
    def spec(self) -> FrameEncoderSpec:
        """What the frame encoder is."""
        return self._spec

    def encode(self, images: ImageArray) -> FloatArray:
        """Features of pictures.

        Args:
            images: uint8 (n, image_size, image_size, 3), RGB, n >= 1.

        Returns:
            float32 (n, feature_dim).

        Raises:
            InputError: another dtype or shape.
            EngineError: the graph failed.
        """
        return run_in_batches(self._graph, self._spec.name, {INPUT: images}, self._call)[OUTPUT]

    def encode_video(self, path: Path | str, clip_interval: float) -> tuple[FloatArray, float]:
        """Features of a video file, one per clip.

        Args:
            path: a video file.
            clip_interval: seconds per clip.

        Returns:
            float32 (clips, feature_dim), and the length of the video in seconds.

        Raises:
            InputError: a clip interval that is not positive.
            MediaError: a file that is no video or has no frame that can be decoded.
            EngineError: the graph failed.
        """
        frames = iterate_clip_frames(path, clip_interval, self._spec.image_size, MAX_BATCH)
        features = [self.encode(batch) for batch in frames]
        return np.concatenate(features), frames.duration

    def _call(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            return {OUTPUT: self._session.run([OUTPUT], inputs)[0]}
        except Exception as error:  # onnxruntime's exceptions share no base class but Exception
            raise EngineError(
                f"The frame encoder '{self._spec.name}' failed on {len(inputs[INPUT])} images ({error}). "
                "Free memory, or export the frame encoder again."
            ) from error

    def __repr__(self) -> str:
        return f"FrameEncoder({self._spec!r})"


def load_frame_encoder(
    folder: Path | str, *, threads: int | None = None, providers: Sequence[str] | None = None
) -> FrameEncoder:
    """Load a frame encoder.

    Args:
        folder: with ``frame_encoder.onnx`` and ``frame_encoder.json``.
        threads: how many threads compute one call; default: the physical cores that this process may use.
        providers: onnxruntime's execution providers; default: CUDA where it can be used, then the CPU.

    Raises:
        BundleError: a missing file, a description that cannot be read, or a graph with other inputs and outputs.
        FingerprintError: the graph is not the one that the description was written for.
        MissingPackageError: onnxruntime is not installed.
    """
    graph, description = Path(folder) / GRAPH_FILE, Path(folder) / SPEC_FILE
    for file in (graph, description):
        if not file.is_file():
            raise BundleError(
                f"{folder} has no {file.name}; expected a frame encoder. `hero-export frame-encoder` writes one, and "
                "hero_sdk.frame_encoder.describe_frame_encoder describes your own."
            )
    spec = _read_spec(description)
    if (found := sha256_of(graph)) != spec.fingerprint:
        raise FingerprintError(
            f"{graph} has the fingerprint {found[:12]}, and {description.name} was written for {spec.fingerprint[:12]}. "
            "Copy both files of one frame encoder; features of another network must not be mixed in."
        )
    session = open_session(graph, threads=threads, providers=providers)
    if (found_shape := _interface(session, graph)) != (spec.image_size, spec.feature_dim):
        raise BundleError(
            f"{graph} takes images of {found_shape[0]} pixels and gives {found_shape[1]} values per image; {description.name} "
            f"says {spec.image_size} and {spec.feature_dim}. Describe it again."
        )
    return FrameEncoder(spec, session)


def describe_frame_encoder(folder: Path | str, name: str) -> FrameEncoderSpec:
    """Write ``frame_encoder.json`` for the ``frame_encoder.onnx`` in a folder.

    Args:
        folder: with the ONNX file.
        name: of the network, for people.

    Raises:
        BundleError: no such file, or a graph with other inputs and outputs than a frame encoder's.
        MissingPackageError: onnxruntime is not installed.
    """
    graph = Path(folder) / GRAPH_FILE
    image_size, feature_dim = _interface(open_session(graph, threads=1, providers=["CPUExecutionProvider"]), graph)
    spec = FrameEncoderSpec(name, image_size, feature_dim, sha256_of(graph))
    (Path(folder) / SPEC_FILE).write_text(json.dumps(dataclasses.asdict(spec), indent=2) + "\n", encoding="utf-8")
    return spec


def _interface(session: onnxruntime.InferenceSession, graph: Path) -> tuple[int, int]:
    """Image size and feature width of a graph that is a frame encoder."""
    inputs = {node.name: (node.type, node.shape) for node in session.get_inputs()}
    outputs = {node.name: (node.type, node.shape) for node in session.get_outputs()}
    kind, shape = inputs.get(INPUT, ("", []))
    out_kind, out_shape = outputs.get(OUTPUT, ("", []))
    fits = (
        list(inputs) == [INPUT]
        and kind == "tensor(uint8)"
        and len(shape) == 4
        and not isinstance(shape[0], int)
        and isinstance(shape[1], int)
        and shape[1:] == [shape[1], shape[1], 3]
        and out_kind == "tensor(float)"
        and len(out_shape) == 2
        and isinstance(out_shape[1], int)
    )
    if not fits:
        raise BundleError(
            f"{graph} has the inputs {inputs} and outputs {outputs}; a frame encoder has one input '{INPUT}', uint8 (batch, size, "
            f"size, 3), and an output '{OUTPUT}', float32 (batch, feature_dim), where only the batch is free. Export it so."
        )
    return shape[1], out_shape[1]


def _read_spec(path: Path) -> FrameEncoderSpec:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not JSON ({error}). Describe the frame encoder again.") from error
    expected = {"name": str, "image_size": int, "feature_dim": int, "fingerprint": str}
    if not isinstance(content, dict) or {key: type(value) for key, value in content.items()} != expected:
        shown = {key: kind.__name__ for key, kind in expected.items()}
        raise BundleError(f"{path} is {content!r}; expected {shown}. Describe the frame encoder again.")
    return FrameEncoderSpec(**content)
