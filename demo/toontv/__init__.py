"""ToonTV: a seeded generator of a cartoon television corpus, with videos, subtitles and annotations."""

from demo.toontv.assets import AssetsMissingError, ToonTvError
from demo.toontv.corpus import CorpusPlan, build_corpus

__all__ = ["AssetsMissingError", "CorpusPlan", "ToonTvError", "build_corpus"]
