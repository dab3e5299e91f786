"""The corpus: a folder of embedded videos that can be searched with a sentence."""

from __future__ import annotations

from hero_sdk.corpus.corpus import AddResult, Corpus

__all__ = ["AddResult", "Corpus"]
