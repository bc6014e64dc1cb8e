"""Pretrained models for classification and their tokenizers, from a local folder or the hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from .hub import pretrained


@dataclass(frozen=True)
class Own:
    """A pretrained model's tokenizer; texts are cut at ``length`` tokens, its special ones included."""

    tokenizer: Any
    length: int

    @property
    def size(self) -> int:
        """The size of its vocabulary."""
        return len(self.tokenizer)

    @property
    def pad(self) -> int:
        """The number of its padding token."""
        return int(self.tokenizer.pad_token_id)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        found = self.tokenizer(list(texts), truncation=True, max_length=self.length)["input_ids"]
        return [np.array(ids, dtype=np.int32) for ids in found]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids)))

    def described(self) -> str:
        return str(self.tokenizer.backend_tokenizer.to_str())


def load_tokenizer(path: str, download: bool, length: int) -> Own:
    """The tokenizer of a model.

    Raises:
        ValueError: it cannot be had, or has no padding token.
    """
    from transformers import AutoTokenizer

    with _quietly():
        tokenizer = pretrained(path, download, lambda: AutoTokenizer.from_pretrained(path))
    if tokenizer.pad_token_id is None:
        raise ValueError(f"model.path={path}: its tokenizer has no padding token")
    return Own(tokenizer, length)


def load_classifier(path: str, download: bool, classes: int) -> nn.Module:
    """The model with a head for so many classes, new where it has none of that size; :class:`ValueError` if not."""
    from transformers import AutoModelForSequenceClassification

    def load() -> Any:
        return AutoModelForSequenceClassification.from_pretrained(
            path, num_labels=classes, ignore_mismatched_sizes=True
        )

    with _quietly():
        model: nn.Module = pretrained(path, download, load)
    return model


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' reports: that the head is new is what fine-tuning means."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
