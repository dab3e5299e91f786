"""HERO as one module: both stages, the query encoder and the moment head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hero_sdk.manifest import MomentSpec
from hero_sdk.rows import PackedVideos, Regrouping
from hero_train.checkpoint import load_weights, resolve_folder, save_weights
from hero_train.config import HeroConfig
from hero_train.model.encoders import CrossModalEncoder, QueryEncoder, TemporalEncoder
from hero_train.model.layers import TransformerLayer, initialise
from hero_train.model.moment import MomentHead

if TYPE_CHECKING:
    from typing import Self

SMALLEST_DEVIATION = 0.05
"""Of a normed feature; one that hardly ever differs is not blown up."""


@dataclass(frozen=True)
class QueryOutput:
    """Encoded queries: ``vector`` and ``span_vector``, (Q, hidden) each."""

    vector: Tensor
    span_vector: Tensor


class HeroEncoders(nn.Module):
    """Both stages of HERO, which every task's model has, and how its checkpoints are kept."""

    config_class: ClassVar[type[HeroConfig]] = HeroConfig

    def __init__(self, config: HeroConfig) -> None:
        super().__init__()
        self.config = config
        self.cross_modal = CrossModalEncoder(config)
        self.temporal = TemporalEncoder(config)
        # The heads keep the library's own initialisation, as in the authors' code.
        initialise(self.cross_modal, config.initializer_range)
        initialise(self.temporal, config.initializer_range)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.cross_modal.text.word.weight.device

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Trade time for memory: keep of each encoder layer its input only, and compute the rest again for the gradients.

        These stay the same, bit for bit: dropout draws the same again.
        """
        for layer in (*self.cross_modal.layers, *self.temporal.layers):
            assert isinstance(layer, TransformerLayer)
            layer.recomputed = enabled

    def encode_videos(self, packed: PackedVideos) -> Tensor:
        """Both stages on a packed batch: clip embeddings in temporal rows, (R, S, hidden)."""
        return self.temporal(**self.tensors(packed.temporal.arrays()), matched=self.matched(packed))

    def matched(self, packed: PackedVideos) -> Tensor:
        """Stage 1, and its output brought to the slots of stage 2: (R, S, hidden)."""
        return self.regroup(packed, self.cross_modal(**self.cross_modal_inputs(packed)))

    def cross_modal_inputs(self, packed: PackedVideos) -> dict[str, Tensor]:
        """What stage 1 reads, with frame tables no longer than the fullest row needs.

        Engines want tables of one length; here the projection of their empty rows would be work for nothing.
        """
        rows = packed.cross_modal
        used = max(1, int(rows.frame_index.max()) + 1)
        return self.tensors({**rows.arrays(), "frame_features": rows.frame_features[:, :used]})

    def regroup(self, packed: PackedVideos, hidden: Tensor) -> Tensor:
        """``hero_sdk.rows.Regrouping.apply`` with gradients: (R1, S1, hidden) -> (R2, S2, hidden)."""
        return self.scatter(packed.regrouping, hidden, packed.temporal.segment_ids.shape)

    def scatter(self, regrouping: Regrouping, hidden: Tensor, shape: Sequence[int]) -> Tensor:
        """``regroup`` into rows of a ``shape`` (R2, S2), whatever they are."""
        way = self.tensors({name: getattr(regrouping, name) for name in regrouping.__dataclass_fields__})
        matched = hidden.new_zeros(*shape, hidden.shape[-1])
        source = hidden[way["source_row"].long(), way["source_slot"].long()]
        return matched.index_put((way["target_row"].long(), way["target_slot"].long()), source, accumulate=True)

    def unpack(self, packed: PackedVideos, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Clip embeddings of temporal rows as one padded row per video.

        Returns:
            (V, L, hidden) with zeros beyond each video's end, and its mask (V, L) bool.
        """
        parts = [clips[span.row, span.start : span.start + span.length] for span in packed.videos]
        lengths = torch.tensor([span.length for span in packed.videos], device=clips.device)
        padded = nn.utils.rnn.pad_sequence(parts, batch_first=True)
        return padded, torch.arange(padded.shape[1], device=clips.device) < lengths[:, None]

    @torch.no_grad()
    def standardise_features(self, features: Tensor) -> None:
        """Prepare a model with random weights for a kind of frame feature.

        Sets the norms in front of both frame projections so that every feature leaves them with mean 0 and deviation 1 over the
        sample. Pooled features of a convolutional network are mostly a large common part; what tells frames apart is small
        beside it, and learning to look past it takes longer than all the rest.

        Args:
            features: (frames, feature_dim) float, a sample of the training videos.
        """
        normed = F.layer_norm(features.to(self.device), features.shape[1:])
        deviation, mean = torch.std_mean(normed, dim=0)
        scale = 1 / deviation.clamp(min=SMALLEST_DEVIATION)
        for norm in (self.cross_modal.frames.feature_norm, self.temporal.frames.norm):
            norm.weight.copy_(scale)
            norm.bias.copy_(-mean * scale)

    def tensors(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Numpy arrays as tensors on the model's device."""
        return {name: torch.from_numpy(np.ascontiguousarray(array)).to(self.device) for name, array in arrays.items()}

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None) -> Self:
        """Load a checkpoint that ``save_pretrained`` wrote.

        Args:
            source: a folder, or the id of a repository on the Hugging Face hub.
            revision: of the hub repository.

        Raises:
            CheckpointError: no such checkpoint, or weights that do not fit its configuration.
        """
        folder = resolve_folder(source, revision)
        model = cls(cls.config_class.load(folder))
        load_weights(model, folder)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder, which is made if it does not exist."""
        save_weights(self.state_dict(), self.config, Path(folder))


class HeroModel(HeroEncoders):
    """Hierarchical video-and-language encoder with its retrieval head (Li et al., EMNLP 2020)."""

    def __init__(self, config: HeroConfig) -> None:
        super().__init__(config)
        self.query = QueryEncoder(config)
        self.moment = MomentHead(config)

    def encode_queries(self, token_ids: Tensor, segment_ids: Tensor) -> QueryOutput:
        """Queries of ``hero_sdk.rows.pack_queries``, (Q, T) each, to vectors."""
        vector = self.query(self.cross_modal.encode_text(token_ids, segment_ids), segment_ids)
        return QueryOutput(vector, self.moment.query(vector))

    def moment_spec(self) -> MomentSpec:
        """The moment head and the search protocol, as span search and the manifest of a bundle take them."""
        start, end = (
            tuple(map(float, conv.weight.detach().flatten())) for conv in (self.moment.start, self.moment.end)
        )
        config = self.config
        return MomentSpec(start, end, config.min_span_clips, config.max_span_clips, nms_iou=config.nms_iou)
