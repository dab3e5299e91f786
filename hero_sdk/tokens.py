"""Text to token ids, as HERO's preprocessing does it, with the ``tokenizers`` library."""

from __future__ import annotations

import html

import numpy as np
from tokenizers import Tokenizer

from hero_sdk.errors import BundleError
from hero_sdk.types import IntArray

BEGIN, PAD, SEPARATOR = "<s>", "<pad>", "</s>"
BEGIN_ID, PAD_ID, SEPARATOR_ID = 0, 1, 2


class TextTokenizer:
    """Tokenises queries and subtitles.

    Text that is all upper case is lower-cased, and subtitles are HTML-unescaped first, as in the authors' preprocessing.

    Args:
        json: a tokenizer in the JSON format of the ``tokenizers`` library, with ``<s>`` 0, ``<pad>`` 1 and ``</s>`` 2.

    Raises:
        BundleError: not such a tokenizer.
    """

    def __init__(self, json: str) -> None:
        try:
            self._tokenizer = Tokenizer.from_str(json)
        except Exception as error:  # the library raises bare Exception
            raise BundleError(
                f"The tokenizer cannot be read ({error}); expected the JSON of the tokenizers library."
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        found = [self._tokenizer.token_to_id(token) for token in (BEGIN, PAD, SEPARATOR)]
        if found != [BEGIN_ID, PAD_ID, SEPARATOR_ID]:
            raise BundleError(
                f"The tokenizer has {BEGIN}, {PAD}, {SEPARATOR} at ids {found}; HERO expects RoBERTa's 0, 1, 2. "
                "Use a RoBERTa tokenizer, or train one with `hero-train tokenizer`."
            )

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> IntArray:
        """Token ids of a text, without special tokens; int32 (tokens,)."""
        if text.isupper():
            text = text.lower()
        return np.asarray(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int32)

    def encode_query(self, text: str) -> IntArray:
        """``<s>`` and the tokens of a query; int32 (tokens,)."""
        return np.concatenate([np.array([BEGIN_ID], np.int32), self.encode(text)])

    def encode_subtitle(self, text: str) -> IntArray:
        """The tokens of one subtitle, without separator; int32 (tokens,)."""
        return self.encode(html.unescape(text))

    def decode(self, tokens: IntArray) -> str:
        """The text of token ids (tokens,), without special tokens and without white space at its ends."""
        return str(self._tokenizer.decode(tokens.tolist(), skip_special_tokens=True)).strip()


def separated(tokenizer: TextTokenizer, text: str) -> IntArray:
    """``</s>`` and the tokens of a text, as questions, answers and statements stand behind a video; int32 (tokens,)."""
    return np.concatenate([np.array([SEPARATOR_ID], dtype=np.int32), tokenizer.encode(text)])
