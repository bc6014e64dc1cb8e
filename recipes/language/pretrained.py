"""Pretrained models for classification and their tokenizers, from a local folder or the hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from .hub import Mismatch, pretrained


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
        tokenizer = pretrained(path, download, partial(AutoTokenizer.from_pretrained, trust_remote_code=False))
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):  # transformers makes one up where there is none
        raise ValueError(f"model.path={path}: has no tokenizer")
    if tokenizer.pad_token_id is None:
        raise ValueError(f"model.path={path}: its tokenizer has no padding token")
    least = tokenizer.num_special_tokens_to_add() + 1
    if length < least:
        raise ValueError(f"recipe.max_length={length}: must be ≥ {least}, the model's own tokens and one of the text")
    return Own(tokenizer, length)


def load_classifier(path: str, download: bool, classes: int, tokens: int, length: int, pad: int) -> nn.Module:
    """The model with a head for so many classes, new where it has none of that size.

    Args:
        path: folder or name.
        download: whether it may be fetched.
        classes: outputs.
        tokens: size of the vocabulary of its tokenizer.
        length: tokens of a text at most.
        pad: the padding token.

    Raises:
        ValueError: it cannot be had, weights other than those of its head are missing, or it does not take
            such texts.
    """
    from transformers import AutoModelForSequenceClassification

    def load(path: str) -> Any:
        model, found = AutoModelForSequenceClassification.from_pretrained(
            path,
            num_labels=classes,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
        mismatched = [entry if isinstance(entry, str) else entry[0] for entry in found["mismatched_keys"]]
        body = f"{model.base_model_prefix}."
        # a model that was pretrained without a pooler gets a new one, as it does a head
        lacking = [k for k in (*found["missing_keys"], *mismatched) if k.startswith(body) and ".pooler." not in k]
        if lacking:
            raise Mismatch(f"its weights do not fit its configuration: {len(lacking)} are missing, as {min(lacking)}")
        return model

    with _quietly():
        model: Any = pretrained(path, download, load)
    places = getattr(model.config, "max_position_embeddings", None)
    if places is not None and length > places:
        raise ValueError(f"recipe.max_length={length}: the model of model.path={path} takes ≤ {places} tokens")
    known = model.get_input_embeddings().num_embeddings
    if tokens > known:
        raise ValueError(f"model.path={path}: its tokenizer has {tokens} tokens, its embeddings {known}")
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad
    classifier: nn.Module = model
    return classifier


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
