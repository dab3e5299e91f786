"""Checkpoints of the authors' sizes with random weights: what exporting takes does not depend on what a model has learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from hero_export.verification.task import TASKS
from hero_sdk.frame_encoder import GRAPH_FILE, INPUT, OUTPUT, describe_frame_encoder
from hero_train.checkpoint import FRAME_ENCODER_FOLDER, TOKENIZER_FILE
from hero_train.model.hero import HeroEncoders
from hero_train.model.tasks import MODEL_CLASSES
from hero_train.tokenizer import train_tokenizer_json

IMAGE = 32


def write_full_size(task: str, folder: Path, model: HeroEncoders | None = None) -> int:
    """Write a checkpoint that is whole: weights, a tokenizer, and a frame encoder of the width of the paper's features.

    Args:
        task: of a run, such as "questions".
        folder: where to.
        model: None makes one of the authors' sizes.

    Returns:
        The number of its parameters.
    """
    if model is None:
        torch.manual_seed(0)
        kind = MODEL_CLASSES[TASKS[task]]
        model = kind(kind.config_class()).eval()
    model.save_pretrained(folder)
    sentences = ["the robot takes the red gem", "where is the key", "who opens the door"]
    (folder / TOKENIZER_FILE).write_text(train_tokenizer_json(sentences, 300), encoding="utf-8")
    _write_frame_encoder(folder / FRAME_ENCODER_FOLDER, model.config.feature_dim)
    return sum(parameter.numel() for parameter in model.parameters())


def _write_frame_encoder(folder: Path, width: int) -> None:
    """The mean colour of a picture times a random matrix: nobody's features, in the shape of the paper's."""
    weights = np.random.default_rng(0).standard_normal((3, width), dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", [INPUT], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["pixels", "axes"], ["colour"], keepdims=0),
            helper.make_node("MatMul", ["colour", "weights"], [OUTPUT]),
        ],
        "mean colour",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", IMAGE, IMAGE, 3])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]), numpy_helper.from_array(weights, "weights")],
    )
    folder.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    onnx.save_model(model, folder / GRAPH_FILE)
    describe_frame_encoder(folder, "mean colour")
