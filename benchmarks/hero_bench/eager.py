"""The baselines: the checkpoint in PyTorch (float32, eager), on packed rows and padded the way the authors do it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from hero_bench.errors import BenchmarkError
from hero_bench.padded_encoding import encode_padded
from hero_bench.padding import pad_videos
from hero_export.onnx.graphs import graphs_of
from hero_sdk.engines.batching import Arrays, run_in_batches
from hero_sdk.errors import InputError
from hero_sdk.hero import VideoFeatures
from hero_sdk.manifest import Manifest, ModelSpec
from hero_sdk.rows import pack_queries
from hero_sdk.tokens import TextTokenizer
from hero_sdk.types import EncodedVideo, Query
from hero_sdk.video_inputs import video_inputs
from hero_sdk.windows import merge_windows
from hero_train.model.hero import HeroModel


def load_model(checkpoint: str, manifest: Manifest, tokenizer_json: str) -> HeroModel:
    """The model of a checkpoint, in evaluation mode.

    Raises:
        CheckpointError, ConfigError: no checkpoint, or one that cannot be read.
        BenchmarkError: its sizes are not those of the bundle. (That its weights are is seen when results are compared.)
    """
    model = HeroModel.from_pretrained(checkpoint).float().eval()
    config = model.config
    found = ModelSpec(
        config.feature_dim, config.hidden_size, config.clip_interval, config.clip_limit, config.subtitle_context
    )
    words = TextTokenizer(tokenizer_json).vocabulary_size
    if found != manifest.model or config.vocab_size < words:
        raise BenchmarkError(
            f"The checkpoint {checkpoint} has {found} and {config.vocab_size} word embeddings; the bundle was exported from "
            f"{manifest.model} and its tokenizer has {words} words. Name the checkpoint that the bundle was exported from."
        )
    return model


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads in a ``with`` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TorchEngine:
    """Runs the graphs of a bundle as the modules that they were exported from; all but the frame encoder, which has none.

    Args:
        model: of the checkpoint.
        manifest, tokenizer_json: of the bundle.
    """

    def __init__(self, model: HeroModel, manifest: Manifest, tokenizer_json: str) -> None:
        self.manifest = manifest
        self.tokenizer_json = tokenizer_json
        self._graphs = graphs_of(model, manifest.geometry)

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run one graph; see ``hero_sdk.engines.Engine.run``."""
        if graph not in self._graphs:
            raise InputError(f"PyTorch has no graph '{graph}'; it has {sorted(self._graphs)}.")
        spec, module = self.manifest.graphs[graph], self._graphs[graph].module

        def call(piece: Arrays) -> Arrays:
            with torch.inference_mode():
                outputs = module(*(torch.from_numpy(array) for array in piece.values()))
            tensors = outputs if isinstance(outputs, tuple) else (outputs,)
            return {tensor.name: value.numpy() for tensor, value in zip(spec.outputs, tensors, strict=True)}

        return run_in_batches(spec, graph, inputs, call)

    def close(self) -> None:
        """Nothing to free."""


class PaddedModel:
    """Encodes as the authors' code does: one row per subtitle, as long as the longest of the batch; queries likewise.

    Only the layout is theirs (see ``hero_bench.padding``); the layers are the model's.

    Args:
        model: of the checkpoint.
        manifest, tokenizer_json: of the bundle.
    """

    def __init__(self, model: HeroModel, manifest: Manifest, tokenizer_json: str) -> None:
        self._model = model
        self._manifest = manifest
        self._tokenizer = TextTokenizer(tokenizer_json)

    def encode_queries(self, texts: Iterable[str]) -> list[Query]:
        """See ``Hero.encode_queries``."""
        texts = list(texts)
        tokens = [self._tokenizer.encode_query(text)[: self._manifest.geometry.query_tokens] for text in texts]
        token_ids, segment_ids = pack_queries(tokens, max(map(len, tokens)))
        with torch.inference_mode():
            output = self._model.encode_queries(torch.from_numpy(token_ids), torch.from_numpy(segment_ids))
        return [Query(*parts) for parts in zip(texts, output.vector.numpy(), output.span_vector.numpy(), strict=True)]

    def encode_many(self, videos: Sequence[VideoFeatures]) -> list[EncodedVideo]:
        """See ``Hero.encode_many``."""
        spec = self._manifest.model
        windows = [video_inputs(video.features, video.subtitles, self._tokenizer, spec) for video in videos]
        padded = pad_videos([window for parts in windows for _, window in parts])
        with torch.inference_mode():
            rows, mask = (tensor.numpy() for tensor in encode_padded(self._model, padded))
        clips = (row[real] for row, real in zip(rows, mask, strict=True))
        encoded = []
        for video, parts in zip(videos, windows, strict=True):
            merged = merge_windows([(window, next(clips)) for window, _ in parts])
            encoded.append(EncodedVideo(merged, spec.clip_interval, len(merged) * spec.clip_interval, video.subtitles))
        return encoded
