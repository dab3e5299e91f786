"""Reads an oracle: inputs, weights, intermediate results, losses and gradients of the authors' implementation, as plain numbers.

Each dump is a pair ``NAME.json`` (the structure) and ``NAME.safetensors`` (the tensors). The folder is the one in the environment
variable HERO_ORACLE, or the compact copy in ``tests/data/oracle/tiny``.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from hero_sdk.rows import PackedVideos, RowGeometry, Segment, VideoInput, pack_videos
from hero_sdk.types import IntArray
from hero_train.config import HeroConfig
from hero_train.model.hero import HeroModel
from hero_train.official import infer_config, model_from_official


def oracle_folder() -> Path:
    """The folder of the tiny oracle."""
    named = os.environ.get("HERO_ORACLE")
    folder = Path(named) if named else Path(__file__).parents[1] / "data" / "oracle" / "tiny"
    if (folder / "tiny").is_dir():
        folder = folder / "tiny"
    if not (folder / "vcmr_io.json").is_file():
        raise FileNotFoundError(f"{folder} holds no oracle: there is no vcmr_io.json in it.")
    return folder


def read_dump(name: str) -> Any:
    """One dump with its tensors in place."""
    folder = oracle_folder()
    tensors = load_file(folder / f"{name}.safetensors")
    return _restore(json.loads((folder / f"{name}.json").read_text()), tensors)


def _restore(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, dict):
        if "$tensor" in node:
            return tensors[node["$tensor"]]
        if "$tuple" in node:
            return tuple(_restore(item, tensors) for item in node["$tuple"])
        return {key: _restore(value, tensors) for key, value in node.items()}
    if isinstance(node, list):
        return [_restore(item, tensors) for item in node]
    return node


def read_model(task: str) -> tuple[HeroModel, dict[str, Any]]:
    """The oracle's model of one task, imported through the official names, and the oracle's own settings."""
    dump = read_dump(f"{task}_state_dict")
    sizes = json.loads((oracle_folder() / "config" / "hero_finetune.json").read_text())["f_config"]
    config: HeroConfig = infer_config(dump["state_dict"], num_heads=sizes["num_attention_heads"])
    model, _ = model_from_official(dump["state_dict"], config)
    return model, dump["meta"]


class OracleTokenizer:
    """The oracle's: a number for each word, and one more for words that end in 7."""

    def __init__(self, store: str) -> None:
        meta = json.loads((oracle_folder() / "db" / "txt" / store / "meta.json").read_text())
        self._first = meta["UNK"] + 2
        self._choices = meta["v_range"][1] - self._first

    def encode(self, text: str) -> IntArray:
        """int32 (tokens,), without special tokens."""
        tokens = []
        for word in text.split():
            code = zlib.crc32(word.encode())
            tokens.append(self._first + code % self._choices)
            if word.endswith("7"):
                tokens.append(self._first + code // 977 % self._choices)
        return np.array(tokens, dtype=np.int32)


class OracleBatch:
    """A collated batch of the authors' loader, and the same videos as this project packs them."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self.raw = batch
        self.frame_mask = batch["c_attn_masks"].bool()
        self.lengths = self.frame_mask.sum(dim=1).tolist()
        self.videos: list[VideoInput] = []
        row = 0
        for number, (subtitles, owned) in enumerate(zip(batch["num_subs"], batch["sub_idx2frame_idx"], strict=True)):
            frames_of = dict(owned)
            segments = []
            for index in range(subtitles):
                tokens = batch["f_sub_input_ids"][row][batch["f_sub_input_attn_masks"][row].bool()]
                segments.append(Segment(np.array(frames_of.get(index, []), np.int32), tokens.numpy().astype(np.int32)))
                row += 1
            features = batch["c_v_feats"][number, : self.lengths[number]].numpy()
            self.videos.append(VideoInput(features, tuple(segments)))

    def pack(self, geometry: RowGeometry) -> PackedVideos:
        """The batch as rows of this project, with the subtitles that own no frame."""
        return pack_videos(self.videos, geometry, keep_frameless=True)

    def padded_row(self, number: int) -> tuple[list[int], int, int]:
        """Where a segment's real slots lie in the authors' padded row: slots, number of frames, number of tokens."""
        flat = [segment for video in self.videos for segment in video.segments]
        frames, tokens = len(flat[number].frames), len(flat[number].tokens)
        # A subtitle that owns no frame has a dummy frame, masked, in front of its tokens.
        first = 0 if frames else int(self.raw["f_attn_masks"][number, 0] == 0)
        return list(range(first, first + frames + tokens)), frames, tokens

    def queries(self) -> tuple[Tensor, Tensor]:
        """Token ids and segment ids of the queries, (Q, T) each."""
        return self.raw["query_input_ids"].int(), self.raw["query_attn_masks"].int()


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Fail with the worst difference unless every element agrees to an absolute tolerance."""
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=tolerance)
