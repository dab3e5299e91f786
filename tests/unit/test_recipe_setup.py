"""What a recipe tells whoever trains before it begins."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from hero_sdk.rows import RowGeometry
from hero_train.recipes.setup import make_tokenizer, tell_cuts
from hero_train.run_config import TokenizerSection
from hero_train.tokenizer import train_tokenizer_json


@pytest.mark.parametrize(
    ("lengths", "told"),
    [
        ([10, 32, 5], ""),
        (
            [10, 33, 40, 5],
            "50% of the queries have more than rows.query_tokens, 32, and lose their end; the longest has 40 tokens.",
        ),
    ],
)
def test_texts_that_are_cut_are_told(lengths: list[int], told: str) -> None:
    written = io.StringIO()
    config = SimpleNamespace(rows=RowGeometry(query_tokens=32))
    tell_cuts(SimpleNamespace(config=config, console=Console(file=written, width=400)), "queries", lengths)  # type: ignore[arg-type]
    assert (
        written.getvalue().strip().removesuffix(" Raise it, or train a tokenizer with a larger tokenizer.vocabulary.")
        == told
    )


@pytest.mark.parametrize(
    ("texts", "told"),
    [(["the crate", "a crate"], False), (["zebras gallop", "zebras"], True), ([], False)],
    ids=["known words", "other words", "no texts"],
)
def test_a_tokenizer_that_does_not_know_the_words_is_told(tmp_path: Path, texts: list[str], told: bool) -> None:
    source = tmp_path / "tokenizer.json"
    source.write_text(train_tokenizer_json(["the crate", "a crate", " crate"], 300), encoding="utf-8")
    written = io.StringIO()
    config = SimpleNamespace(tokenizer=TokenizerSection(source=str(source)), initial=None)
    session = SimpleNamespace(config=config, console=Console(file=written, width=400))
    assert make_tokenizer(session, texts, []) == source.read_text(encoding="utf-8")  # type: ignore[arg-type]
    if told:
        assert "cuts each word of the training texts into 6.3 tokens" in written.getvalue()
        assert "tokenizer.texts" in written.getvalue()
    else:
        assert written.getvalue() == ""
