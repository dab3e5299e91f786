"""Words of a caption as the field's scorers count them, without Java.

The scores of captions are defined on the tokens of Stanford's PTBTokenizer (CoreNLP 3.4.1) in lower case, less punctuation. This is
the part of its rules that English sentences meet: contractions, abbreviations, numbers, hyphens, quotes and brackets. How often the
two differ was measured; docs/evaluating.md has the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

ABBREVIATIONS = (
    r"mr|mrs|ms|mme|dr|prof|rev|gen|col|lt|sgt|capt|maj|gov|sen|rep|pres|hon|messrs|wm|jr|sr|bros|esq|ph\.d|m\.d|"
    r"st|ave|blvd|rd|mt|ft|dept|univ|assn|inc|co|corp|ltd|ph|vs|etc|al|"
    r"jan|feb|mar|apr|jun|jul|aug|sept|sep|oct|nov|dec"
)
"""Words that keep their full stop; besides these, single letters and letters with full stops between them (U.S., a.m.)."""

SPLIT_WORDS = {
    "cannot": "can not",
    "gonna": "gon na",
    "gotta": "got ta",
    "wanna": "wan na",
    "lemme": "lem me",
    "gimme": "gim me",
    "'tis": "'t is",
    "'twas": "'t was",
}
"""Words that the Penn Treebank writes as two."""

BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
"""Brackets are words to the field's scorers: these drop ``-LRB-``, and what reaches them is in lower case."""

TOKEN = re.compile(
    rf"""                                                  # first come, first served:
      (?:https?://|www\.)[^\s"<>()]*[^\s"<>().,!?;:']
    | [\w.+-]+@[\w-]+(?:\.[\w-]+)+
    | \b(?:{ABBREVIATIONS})\.(?![a-z0-9])
    | \b[a-z](?:\.[a-z])+\b\.?
    | (?<![\w'])[a-z]\.(?![\w.])
    | \bno\.(?=\s*\d)
    | '(?:em|cause|n'?|tis|twas|till?|\d0s)(?![a-z0-9])
    | '(?:s|m|d|re|ve|ll)(?![a-z0-9])
    | n't(?![a-z0-9])
    | (?:[+]|(?<![\w-])-)?\.?\d+(?:[.,:/]\d+)+(?![\d.,:/]*[a-z])
    | [+]\d+
    | y'(?=[a-z])
    | \b(?:cap'n|li'l|ol'|ev'ry)(?![a-z0-9])
    | (?:[cdjlo]'|ma'(?=am\b))?[a-z0-9]+(?:(?:[-_&/]|\.(?=[a-z]))[a-z0-9]+)*(?:(?<=n)'t|'(?:s|m|d|re|ve|ll)(?![a-z0-9]))*
    | [!?]+ | \.{{2,}} | -{{2,}} | \*{{2,}} | _{{2,}} | \S
    """,
    re.VERBOSE,
)

CONTRACTION = re.compile(r"(.+?)(n't|'(?:s|m|d|re|ve|ll))")
"""Behind a word; of several the last."""

PUNCTUATION = re.compile(r"""\.+|-+|[?!,:;"'`]|''|``""")
"""What the scorers do not count. Several marks together (``?!``) are a word to them."""


def caption_tokens(text: str) -> list[str]:
    """The words of a caption.

    Characters beyond ASCII count as spaces, as in the evaluation of TVC; METEOR and the rules above are made for English anyway.
    """
    tokens = TOKEN.findall(re.sub(r"[^\x00-\x7f]", " ", text).lower())
    return [word for token in tokens for word in _split(token) if not PUNCTUATION.fullmatch(word)]


def _split(token: str) -> Iterator[str]:
    """A token without its contractions, and these behind it."""
    behind: list[str] = []
    while match := CONTRACTION.fullmatch(token):
        token, contracted = match.groups()
        behind.insert(0, contracted)
    yield from SPLIT_WORDS.get(token, BRACKETS.get(token, token)).split()
    yield from behind
