"""A checkpoint that is tiny and whole: a HERO of a few thousand weights, its tokenizer, and a frame encoder of three nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper, save_model

from hero_sdk.frame_encoder import GRAPH_FILE, INPUT, OUTPUT, describe_frame_encoder
from hero_sdk.manifest import CAPTIONING
from hero_sdk.rows import RowGeometry
from hero_train.checkpoint import FRAME_ENCODER_FOLDER, TOKENIZER_FILE
from hero_train.config import HeroConfig
from hero_train.model.hero import HeroEncoders, HeroModel
from hero_train.model.tasks import MODEL_CLASSES
from hero_train.tokenizer import train_tokenizer_json

CONFIG = HeroConfig(
    vocab_size=300,
    feature_dim=24,
    hidden_size=32,
    num_heads=2,
    intermediate_size=64,
    cross_modal_layers=2,
    temporal_layers=1,
    text_positions=40,
    temporal_positions=24,
    query_positions=14,
    frame_positions=16,
    clip_limit=20,
)
GEOMETRY = RowGeometry(slots=32, frames=16, temporal_slots=30, query_tokens=12)
TEXT_GEOMETRY = dataclasses.replace(GEOMETRY, temporal_slots=34)
"""With room for a text behind a video."""
MAX_BATCH = 4
ANSWERS, CAPTION_TOKENS = 3, 10
IMAGE = 8

SENTENCES = ["the robot takes a red gem", "where is the gem", "who are you", "look at the sky, it is red"]


Model = TypeVar("Model", bound=HeroEncoders)


def make_model(config: HeroConfig = CONFIG, seed: int = 0) -> HeroModel:
    """A model with random weights, larger than those that training begins with, so that every part of it shows in the output."""
    return _with_large_weights(HeroModel, config, seed)


def task_config(task: str) -> HeroConfig:
    """Of a model for any task: ``CONFIG`` with one layer of each kind, which is enough and is exported sooner."""
    config = MODEL_CLASSES[task].config_class.of(CONFIG)
    changes = {
        "cross_modal_layers": 1,
        **({"decoder_layers": 1, "decoder_positions": 16} if task == CAPTIONING else {}),
    }
    return dataclasses.replace(config, **changes)


def make_task_model(task: str, seed: int = 0) -> HeroEncoders:
    """A model for any task."""
    return _with_large_weights(MODEL_CLASSES[task], task_config(task), seed)


def _with_large_weights(model_class: type[Model], config: HeroConfig, seed: int) -> Model:
    torch.manual_seed(seed)
    model = model_class(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return model


def write_checkpoint(folder: Path, config: HeroConfig = CONFIG, seed: int = 0) -> Path:
    """Write the checkpoint into a folder."""
    return write_model(folder, make_model(config, seed))


def write_model(folder: Path, model: HeroEncoders) -> Path:
    """Write the checkpoint of a model with its tokenizer and a frame encoder."""
    model.save_pretrained(folder)
    config = model.config
    (folder / TOKENIZER_FILE).write_text(train_tokenizer_json(SENTENCES, config.vocab_size - 10), encoding="utf-8")
    write_frame_encoder(folder / FRAME_ENCODER_FOLDER, config.feature_dim)
    return folder


def write_frame_encoder(folder: Path, feature_dim: int, change: Callable[[ModelProto], None] | None = None) -> Path:
    """Write a frame encoder: the mean colour of a picture times a random matrix; ``change`` alters its graph."""
    weights = np.random.default_rng(0).standard_normal((3, feature_dim), dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", [INPUT], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["pixels", "axes"], ["colour"], keepdims=0),
            helper.make_node("MatMul", ["colour", "weights"], [OUTPUT]),
        ],
        "mean colour",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", IMAGE, IMAGE, 3])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", feature_dim])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]), numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    if change is not None:
        change(model)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, folder / GRAPH_FILE)
    describe_frame_encoder(folder, "mean colour")
    return folder
