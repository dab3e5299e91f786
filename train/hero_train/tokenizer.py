"""Tokenizers: RoBERTa's through transformers, or a small one of the same kind trained on a corpus."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from hero_train.errors import ConfigError

SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]
MASK_TOKEN = "<mask>"


def load_tokenizer_json(source: str) -> str:
    """A tokenizer as the JSON of the ``tokenizers`` library.

    Args:
        source: a ``tokenizer.json``, or a folder or hub id that transformers' AutoTokenizer loads.

    Raises:
        ConfigError: nothing of the kind, or a tokenizer without a fast version.
    """
    path = Path(source)
    if path.is_file():
        return path.read_text(encoding="utf-8")
    if (path / "tokenizer.json").is_file():
        return (path / "tokenizer.json").read_text(encoding="utf-8")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ConfigError(f"transformers cannot load a tokenizer from {source} ({error}).") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ConfigError(f"The tokenizer of {source} has no fast version; convert it to a tokenizer.json first.")
    return str(backend.to_str())


def embedding_rows(vocabulary: int) -> int:
    """Rows of a word embedding for so many token ids: a multiple of 8 keeps the matrix products aligned."""
    return -(-vocabulary // 8) * 8


def train_tokenizer_json(texts: Iterable[str], vocabulary: int) -> str:
    """Train a byte-level BPE of RoBERTa's kind, with its special ids (``<s>`` 0, ``<pad>`` 1, ``</s>`` 2, ``<unk>`` 3).

    Args:
        texts: the corpus; the order does not matter to the result.
        vocabulary: number of ids, ``<mask>`` last.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(texts), trainer)
    tokenizer.add_special_tokens([MASK_TOKEN])
    return str(tokenizer.to_str())
