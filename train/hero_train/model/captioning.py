"""Captioning (TVC): a decoder that reads the clips of a moment and writes a sentence about it."""

from __future__ import annotations

from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from hero_sdk.errors import InputError
from hero_sdk.rows import PackedVideos
from hero_sdk.sentence_search import BeamConfig, beam_search, greedy_search
from hero_sdk.types import FloatArray, IntArray
from hero_train.config import CaptioningConfig
from hero_train.model.hero import HeroEncoders
from hero_train.model.language import LanguageHead
from hero_train.model.layers import Attention, TransformerLayer

CAPTION_LIMIT = 30
"""Most tokens of a caption, its end included, as in the authors' inference."""


class DecoderLayer(TransformerLayer):
    """Self-attention of the words so far, attention to the moment's clips, feed-forward network."""

    def __init__(
        self, hidden_size: int, num_heads: int, intermediate_size: int, hidden_dropout: float, attention_dropout: float
    ) -> None:
        super().__init__(hidden_size, num_heads, intermediate_size, hidden_dropout, attention_dropout)
        self.clips = Attention(hidden_size, num_heads, hidden_dropout, attention_dropout)

    def forward(  # type: ignore[override]  # A decoder's layer reads two things, and nobody takes it for an encoder's.
        self, hidden: Tensor, mask: Tensor, clips: Tensor, clip_mask: Tensor
    ) -> Tensor:
        """(N, T, hidden), (1, 1, T, T) bool, (N, C, hidden), (N, 1, 1, C) bool -> (N, T, hidden)."""
        hidden = self.attention(hidden, mask)
        hidden = self.clips.attend(hidden, *self.clips.keys_values(clips), clip_mask)
        return self.feed_forward(hidden)


class CaptionDecoder(nn.Module):
    """The decoder's own part: positions and layers. The words and the way back to them belong to the model.

    ``N`` captions, ``L`` layers, ``C`` clips of the longest moment, ``P`` places of the cache. Of the two in the shapes of memory
    and cache, the first are the keys and the second the values.
    """

    def __init__(self, config: CaptioningConfig) -> None:
        super().__init__()
        self.position = nn.Embedding(config.decoder_positions, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(
                config.hidden_size,
                config.num_heads,
                config.intermediate_size,
                config.hidden_dropout,
                config.attention_dropout,
            )
            for _ in range(config.decoder_layers)
        )

    def _stack(self) -> list[DecoderLayer]:
        return cast("list[DecoderLayer]", list(self.layers))

    def forward(self, words: Tensor, clips: Tensor, clip_mask: Tensor) -> Tensor:
        """Whole sentences at once, each word seeing those before it: (N, T, hidden), (N, C, hidden), (N, C) -> (N, T, hidden)."""
        length = words.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=words.device).tril()[None, None]
        hidden = self.norm(words + self.position.weight[:length])
        for layer in self._stack():
            hidden = layer(hidden, causal, clips, clip_mask[:, None, None])
        return hidden

    def prefill(self, clips: Tensor) -> Tensor:
        """What every step reads of the clips: (N, C, hidden) -> memory (N, L, 2, heads, C, width)."""
        return torch.stack([torch.stack(layer.clips.keys_values(clips), dim=1) for layer in self._stack()], dim=1)

    def step(
        self, words: Tensor, positions: Tensor, cache: Tensor, memory: Tensor, clip_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One word of each caption.

        Args:
            words: (N, hidden) embeddings of the words.
            positions: (N,) int, their places, less than ``P``.
            cache: (N, L, 2, heads, P, width) of the words before; what it holds from ``positions`` on is not read.
            memory: of ``prefill``.
            clip_mask: (N, C) bool.

        Returns:
            (N, hidden), and the cache with these words in it.
        """
        place = torch.arange(cache.shape[4], device=cache.device)
        seen = (place <= positions[:, None])[:, None, None]
        here = (place == positions[:, None])[:, None, None, :, None]
        hidden = self.norm(words + self.position(positions))[:, None]
        grown = []
        for number, layer in enumerate(self._stack()):
            new = torch.stack(layer.attention.keys_values(hidden), dim=1)
            grown.append(torch.where(here, new, cache[:, number]))
            hidden = layer.attention.attend(hidden, grown[-1][:, 0], grown[-1][:, 1], seen)
            hidden = layer.clips.attend(hidden, memory[:, number, 0], memory[:, number, 1], clip_mask[:, None, None])
            hidden = layer.feed_forward(hidden)
        return hidden[:, 0], torch.stack(grown, dim=1)


class HeroForCaptioning(HeroEncoders):
    """HERO's encoders with a caption decoder, which shares their word embeddings (paper, section 4; TVC)."""

    config_class: ClassVar[type[CaptioningConfig]] = CaptioningConfig
    config: CaptioningConfig

    def __init__(self, config: CaptioningConfig) -> None:
        super().__init__(config)
        self.decoder = CaptionDecoder(config)
        self.language = LanguageHead(config)

    def encode_moments(self, packed: PackedVideos, moments: IntArray) -> tuple[Tensor, Tensor]:
        """The clip embeddings of moments, each in the context of its whole video.

        Args:
            packed: the videos.
            moments: (N, 3) int: video, first clip, and the clip after the last one.

        Returns:
            (N, C, hidden) with zeros beyond each moment's end, and its mask (N, C) bool.

        Raises:
            InputError: no moment, one without a clip, or one beyond its video.
        """
        if not len(moments):
            raise InputError("There is no moment to caption; pass at least one.")
        clips = self.encode_videos(packed)
        parts = []
        for video, first, stop in moments.tolist():
            if not (0 <= video < len(packed.videos) and 0 <= first < stop <= packed.videos[video].length):
                raise InputError(
                    f"A moment is clips {first} to {stop} (exclusive) of video {video}; expected at least one clip, and "
                    f"videos with {[span.length for span in packed.videos]} clips."
                )
            span = packed.videos[video]
            parts.append(clips[span.row, span.start + first : span.start + stop])
        lengths = torch.tensor([len(part) for part in parts], device=self.device)
        padded = nn.utils.rnn.pad_sequence(parts, batch_first=True)
        return padded, torch.arange(padded.shape[1], device=self.device) < lengths[:, None]

    def scores(self, token_ids: Tensor, clips: Tensor, clip_mask: Tensor) -> Tensor:
        """Logits of the word after each word of whole captions.

        Args:
            token_ids: (N, T) int, with ``<s>`` in front; what follows a caption's end is not read by what stands before it.
            clips, clip_mask: (N, C, hidden) and (N, C) bool, of ``encode_moments``.

        Returns:
            (N, T, vocabulary).
        """
        words = self.cross_modal.text.word
        return self.language(self.decoder(words(token_ids), clips, clip_mask), words.weight)

    def empty_cache(self, captions: int, limit: int) -> Tensor:
        """The cache of ``step`` before the first one: (captions, L, 2, heads, limit, width) zeros."""
        config = self.config
        width = config.hidden_size // config.num_heads
        shape = (captions, config.decoder_layers, 2, config.num_heads, limit, width)
        return torch.zeros(shape, device=self.device, dtype=self.decoder.position.weight.dtype)

    def step(
        self, token_ids: Tensor, positions: Tensor, cache: Tensor, memory: Tensor, clip_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``scores`` one word at a time: a function of tensors alone, with shapes that do not change from step to step.

        Args:
            token_ids: (N,) int, the last word of each caption.
            positions: (N,) int, its place, counted from 0 at ``<s>``.
            cache: as the step before returned it, or ``empty_cache``.
            memory: ``decoder.prefill`` of the clips.
            clip_mask: (N, C) bool.

        Returns:
            (N, vocabulary) logits, and the cache for the next step.
        """
        words = self.cross_modal.text.word
        hidden, cache = self.decoder.step(words(token_ids), positions, cache, memory, clip_mask)
        return self.language(hidden, words.weight), cache

    @torch.no_grad()
    def caption(
        self, packed: PackedVideos, moments: IntArray, *, limit: int = CAPTION_LIMIT, beam: BeamConfig | None = None
    ) -> list[IntArray]:
        """Write a caption for each moment.

        Args:
            packed, moments: as for ``encode_moments``.
            limit: most tokens of a caption, its end included.
            beam: search with a beam; None takes the most probable word each time.

        Returns:
            For each moment its tokens, (tokens,) int32, without ``<s>`` and ``</s>``.

        Raises:
            InputError: a limit beyond the decoder's positions, or as ``encode_moments``.
        """
        if limit > self.config.decoder_positions:
            raise InputError(
                f"A caption may have {limit} tokens, and the decoder has {self.config.decoder_positions} positions; lower limit."
            )
        step = CachedStep(self, *self.encode_moments(packed, moments), limit)
        if beam is None:
            return greedy_search(step, len(moments), limit)
        return [sentences[0].tokens for sentences in beam_search(step, len(moments), limit, beam)]


class CachedStep:
    """A model as the ``Step`` of a search: the tensors stay on its device, the logits leave it.

    Args:
        model: in evaluation mode.
        clips, clip_mask: of ``HeroForCaptioning.encode_moments``.
        limit: most tokens of a caption.
    """

    def __init__(self, model: HeroForCaptioning, clips: Tensor, clip_mask: Tensor, limit: int) -> None:
        self._model = model
        self._clip_mask = clip_mask
        self._memory = model.decoder.prefill(clips)
        self._cache = model.empty_cache(len(clips), limit)

    @torch.no_grad()
    def __call__(self, tokens: IntArray, position: int, source: IntArray) -> FloatArray:
        """See ``hero_sdk.sentence_search.Step``."""
        if not np.array_equal(source, np.arange(len(self._cache))):
            rows = torch.from_numpy(source).to(self._cache.device)
            self._cache, self._memory, self._clip_mask = (
                state[rows] for state in (self._cache, self._memory, self._clip_mask)
            )
        token_ids = torch.from_numpy(tokens).to(self._cache.device)
        positions = torch.full_like(token_ids, position)
        logits, self._cache = self._model.step(token_ids, positions, self._cache, self._memory, self._clip_mask)
        return logits.float().cpu().numpy()
