"""A double of the Engine protocol: the four graphs as a few lines of numpy, for tests of what lies around them.

Like the real graphs it keeps segments apart: what a slot gets depends on its own segment only, so packing is visible when
it goes wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from hero_sdk.manifest import FrameEncoderSpec, GraphSpec, Manifest, ModelSpec, MomentSpec
from hero_sdk.rows import RowGeometry

FEATURES, HIDDEN, IMAGE = 6, 16, 8


def tokenizer_json() -> str:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "<pad>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer.to_str()


def make_manifest(fingerprint: str = "f" * 64, graphs: tuple[str, ...] | None = None) -> Manifest:
    names = ("frames", "cross_modal", "temporal", "query") if graphs is None else graphs
    return Manifest(
        task="retrieval",
        fingerprint=fingerprint,
        model=ModelSpec(FEATURES, HIDDEN, clip_interval=1.5, clip_limit=20),
        geometry=RowGeometry(slots=48, frames=24, temporal_slots=24, query_tokens=32),
        moment=MomentSpec((0.1, 0.3, 0.9, 0.2, 0.1), (0.1, 0.2, 0.9, 0.3, 0.1), 2, 6),
        tokenizer="tokenizer.json",
        frame_encoder=FrameEncoderSpec("mean", IMAGE, FEATURES, "0" * 64),
        graphs={name: GraphSpec(f"{name}.onnx", "fp32", 64, (), ()) for name in names},
        files={},
    )


class NumpyEngine:
    """Runs the graphs; counts the calls and fails when told to."""

    def __init__(self, manifest: Manifest | None = None, seed: int = 0) -> None:
        self.manifest = make_manifest() if manifest is None else manifest
        self.tokenizer_json = tokenizer_json()
        rng = np.random.default_rng(seed)
        self._words = rng.standard_normal((300, HIDDEN)).astype(np.float32)
        self._frames = rng.standard_normal((FEATURES, HIDDEN)).astype(np.float32)
        self._span = rng.standard_normal((HIDDEN, HIDDEN)).astype(np.float32) * 0.3
        self.calls: list[str] = []
        self.closed = False

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert not self.closed
        self.calls.append(graph)
        return getattr(self, f"_{graph}_graph")(**inputs)

    def close(self) -> None:
        self.closed = True

    def _frames_graph(self, images: np.ndarray) -> dict[str, np.ndarray]:
        assert images.dtype == np.uint8
        assert images.shape[1:] == (IMAGE, IMAGE, 3)
        colour = images.astype(np.float32).mean((1, 2)) / 255
        return {"features": np.concatenate([colour, 1 - colour], axis=1)}

    def _cross_modal_graph(
        self,
        frame_features: np.ndarray,
        frame_index: np.ndarray,
        token_ids: np.ndarray,
        position_ids: np.ndarray,
        segment_ids: np.ndarray,
    ) -> dict[str, np.ndarray]:
        hidden = np.zeros((*token_ids.shape, HIDDEN), np.float32)
        for row, slots in enumerate(segment_ids):
            for segment in range(1, slots.max() + 1):
                inside = slots == segment
                words = inside & (frame_index[row] < 0)
                text = self._words[token_ids[row, words]].mean(0) if words.any() else 0
                frames = inside & (frame_index[row] >= 0)
                hidden[row, frames] = frame_features[row, frame_index[row, frames]] @ self._frames + text
        return {"hidden": hidden}

    def _temporal_graph(
        self, frame_features: np.ndarray, position_ids: np.ndarray, segment_ids: np.ndarray, matched: np.ndarray
    ) -> dict[str, np.ndarray]:
        return {"clip_embeddings": (matched + np.sin(position_ids)[..., None]).astype(np.float32)}

    def _query_graph(self, token_ids: np.ndarray, segment_ids: np.ndarray) -> dict[str, np.ndarray]:
        words = self._words[token_ids] * segment_ids[..., None]
        vector = (words.sum(1) / segment_ids.sum(1, keepdims=True)).astype(np.float32)
        return {"query_vector": vector, "span_vector": vector @ self._span}
