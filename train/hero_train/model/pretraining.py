"""HERO with the heads of pre-training: masked words, masked frames and frame order (paper, section 3.2).

Video-subtitle matching (VSM) needs no head of its own: a subtitle is a query, and the retrieval head answers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from hero_sdk.rows import PackedVideos
from hero_train.config import HeroConfig
from hero_train.errors import ConfigError
from hero_train.model.classifier import Classifier
from hero_train.model.hero import HeroModel
from hero_train.model.language import LanguageHead
from hero_train.model.layers import initialise


@dataclass(frozen=True)
class HeroPretrainingConfig(HeroConfig):
    """Sizes of a ``HeroForPretraining``.

    Attributes:
        vocabulary: how many ids the tokenizer has; the default is RoBERTa's. The rows of the word embeddings beyond them are
            padding and are predicted by nobody.
    """

    task: ClassVar[str | None] = "pre-training"

    vocabulary: int = 50265

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocabulary > self.vocab_size:
            raise ConfigError(
                f"vocabulary {self.vocabulary} exceeds vocab_size {self.vocab_size}; every token needs an embedding."
            )


class HeroForPretraining(HeroModel):
    """The retrieval model with what only pre-training needs.

    Frame order has one class per place, ``config.clip_limit`` in all.

    Args:
        config: of the model.
        vocabulary: as in ``HeroPretrainingConfig``; None takes the configuration's, and all rows where it has none.
    """

    config_class: ClassVar[type[HeroConfig]] = HeroPretrainingConfig
    config: HeroPretrainingConfig

    def __init__(self, config: HeroConfig, vocabulary: int | None = None) -> None:
        if vocabulary is None:
            vocabulary = config.vocabulary if isinstance(config, HeroPretrainingConfig) else config.vocab_size
        super().__init__(HeroPretrainingConfig(**asdict(HeroConfig.of(config)), vocabulary=vocabulary))
        self.language = LanguageHead(config)
        self.regression = Classifier(config.hidden_size, config.feature_dim, inner_size=config.hidden_size)
        self.order = Classifier(config.hidden_size, config.clip_limit)
        # Row 1 is added to masked frames, row 0 to the others. Row 0 gets no gradient; it is zero here, and in the authors' models
        # whatever their initialisation left there.
        self.cross_modal_mask = nn.Embedding(2, config.feature_dim, padding_idx=0)
        self.temporal_mask = nn.Embedding(2, config.feature_dim, padding_idx=0)
        for part in (self.language, self.regression, self.order, self.cross_modal_mask, self.temporal_mask):
            initialise(part, config.initializer_range)
        with torch.no_grad():
            self.cross_modal_mask.weight[0] = 0
            self.temporal_mask.weight[0] = 0

    def word_logits(self, hidden: Tensor) -> Tensor:
        """Which word a masked token was: stage-1 output (M, hidden) -> (M, vocabulary)."""
        return self.language(hidden, self.cross_modal.text.word.weight)[:, : self.config.vocabulary]

    def encode_masked_videos(self, packed: PackedVideos, masks: Mapping[str, np.ndarray]) -> Tensor:
        """Both stages on a batch, some of whose frames are masked: clip embeddings in temporal rows, (R, S, hidden).

        Args:
            packed: the batch; the features of masked frames are zero.
            masks: which frames are masked, bool: "cross_modal" (R1, F) in the tables of stage 1, "temporal" (R, S) in stage 2.
        """
        chosen = self.tensors(masks)
        first, second = self.cross_modal_inputs(packed), self.tensors(packed.temporal.arrays())
        table = chosen["cross_modal"][:, : first["frame_features"].shape[1]]
        first["frame_features"] = first["frame_features"] + self.cross_modal_mask(table.long())
        second["frame_features"] = second["frame_features"] + self.temporal_mask(chosen["temporal"].long())
        return self.temporal(**second, matched=self.regroup(packed, self.cross_modal(**first)))

    def retrieval_model(self) -> HeroModel:
        """The model without the heads of pre-training, which fine-tuning and ``hero-export`` take; it shares its weights."""
        with torch.device("meta"):
            model = HeroModel(HeroConfig.of(self.config))
        state = self.state_dict()
        model.load_state_dict({name: state[name] for name in model.state_dict()}, assign=True)
        return model.train(self.training)
