"""A bundle that is tiny and real: the five graphs with the names and shapes of the manifest, and arithmetic in place of HERO.

Every input has a share in every output, so a swapped, dropped or mis-split tensor shows in the result.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, save_model
from tokenizers import Tokenizer, models, pre_tokenizers

from hero_sdk.manifest import (
    CROSS_MODAL_GRAPH,
    FRAME_GRAPH,
    MANIFEST_FILE,
    MOMENT_GRAPH,
    QUERY_GRAPH,
    TEMPORAL_GRAPH,
    FileSpec,
    FrameEncoderSpec,
    GraphSpec,
    Manifest,
    ModelSpec,
    MomentSpec,
    TensorSpec,
    sha256_of,
)
from hero_sdk.rows import RowGeometry

VOCABULARY = 12
GEOMETRY = RowGeometry(slots=16, frames=8, temporal_slots=16, query_tokens=10)
FEATURES, HIDDEN, IMAGE = 6, 4, 8
MAX_BATCH = 4

PIXEL = 1 / 255
"""Features are mean colours; without this, scores of moments would be powers of ten too small to compare."""

INTEGERS = ("frame_index", "token_ids", "position_ids", "segment_ids")


def write_tiny_bundle(folder: Path, *, seed: int = 0, external_weights: bool = False) -> Path:
    """Write the bundle; with ``external_weights`` the weights of the query graph lie in a file of their own."""
    rng = np.random.default_rng(seed)
    (folder / "graphs").mkdir(parents=True)
    graphs = {}
    for name, (model, inputs, outputs) in _graphs(rng).items():
        file = f"graphs/{name}.onnx"
        weights = f"{name}.weights" if external_weights and name == "query" else None
        save_model(
            model, folder / file, save_as_external_data=weights is not None, location=weights, size_threshold=100
        )
        graphs[name] = GraphSpec(file=file, precision="fp32", max_batch=MAX_BATCH, inputs=inputs, outputs=outputs)
    _write_tokenizer(folder / "tokenizer.json")
    manifest = Manifest(
        task="retrieval",
        fingerprint=f"tiny-{seed}",
        model=ModelSpec(feature_dim=FEATURES, hidden_size=HIDDEN, clip_interval=1.5, clip_limit=16),
        geometry=GEOMETRY,
        moment=MomentSpec(start_taps=(0.0, 0.0, 1.0, 0.0, 0.0), end_taps=(0.0, 0.0, 1.0, 0.0, 0.0)),
        tokenizer="tokenizer.json",
        frame_encoder=FrameEncoderSpec("mean colour", IMAGE, FEATURES, sha256_of(folder / graphs["frames"].file)),
        graphs=graphs,
        files={},
    )
    seal(folder, manifest)
    return folder


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest with the sizes and sha256 of the files that lie in the folder."""
    files = {
        path.relative_to(folder).as_posix(): FileSpec(sha256_of(path), path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST_FILE
    }
    manifest = dataclasses.replace(manifest, files=files)
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def example_inputs(manifest: Manifest, graph: str, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs that the graph accepts."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for tensor in manifest.graphs[graph].inputs:
        shape = (batch, *tensor.shape[1:])
        if tensor.dtype == "bool":
            arrays[tensor.name] = np.arange(tensor.shape[1]) < rng.integers(1, tensor.shape[1] + 1, (batch, 1))
        elif tensor.dtype == "float32":
            arrays[tensor.name] = rng.standard_normal(shape, dtype=np.float32)
        else:
            arrays[tensor.name] = rng.integers(0, VOCABULARY, shape).astype(tensor.dtype)
    return arrays


Built = tuple[ModelProto, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]


def _graphs(rng: np.random.Generator) -> dict[str, Built]:
    slots, temporal, tokens = GEOMETRY.slots, GEOMETRY.temporal_slots, GEOMETRY.query_tokens
    frames = _Graph(rng)
    images = frames.input("images", "uint8", (IMAGE, IMAGE, 3))
    mean = frames.node("ReduceMean", frames.as_float(images), frames.constant(np.array([1, 2])), keepdims=0)
    frames.output("features", frames.node("MatMul", mean, frames.weights(3, FEATURES)), (FEATURES,))

    cross_modal = _Graph(rng)
    table = cross_modal.input("frame_features", "float32", (GEOMETRY.frames, FEATURES))
    integers = [cross_modal.input(name, "int32", (slots,)) for name in INTEGERS]
    pooled = cross_modal.node("ReduceMean", table, cross_modal.constant(np.array([1])), keepdims=1)
    hidden = cross_modal.node("MatMul", pooled, cross_modal.weights(FEATURES, HIDDEN, scale=PIXEL))
    for number in integers:
        hidden = cross_modal.node("Add", hidden, cross_modal.looked_up(number))
    cross_modal.output("hidden", hidden, (slots, HIDDEN))

    clips = _Graph(rng)
    features = clips.input("frame_features", "float32", (temporal, FEATURES))
    integers = [clips.input(name, "int32", (temporal,)) for name in INTEGERS[2:]]
    matched = clips.input("matched", "float32", (temporal, HIDDEN))
    hidden = clips.node("Add", clips.node("MatMul", features, clips.weights(FEATURES, HIDDEN, scale=PIXEL)), matched)
    for number in integers:
        hidden = clips.node("Add", hidden, clips.looked_up(number))
    clips.output("clip_embeddings", hidden, (temporal, HIDDEN))

    query = _Graph(rng)
    integers = [query.input(name, "int32", (tokens,)) for name in ("token_ids", "segment_ids")]
    both = query.node("Add", *(query.looked_up(number) for number in integers))
    query.output("query_vector", query.node("ReduceMean", both, query.constant(np.array([1])), keepdims=0), (HIDDEN,))
    query.output("span_vector", query.node("MatMul", "query_vector", query.weights(HIDDEN, HIDDEN)), (HIDDEN,))

    moment = _Graph(rng)
    span = moment.input("span_vector", "float32", (HIDDEN,))
    shown = moment.input("clips", "float32", (temporal, HIDDEN))
    mask = moment.input("clip_mask", "bool", (temporal,))
    column = moment.node("Unsqueeze", span, moment.constant(np.array([2])))
    products = moment.node("Squeeze", moment.node("MatMul", shown, column), moment.constant(np.array([2])))
    low = moment.constant(np.float32(-1e4))
    moment.output("start", moment.node("Where", mask, products, low), (temporal,))
    moment.output("end", moment.node("Neg", "start"), (temporal,))
    built = {
        FRAME_GRAPH: frames,
        CROSS_MODAL_GRAPH: cross_modal,
        TEMPORAL_GRAPH: clips,
        QUERY_GRAPH: query,
        MOMENT_GRAPH: moment,
    }
    return {name: graph.build() for name, graph in built.items()}


class _Graph:
    """Collects the nodes of one graph."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._nodes: list = []
        self._initializers: list = []
        self._inputs: list[TensorSpec] = []
        self._outputs: list[TensorSpec] = []

    def input(self, name: str, dtype: str, shape: tuple[int, ...]) -> str:
        self._inputs.append(TensorSpec(name, dtype, (-1, *shape)))
        return name

    def output(self, name: str, value: str, shape: tuple[int, ...]) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(TensorSpec(name, "float32", (-1, *shape)))

    def constant(self, array: np.ndarray) -> str:
        name = f"constant_{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(array, name))
        return name

    def weights(self, *shape: int, scale: float = 1.0) -> str:
        return self.constant(self._rng.standard_normal(shape, dtype=np.float32) * np.float32(scale))

    def node(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"value_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def as_float(self, value: str) -> str:
        return self.node("Cast", value, to=TensorProto.FLOAT)

    def looked_up(self, value: str) -> str:
        """Rows of a random table; an id beyond the vocabulary makes the run fail, as in a real embedding."""
        rows = VOCABULARY if value == "token_ids" else GEOMETRY.slots
        return self.node("Gather", self.weights(rows, HIDDEN), value, axis=0)

    def build(self) -> Built:
        graph = helper.make_graph(
            self._nodes,
            "tiny",
            [_value(tensor) for tensor in self._inputs],
            [_value(tensor) for tensor in self._outputs],
            self._initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
        return model, tuple(self._inputs), tuple(self._outputs)


def _value(tensor: TensorSpec) -> object:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_value_info(tensor.name, element, ["batch", *tensor.shape[1:]])


def _write_tokenizer(path: Path) -> None:
    words = ["<s>", "<pad>", "</s>", "<unk>", "the", "robot", "takes", "a", "red", "gem", "where", "who"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
