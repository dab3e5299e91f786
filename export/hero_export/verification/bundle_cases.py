"""The inputs on which the graphs of a bundle are compared with one another: made from its manifest, without the checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from torch import nn

from hero_export.onnx.graphs import Graph
from hero_export.verification.cases import CaseMaker
from hero_export.verification.head_cases import Case
from hero_sdk.manifest import FRAME_GRAPH, Manifest
from hero_train.model.tasks import MODEL_CLASSES


class BundleCases:
    """Makes the cases of one bundle's graphs; see ``hero_export.verification.cases.CaseMaker``.

    Args:
        bundle: the folder.
        manifest: of the bundle.
    """

    def __init__(self, bundle: Path, manifest: Manifest) -> None:
        self._manifest = manifest
        model = manifest.model
        vocabulary = Tokenizer.from_file(str(bundle / manifest.tokenizer)).get_vocab(with_added_tokens=True)
        config = MODEL_CLASSES[manifest.task].config_class(
            # The model may have more words than its tokenizer; no text reaches them.
            vocab_size=max(vocabulary.values()) + 1,
            feature_dim=model.feature_dim,
            hidden_size=model.hidden_size,
            num_heads=1,  # of no matter here
            temporal_positions=max(model.clip_limit, manifest.geometry.temporal_slots),
            clip_limit=model.clip_limit,
        )
        most = min(graph.max_batch for name, graph in manifest.graphs.items() if name != FRAME_GRAPH)
        self._maker = CaseMaker(config, manifest.geometry, most)

    def cases_of(self, name: str) -> list[Case]:
        """The cases of a graph of the bundle; of the frame encoder random images, alone and in a batch."""
        spec = self._manifest.graphs[name]
        if name != FRAME_GRAPH:
            return self._maker.cases_of(Graph(name, nn.Identity(), spec.inputs, spec.outputs))
        images, features = spec.inputs[0], spec.outputs[0]
        rng = np.random.default_rng(0)
        return [
            Case(
                name,
                f"{count} random images",
                {images.name: rng.integers(0, 256, (count, *images.shape[1:]), dtype=np.uint8)},
                {features.name: np.ones(count, dtype=bool)},
            )
            for count in sorted({1, min(4, spec.max_batch)})
        ]
