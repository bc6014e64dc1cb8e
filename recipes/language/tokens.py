"""Texts as token numbers: tokenizers trained on the training split, bytes, or a pretrained model's own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

Kind = Literal["words", "bpe", "bytes"]
PAD, UNKNOWN, START = 0, 1, 2
"""Numbers of the special tokens of :func:`trained`."""
MOST = 1 << 20
"""Tokens of a vocabulary: more than any in use, and a limit to what a mistyped number makes the library reserve."""
SPECIAL = ["[PAD]", "[UNK]", "[START]"]
END_OF_TEXT = "<|endoftext|>"


class Tokenizer(Protocol):
    """Texts to numbers and back."""

    @property
    def size(self) -> int:
        """How many tokens there are."""

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Each text's tokens, int32."""

    def decode(self, ids: Sequence[int]) -> str: ...

    def described(self) -> str:
        """It as JSON: what the library *tokenizers* reads, or what is shifted for bytes."""


@dataclass(frozen=True)
class Bytes:
    """UTF-8 bytes shifted by ``first``; numbers below it are special."""

    first: int

    @property
    def size(self) -> int:
        """The 256 bytes and the special tokens."""
        return 256 + self.first

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(t.encode(), dtype=np.uint8).astype(np.int32) + self.first for t in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i - self.first for i in ids if i >= self.first).decode(errors="replace")

    def described(self) -> str:
        return json.dumps({"bytes": {"first": self.first}})


@dataclass(frozen=True)
class Trained:
    """A tokenizer of the library *tokenizers*."""

    tokenizer: Any

    @property
    def size(self) -> int:
        """The size of its vocabulary."""
        return int(self.tokenizer.get_vocab_size())

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        found = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [np.array(e.ids, dtype=np.int32) for e in found]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids)))

    def described(self) -> str:
        return str(self.tokenizer.to_str())


def trained(kind: Kind, vocabulary: int | None, texts: Iterable[str], special: list[str]) -> Tokenizer:
    """A tokenizer trained on texts; the special tokens have the first numbers.

    Args:
        kind: *words*: lower-cased words and marks, the rest ``[UNK]``. *bpe*: byte-level byte-pair
            encoding (Sennrich et al. 2016; Radford et al. 2019), which can write every text. *bytes*.
        vocabulary: tokens at most; None for bytes.
        texts: the training split.
        special: the special tokens.

    Raises:
        ValueError: the vocabulary does not fit the kind.
    """
    if kind == "bytes":
        if vocabulary is not None:
            raise ValueError(f"recipe.vocabulary={vocabulary}: bytes need none; give null")
        return Bytes(len(special))
    least = len(special) + (256 if kind == "bpe" else 1)
    if vocabulary is None or vocabulary < least:
        raise ValueError(f"recipe.vocabulary={'null' if vocabulary is None else vocabulary}: {kind} need ≥ {least}")
    if vocabulary > MOST:
        raise ValueError(f"recipe.vocabulary={vocabulary}: must be ≤ {MOST}")
    from tokenizers import Tokenizer as Model
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    trainer: Any
    if kind == "words":
        tokenizer = Model(models.WordLevel(unk_token=SPECIAL[UNKNOWN]))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False)
    else:
        tokenizer = Model(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True  # those that are written in a text are text
    return Trained(tokenizer)


def stream(tokenizer: Tokenizer, documents: Sequence[str], end: int) -> np.ndarray:
    """Documents as one row of tokens, ``end`` after each of them."""
    parts = [part for ids in tokenizer.encode(documents) for part in (ids, np.array([end], dtype=np.int32))]
    return np.concatenate(parts)
