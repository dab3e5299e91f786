"""Tokenizers: trained ones are RoBERTa's kind, and others are taken as they are."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from typer.testing import CliRunner

from hero_sdk.tokens import TextTokenizer
from hero_train.cli import app
from hero_train.errors import ConfigError, DataError
from hero_train.tokenizer import load_tokenizer_json, train_tokenizer_json

TEXTS = [
    "The red ball rolls over the green grass.",
    "The blue ball rolls back to the red house.",
    "Somebody says that the grass is greener over there.",
    "Nobody says anything about the ball, the grass or the house.",
] * 3


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.from_str(train_tokenizer_json(TEXTS, 320))


def test_special_tokens_have_robertas_ids(trained: Tokenizer) -> None:
    ids = [trained.token_to_id(token) for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")]
    assert ids == [0, 1, 2, 3, trained.get_vocab_size() - 1]


def test_the_vocabulary_has_the_asked_size(trained: Tokenizer) -> None:
    assert trained.get_vocab_size() == 320
    assert TextTokenizer(trained.to_str()).vocabulary_size == 320


def test_a_small_corpus_gives_a_smaller_vocabulary() -> None:
    """256 bytes, five special tokens and what can be merged: "a", "aa" ... to the whole word."""
    assert Tokenizer.from_str(train_tokenizer_json(["ab"], 5000)).get_vocab_size() == 256 + 5 + 1


def test_the_order_of_the_texts_does_not_matter(trained: Tokenizer) -> None:
    shuffled = list(TEXTS)
    random.Random(0).shuffle(shuffled)
    assert json.loads(train_tokenizer_json(iter(shuffled), 320)) == json.loads(trained.to_str())


def test_frequent_words_become_few_tokens(trained: Tokenizer) -> None:
    assert len(trained.encode(" grass", add_special_tokens=False).ids) == 1
    assert len(trained.encode(" zygote", add_special_tokens=False).ids) == len(" zygote")


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    tokenizer = Tokenizer.from_str(train_tokenizer_json(TEXTS[:1], 300))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if not any(token in text for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")):
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert 3 not in ids


def test_a_tokenizer_is_taken_from_a_file_or_a_folder(trained: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(trained.to_str(), encoding="utf-8")
    (tmp_path / "other.json").write_text(trained.to_str(), encoding="utf-8")
    for source in (tmp_path, tmp_path / "tokenizer.json", tmp_path / "other.json"):
        assert load_tokenizer_json(str(source)) == trained.to_str()


def test_a_folder_of_vocabulary_and_merges_is_read_through_transformers(trained: Tokenizer, tmp_path: Path) -> None:
    """RoBERTa's own files: ``vocab.json`` and ``merges.txt``."""
    trained.model.save(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}', encoding="utf-8")
    loaded = TextTokenizer(load_tokenizer_json(str(tmp_path)))
    for text in TEXTS[:3]:
        assert loaded.encode(text).tolist() == trained.encode(text, add_special_tokens=False).ids


def test_a_source_that_is_no_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for source in (str(tmp_path), "someone/tokenizer-that-nobody-published"):
        with pytest.raises(ConfigError, match=f"transformers cannot load a tokenizer from {source}"):
            load_tokenizer_json(source)


def test_the_command_trains_on_the_lines_and_annotations_of_files(trained: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("\n".join(TEXTS[:5]), encoding="utf-8")
    lines = [json.dumps({"desc_id": number, "desc": text}) for number, text in enumerate(TEXTS[5:])]
    (tmp_path / "two.jsonl").write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "tokenizer.json"
    arguments = [
        "tokenizer",
        f"{tmp_path / 'one.txt'}",
        f"{tmp_path / 'two.jsonl'}",
        "--out",
        f"{out}",
        "--vocabulary",
        "320",
    ]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert json.loads(out.read_text(encoding="utf-8")) == json.loads(trained.to_str())


def test_the_command_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    arguments = ["tokenizer", str(tmp_path / "texts.txt"), "--out", str(tmp_path / "tokenizer.json")]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, DataError)
    assert not (tmp_path / "tokenizer.json").exists()
