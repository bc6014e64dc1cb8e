"""How labelled texts become tokens, done once a process for what several runs share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from .data import DataSettings, labelled
from .pretrained import load_tokenizer
from .tokens import PAD, SPECIAL, Kind, Tokenizer, trained


@dataclass(frozen=True)
class Reading:
    """What decides the tokens of a data set."""

    data: DataSettings
    kind: Kind
    vocabulary: int | None
    own: tuple[str | None, bool, int] | None
    """Path, download and length of a pretrained model, which brings its own tokenizer."""


@lru_cache(maxsize=2)
def tokenizer_of(r: Reading) -> tuple[Tokenizer, int]:
    """The tokenizer, trained on the training split or the model's own, and its padding token's number."""
    if r.own is not None:
        path, download, length = r.own
        assert path is not None
        own = load_tokenizer(path, download, length)
        return own, own.pad
    return trained(r.kind, r.vocabulary, labelled(r.data).train.texts, SPECIAL), PAD


@lru_cache(maxsize=4)
def encoded(r: Reading, split: Literal["train", "test"]) -> list[np.ndarray]:
    """A split's texts as tokens."""
    return tokenizer_of(r)[0].encode(getattr(labelled(r.data), split).texts)
