"""Text to token ids: the authors' rules, and no tokenizer that was made for another model."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from hero_sdk.errors import BundleError
from hero_sdk.tokens import BEGIN_ID, SEPARATOR_ID, TextTokenizer

WORDS = ("hello", "world", "Hello", "HELLO", "&", "amp", "<", "i", "3")
IDS = {word: number for number, word in enumerate(WORDS, start=4)}


def make(**special: int) -> Tokenizer:
    """One token per word, with RoBERTa's special ids unless told otherwise."""
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, **special, **IDS}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


@pytest.fixture
def tokenizer() -> TextTokenizer:
    return TextTokenizer(make().to_str())


def ids(*words: str) -> list[int]:
    return [IDS[word] for word in words]


def test_a_text_has_no_special_tokens_and_a_query_begins_with_one(tokenizer: TextTokenizer) -> None:
    assert tokenizer.encode("hello world").tolist() == ids("hello", "world")
    assert tokenizer.encode_query("hello world").tolist() == [BEGIN_ID, *ids("hello", "world")]
    assert tokenizer.encode_subtitle("hello world").tolist() == ids("hello", "world")


@pytest.mark.parametrize("text", ["", "   "])
def test_a_text_without_words(tokenizer: TextTokenizer, text: str) -> None:
    assert tokenizer.encode(text).shape == (0,)
    assert tokenizer.encode_query(text).tolist() == [BEGIN_ID]


def test_ids_are_int32(tokenizer: TextTokenizer) -> None:
    for encode in (tokenizer.encode, tokenizer.encode_query, tokenizer.encode_subtitle):
        assert {encode("hello").dtype, encode("").dtype} == {np.dtype(np.int32)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("HELLO WORLD", ("hello", "world")),
        ("HELLO 3", ("hello", "3")),
        ("Hello WORLD", ("Hello", None)),
        ("HELLO world", ("HELLO", "world")),
        ("3", ("3",)),
    ],
)
def test_text_that_is_all_upper_case_is_lowered(
    tokenizer: TextTokenizer, text: str, words: tuple[str | None, ...]
) -> None:
    assert tokenizer.encode(text).tolist() == [3 if word is None else IDS[word] for word in words]


def test_entities_are_decoded_in_subtitles_only(tokenizer: TextTokenizer) -> None:
    assert tokenizer.encode_subtitle("hello &amp; world").tolist() == ids("hello", "&", "world")
    assert tokenizer.encode_subtitle("&lt; i").tolist() == ids("<", "i")
    # "&" "amp" ";"
    assert tokenizer.encode_query("hello &amp; world").tolist() == [
        BEGIN_ID,
        *ids("hello", "&", "amp"),
        3,
        *ids("world"),
    ]


def test_settings_of_the_file_add_cut_and_pad_nothing() -> None:
    made = make()
    made.enable_truncation(2)
    made.enable_padding(length=9, pad_id=1, pad_token="<pad>")
    made.post_processor = processors.RobertaProcessing(("</s>", SEPARATOR_ID), ("<s>", BEGIN_ID))
    tokenizer = TextTokenizer(made.to_str())
    assert tokenizer.encode("hello world hello").tolist() == ids("hello", "world", "hello")


def test_vocabulary_size_counts_added_tokens() -> None:
    made = make()
    made.add_special_tokens(["<mask>"])
    assert TextTokenizer(made.to_str()).vocabulary_size == 4 + len(WORDS) + 1


@given(st.lists(st.sampled_from(WORDS)))
def test_words_keep_their_order(words: list[str]) -> None:
    text = " ".join(words)
    expected = ids(*(word.lower() if text.isupper() else word for word in words))
    assert TextTokenizer(make().to_str()).encode(text).tolist() == expected


@given(st.text())
def test_what_was_encoded_is_decoded(text: str) -> None:
    """With a vocabulary of bytes every text has tokens, and they are its own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(
        models.BPE({name: place for place, name in enumerate(["<s>", "<pad>", "</s>", "<unk>", *alphabet])}, [])
    )
    made.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = TextTokenizer(made.to_str())
    expected = (text.lower() if text.isupper() else text).strip()
    assert tokenizer.decode(tokenizer.encode(text)) == expected
    assert tokenizer.decode(tokenizer.encode_query(text)) == expected


def test_neither_special_tokens_nor_ids_that_no_token_has_are_decoded() -> None:
    """A word embedding has more rows than the tokenizer has ids, so a model can name one that stands for nothing."""
    made = make()
    made.add_special_tokens(["<s>", "<pad>", "</s>"])
    tokenizer = TextTokenizer(made.to_str())
    found = np.array([BEGIN_ID, *ids("hello"), 9999, *ids("world"), SEPARATOR_ID], dtype=np.int32)
    assert tokenizer.decode(found) == "hello world"
    assert tokenizer.decode(np.zeros(0, dtype=np.int32)) == ""


@pytest.mark.parametrize(
    ("special", "found"),
    [
        ({"<s>": 1, "<pad>": 0}, r"\[1, 0, 2\]"),
        ({"</s>": 3, "<unk>": 2}, r"\[0, 1, 3\]"),
    ],
)
def test_special_tokens_at_other_ids_are_refused(special: dict[str, int], found: str) -> None:
    with pytest.raises(BundleError, match=rf"at ids {found}; HERO expects RoBERTa's 0, 1, 2"):
        TextTokenizer(make(**special).to_str())


def test_a_tokenizer_without_special_tokens_is_refused() -> None:
    bert = Tokenizer(models.WordLevel({"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3}, unk_token="[UNK]"))
    with pytest.raises(BundleError, match=r"at ids \[None, None, None\]"):
        TextTokenizer(bert.to_str())


@pytest.mark.parametrize("content", ["", "{", "{}", json.dumps({"model": {"type": "Wanted"}}), "[]"])
def test_what_is_no_tokenizer_is_refused(content: Any) -> None:
    with pytest.raises(BundleError, match="expected the JSON of the tokenizers library"):
        TextTokenizer(content)
