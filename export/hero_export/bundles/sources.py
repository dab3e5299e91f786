"""What an export starts from: the checkpoint, its tokenizer and its frame encoder, found and checked to go together."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import onnx
from tokenizers import Tokenizer

from hero_export.errors import ExportError
from hero_sdk.errors import FingerprintError
from hero_sdk.frame_encoder import GRAPH_FILE, SPEC_FILE, load_frame_encoder
from hero_sdk.manifest import FrameEncoderSpec, sha256_of
from hero_sdk.tokens import TextTokenizer
from hero_train.checkpoint import FRAME_ENCODER_FOLDER, TOKENIZER_FILE, WEIGHTS_FILE, resolve_folder
from hero_train.config import HeroConfig
from hero_train.model.hero import HeroEncoders
from hero_train.model.tasks import model_class_of


@dataclass(frozen=True)
class ModelSource:
    """A model and what it reads texts with.

    Attributes:
        checkpoint: folder with ``config.json`` and ``model.safetensors``.
        model_class: the model of its task.
        config: of the model.
        tokenizer: JSON file of the ``tokenizers`` library.
    """

    checkpoint: Path
    model_class: type[HeroEncoders]
    config: HeroConfig
    tokenizer: Path


@dataclass(frozen=True)
class Sources(ModelSource):
    """The parts that a bundle is made of.

    Attributes:
        frame_encoder: folder with ``frame_encoder.onnx`` and ``frame_encoder.json``.
        frames: what the frame encoder is.
    """

    frame_encoder: Path
    frames: FrameEncoderSpec

    def fingerprint(self) -> str:
        """Identity of the embedding space: everything that decides which vector a video or a sentence gets.

        Engine, precision and row geometry do not: bundles that differ in these alone search one another's corpora.
        """
        parts = {
            "weights": sha256_of(self.checkpoint / WEIGHTS_FILE),
            "tokenizer": sha256_of(self.tokenizer),
            "frame_encoder": self.frames.fingerprint,
            "clip_interval": self.config.clip_interval,
            "clip_limit": self.config.clip_limit,
            "subtitle_context": self.config.subtitle_context,
            # The one size of the architecture that the weights do not show.
            "num_heads": self.config.num_heads,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def find_sources(
    checkpoint: str | Path, *, tokenizer: Path | None = None, frame_encoder: Path | None = None
) -> Sources:
    """Find the parts of a checkpoint and check that they were made for one another.

    Args:
        checkpoint: a folder, or a hub id.
        tokenizer: a ``tokenizer.json``, or a folder with one; None takes the checkpoint's.
        frame_encoder: a frame encoder's folder; None takes the checkpoint's.

    Raises:
        CheckpointError, ConfigError: no checkpoint, or one that cannot be read.
        ExportError: no tokenizer or frame encoder, or one that a bundle cannot carry.
        FingerprintError: the tokenizer or the frame encoder is not the one that the model was trained with.
        BundleError: a tokenizer or frame encoder that cannot be read.
    """
    model = find_model(checkpoint, tokenizer=tokenizer)
    encoder = frame_encoder or model.checkpoint / FRAME_ENCODER_FOLDER
    if not encoder.is_dir():
        raise ExportError(
            f"There is no folder {encoder}; expected a frame encoder ({GRAPH_FILE} and {SPEC_FILE}), the one that the model's "
            "features came from. Name it with --frame-encoder; `hero-export frame-encoder` writes the packaged one."
        )
    return Sources(**vars(model), frame_encoder=encoder, frames=_check_frame_encoder(encoder, model.config))


def find_model(checkpoint: str | Path, *, tokenizer: Path | None = None) -> ModelSource:
    """Find the model of a checkpoint and its tokenizer, and check that they were made for one another.

    Args:
        checkpoint: a folder, or a hub id.
        tokenizer: a ``tokenizer.json``, or a folder with one; None takes the checkpoint's.

    Raises:
        CheckpointError, ConfigError: no checkpoint, or one that cannot be read.
        ExportError: no tokenizer, or one that is not text.
        FingerprintError: the tokenizer is not the one that the model was trained with.
        BundleError: a tokenizer that cannot be read.
    """
    folder = resolve_folder(checkpoint)
    model_class = model_class_of(folder)
    config = model_class.config_class.load(folder)
    token_file = _tokenizer_file(folder, tokenizer)
    _check_tokenizer(token_file, config)
    return ModelSource(folder, model_class, config, token_file)


def _tokenizer_file(checkpoint: Path, tokenizer: Path | None) -> Path:
    path = tokenizer or checkpoint
    if path.is_dir():
        path = path / TOKENIZER_FILE
    if not path.is_file():
        raise ExportError(
            f"There is no file {path}; expected the tokenizer that the model was trained with, in the JSON format of the "
            "tokenizers library. Name it with --tokenizer."
        )
    return path


def _check_tokenizer(path: Path, config: HeroConfig) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ExportError(f"{path} is not text ({error}); expected the JSON of the tokenizers library.") from error
    TextTokenizer(text)
    largest = max(Tokenizer.from_str(text).get_vocab(with_added_tokens=True).values())
    if largest >= config.vocab_size:
        raise FingerprintError(
            f"{path} has token ids up to {largest}, and the model has {config.vocab_size} word embeddings (ids up to "
            f"{config.vocab_size - 1}). Use the tokenizer that the model was trained with."
        )


def _check_frame_encoder(folder: Path, config: HeroConfig) -> FrameEncoderSpec:
    spec = load_frame_encoder(folder, providers=["CPUExecutionProvider"]).spec
    if spec.feature_dim != config.feature_dim:
        raise FingerprintError(
            f"The frame encoder '{spec.name}' in {folder} gives features of width {spec.feature_dim}, and the model was trained on "
            f"features of width {config.feature_dim}. Use the frame encoder that the model's features came from."
        )
    graph = onnx.load(str(folder / GRAPH_FILE), load_external_data=False).graph
    if any(weight.data_location == onnx.TensorProto.EXTERNAL for weight in graph.initializer):
        raise ExportError(
            f"{folder / GRAPH_FILE} keeps weights in another file, which its fingerprint does not cover; expected all weights in "
            "the ONNX file. Save it again with onnx.save_model(..., save_as_external_data=False)."
        )
    return spec
