"""What a recipe tells whoever trains before it begins."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from hero_sdk.rows import RowGeometry
from hero_train.recipes.setup import tell_cuts


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
