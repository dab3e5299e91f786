"""What pre-training hides from the model and asks back (paper, section 3.2): words, frames, the order of frames, subtitles.

Everything here is a pure function of its arguments and a numpy generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from hero_sdk.rows import Segment, VideoInput
from hero_sdk.tokens import BEGIN_ID, SEPARATOR_ID
from hero_sdk.types import IntArray
from hero_train.data.corpus import EncodedQuery
from hero_train.errors import ConfigError
from hero_train.losses import IGNORED_TARGET
from hero_train.tokenizer import MASK_TOKEN

SHARE = 0.15
"""Of the words that are masked, of the frames that are masked, and of the frames that are shuffled."""

MASKED, REPLACED = 0.8, 0.1
"""Of the chosen words so many become ``<mask>`` and so many any word; the rest stay as they are."""


@dataclass(frozen=True)
class WordIds:
    """What masking must know of a tokenizer.

    Attributes:
        mask: id of ``<mask>``.
        words: (words,) int32 ids in ascending order that stand for text: all but the special tokens.
    """

    mask: int
    words: IntArray

    @classmethod
    def of(cls, tokenizer_json: str) -> WordIds:
        """Read them from a ``tokenizer.json``.

        Raises:
            ConfigError: a tokenizer without ``<mask>``.
        """
        tokenizer = Tokenizer.from_str(tokenizer_json)
        mask = tokenizer.token_to_id(MASK_TOKEN)
        if mask is None:
            raise ConfigError(f"The tokenizer has no {MASK_TOKEN}; pre-training hides words behind it.")
        special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        words = sorted(set(tokenizer.get_vocab().values()) - special - {mask})
        return cls(mask, np.array(words, dtype=np.int32))


def mask_words(
    tokens: IntArray, ids: WordIds, rng: np.random.Generator, share: float = SHARE
) -> tuple[IntArray, IntArray]:
    """Hide words of a text.

    Where chance takes none, one is taken, any of them alike. (The authors then take the first, so that in their data every other
    short subtitle misses its first word.)

    Args:
        tokens: (T,) of the text, marks such as ``<s>`` included, which always stay.
        ids: of the tokenizer.
        rng: decides.
        share: of the words that are chosen.

    Returns:
        What the model sees, (T,) int32, and what it is to find, (T,) int32: the word where one was chosen and ``IGNORED_TARGET``
        elsewhere. Without a word in the text nothing is asked.
    """
    (places,) = np.isin(tokens, ids.words).nonzero()
    labels = np.full(len(tokens), IGNORED_TARGET, dtype=np.int32)
    seen = tokens.astype(np.int32)
    if not len(places):
        return seen, labels
    chosen = places[_at_least_one(len(places), rng, share)]
    labels[chosen] = seen[chosen]
    fate = rng.random(len(chosen))
    hidden, replaced = chosen[fate < MASKED], chosen[(fate >= MASKED) & (fate < MASKED + REPLACED)]
    seen[hidden] = ids.mask
    seen[replaced] = rng.choice(ids.words, len(replaced))
    return seen, labels


def mask_frames(count: int, rng: np.random.Generator, share: float = SHARE) -> np.ndarray:
    """Which of a video's frames are masked, (count,) bool; at least one."""
    return _at_least_one(count, rng, share)


def _at_least_one(count: int, rng: np.random.Generator, share: float) -> np.ndarray:
    chosen = rng.random(count) < share
    if not chosen.any():
        chosen[rng.integers(count)] = True
    return chosen


def hide_frames(video: VideoInput, masked: np.ndarray) -> VideoInput:
    """The video with zeros for the features of masked frames (frames,) bool."""
    return VideoInput(np.where(masked[:, None], np.float32(0), video.features), video.segments)


def shuffle_places(count: int, rng: np.random.Generator, share: float = SHARE) -> tuple[IntArray, IntArray]:
    """Draw a share of a video's frames and give their places to one another.

    Returns:
        Two arrays (count,) int32: the place that each frame goes to, and for each place the frame that is now there if it was
        drawn, ``IGNORED_TARGET`` if not. A frame that was drawn may by chance stay where it is.
    """
    places = np.arange(count, dtype=np.int32)
    (drawn,) = (rng.random(count) < share).nonzero()
    places[drawn] = rng.permutation(places[drawn])
    origins = np.full(count, IGNORED_TARGET, dtype=np.int32)
    origins[places[drawn]] = drawn
    return places, origins


def move_frames(video: VideoInput, places: IntArray) -> VideoInput:
    """The video with each frame at its new place.

    Subtitles keep their frames in their order, so that stage 1 sees what it always sees, and only stage 2 sees the shuffle.
    """
    moved = np.empty_like(video.features)
    moved[places] = video.features
    return VideoInput(moved, tuple(Segment(places[part.frames], part.tokens) for part in video.segments))


def take_subtitles_out(
    video: VideoInput, rng: np.random.Generator, count: int
) -> tuple[VideoInput, list[EncodedQuery]]:
    """Take the text of some subtitles out of a video and ask for them instead (VSM).

    Args:
        video: every segment holds one subtitle, ``</s>`` in front, without context.
        rng: decides which.
        count: how many, of those that have words and own frames; at most all.

    Returns:
        The video with the bare ``</s>`` in their place, and a query for each, in the order of the subtitles. Its moment reaches
        from the first to the last of the frames, and over at least two where the video has them, as in the authors' code.
    """
    able = [number for number, part in enumerate(video.segments) if len(part.frames) and len(part.tokens) > 1]
    drawn = set(rng.permutation(able)[:count].tolist())
    segments, queries = [], []
    for number, part in enumerate(video.segments):
        if number in drawn:
            first = int(part.frames[0])
            last = min(max(first + 1, int(part.frames[-1])), len(video.features) - 1)
            tokens = np.concatenate([np.array([BEGIN_ID], np.int32), part.tokens[1:]])
            queries.append(EncodedQuery(tokens, first, last, "t"))
            part = Segment(part.frames, np.array([SEPARATOR_ID], np.int32))
        segments.append(part)
    return VideoInput(video.features, tuple(segments)), queries
