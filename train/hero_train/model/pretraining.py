"""HERO with the heads of pre-training: masked words, masked frames and frame order (paper, section 3.2).

Video-subtitle matching (VSM) needs no head of its own: a subtitle is a query, and the retrieval head answers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from hero_sdk.rows import PackedVideos
from hero_train.config import HeroConfig
from hero_train.errors import CheckpointError
from hero_train.model.classifier import Classifier
from hero_train.model.hero import HeroModel
from hero_train.model.language import LanguageHead
from hero_train.model.layers import initialise
from hero_train.official import ImportReport, infer_config, load_official


class HeroForPretraining(HeroModel):
    """The retrieval model with what only pre-training needs.

    Frame order has one class per place, ``config.clip_limit`` in all.

    Args:
        config: of the model.
        vocabulary: how many ids the tokenizer has; the rows of the word embeddings beyond them are padding and are predicted by
            nobody. None counts all rows.
    """

    def __init__(self, config: HeroConfig, vocabulary: int | None = None) -> None:
        super().__init__(config)
        self.vocabulary = config.vocab_size if vocabulary is None else vocabulary
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
        return self.language(hidden, self.cross_modal.text.word.weight)[:, : self.vocabulary]

    def encode_masked_videos(self, packed: PackedVideos, masks: Mapping[str, np.ndarray]) -> Tensor:
        """Both stages on a batch, some of whose frames are masked: clip embeddings in temporal rows, (R, S, hidden).

        Args:
            packed: the batch; the features of masked frames are zero.
            masks: which frames are masked, bool: "cross_modal" (R1, F) in the tables of stage 1, "temporal" (R, S) in stage 2.
        """
        chosen = self.tensors(masks)
        first, second = self.tensors(packed.cross_modal.arrays()), self.tensors(packed.temporal.arrays())
        first["frame_features"] = first["frame_features"] + self.cross_modal_mask(chosen["cross_modal"].long())
        second["frame_features"] = second["frame_features"] + self.temporal_mask(chosen["temporal"].long())
        return self.temporal(**second, matched=self.regroup(packed, self.cross_modal(**first)))

    def retrieval_model(self) -> HeroModel:
        """The model without the heads of pre-training, which fine-tuning and ``hero-export`` take; it shares its weights."""
        with torch.device("meta"):
            model = HeroModel(self.config)
        state = self.state_dict()
        model.load_state_dict({name: state[name] for name in model.state_dict()}, assign=True)
        return model.train(self.training)


def pretraining_from_official(
    state: Mapping[str, Tensor], *, num_heads: int | None = None, vocabulary: int | None = None
) -> tuple[HeroForPretraining, ImportReport]:
    """Build a model from the state dict of an official pre-training checkpoint.

    Args:
        state: official names to tensors, such as ``hero_train.official.read_official`` returns.
        num_heads: of the attention, if their width is not 64.
        vocabulary: how many ids the tokenizer has (RoBERTa: 50,265), which the checkpoint does not say.

    Raises:
        CheckpointError: a tensor is missing, or has another shape than the model has.
    """
    classes = state.get("v_encoder.fom_output.linear_2.bias")
    if classes is None:
        raise CheckpointError(
            "The checkpoint has no v_encoder.fom_output.linear_2.bias, the head of frame order modelling; expected one that "
            "pre-training wrote. Import others with hero_train.official.model_from_official."
        )
    config = replace(infer_config(state, num_heads=num_heads), clip_limit=len(classes))
    model = HeroForPretraining(config, vocabulary)
    return model, load_official(model, state)
