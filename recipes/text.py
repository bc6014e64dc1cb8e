"""Text classification: a bag of embeddings, a small transformer, or a pretrained model fine-tuned."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from alphagrad.lab import metrics
from alphagrad.lab.recipe import Log
from alphagrad.lab.stack import RunStack

from .language import scores
from .language.batches import Padded, Sweep, Texts
from .language.data import Dataset, DataSettings, labelled
from .language.models import CLASSIFIERS, ModelSettings, check, classifier
from .language.reading import Reading, encoded, tokenizer_of
from .language.tokens import START, Kind
from .language.training import TrainingSettings, compiles, learner_of, train
from .supervised.learner import LoopLearner
from .supervised.order import Order
from .supervised.parallel import connected

CONFUSION = "confusion"
"""Artifacts of the last evaluation, .csv and .png."""


class TextSettings(TrainingSettings):
    """Settings of :class:`Text`; their meanings are in conf/recipe/text.yaml."""

    data: DataSettings
    model: ModelSettings
    tokenizer: Kind | Literal["auto"]
    vocabulary: PositiveInt | None
    max_length: PositiveInt
    epochs: PositiveInt
    dropout: float | None = Field(ge=0, lt=1)
    eval_every: NonNegativeInt


class Text:
    """Cross-entropy on texts and their classes; evaluated on the whole test split.

    The tokenizer is trained on the training split, or comes with a pretrained model. Texts are cut at
    ``max_length`` tokens and padded to the longest of their batch.
    """

    Settings = TextSettings

    def __init__(self, settings: TextSettings) -> None:
        s = self.settings = settings
        check(s.model, "text", CLASSIFIERS)
        s.data.check()
        if s.model.name == "pretrained":
            for setting, none in (("tokenizer", "auto"), ("vocabulary", None), ("dropout", None)):
                if (value := getattr(s, setting)) != none:
                    told = none or "null"
                    raise ValueError(f"recipe.{setting}={value}: a pretrained model has its own; give {told}")
        self.data: Dataset = labelled(s.data)
        s.check_batch(len(self.data.train.texts), "texts")
        kind: Kind = "words" if s.tokenizer == "auto" else s.tokenizer
        own = s.model.path, bool(s.model.download), s.max_length
        self.reading = Reading(s.data, kind, s.vocabulary, own if s.model.name == "pretrained" else None)
        self.tokens, self.pad = tokenizer_of(self.reading)

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return len(self.data.train.texts) // self.settings.batch_size

    @property
    def total_steps(self) -> int:
        """Optimizer steps."""
        return self.settings.epochs * self.per_epoch

    def network(self) -> nn.Module:
        """The classifier."""
        s = self.settings
        return classifier(s.model, self.tokens.size, len(self.data.classes), s.max_length, s.dropout, self.pad)

    def networks(self) -> dict[str, nn.Module]:
        return {"classifier": self.network()}

    def texts(self, split: Literal["train", "test"], device: torch.device) -> Texts:
        """A split's tokens; a transformer's begin with ``[START]``, where its class is read off."""
        part = getattr(self.data, split)
        ids = encoded(self.reading, split)
        if self.settings.model.name == "transformer":
            ids = [np.concatenate([[START], row]) for row in ids]
        return Texts(ids, part.labels, self.settings.max_length, self.pad, device)

    def train(self, stack: RunStack, log: Log) -> Sequence[dict[str, Any]]:
        """See :class:`alphagrad.lab.recipe.Recipe`."""
        s = self.settings
        with connected(stack.device, s.parallel) as parallel:
            texts = self.texts("train", stack.device)
            share = (parallel.rank, parallel.processes)
            order = Order(stack.generators("minibatch"), len(texts), s.batch_size, share)
            width = s.max_length if compiles(s, self.total_steps) else None
            learner = learner_of(s, stack, self.network, objective, self.total_steps, parallel)
            sweep = Sweep(self.texts("test", stack.device), s.eval_batch)
            evaluate = partial(self.evaluate, learner, sweep)
            found: dict[str, Tensor] = {}

            def rows() -> list[dict[str, float]]:
                values, found["counts"] = evaluate()
                return values

            def keep(step: int) -> None:
                if step == self.total_steps:
                    for run in set(range(len(stack))) - learner.frozen:
                        counts = found["counts"][run]
                        for ending, write in ((".csv", scores.write_confusion), (".png", scores.draw_confusion)):
                            log.artifact(
                                run, CONFUSION + ending, partial(write, counts=counts, classes=self.data.classes)
                            )

            batches = Padded(texts, order, width)
            return train(s, log, learner, batches, self.total_steps, rows, s.eval_every * self.per_epoch, keep)

    def evaluate(self, learner: LoopLearner, sweep: Sweep) -> tuple[list[dict[str, float]], Tensor]:
        """Each run's loss, accuracy and macro-F1 on the test split, and its confusions [R, C, C]."""
        losses: Tensor | float = 0.0
        counts: Tensor | int = 0
        for inputs, labels in sweep:
            outputs = learner.predict(inputs)
            each = F.cross_entropy(outputs.movedim(-1, 1), labels.expand(len(outputs), -1), reduction="none")
            losses = losses + each.sum(1)
            counts = counts + scores.confusion(outputs.argmax(-1), labels, len(self.data.classes))
        assert isinstance(losses, Tensor)
        assert isinstance(counts, Tensor)
        counts = counts.cpu()
        columns = (losses / len(sweep.texts), scores.accuracy(counts), scores.macro_f1(counts))
        names = (metrics.EVAL_LOSS, metrics.EVAL_ACCURACY, metrics.EVAL_F1)
        listed = [column.tolist() for column in columns]
        return [dict(zip(names, row, strict=True)) for row in zip(*listed, strict=True)], counts


def objective(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of logits [B, C] and classes [B]; and what is logged: that, and the accuracy."""
    loss = F.cross_entropy(outputs, targets)
    right = (outputs.argmax(-1) == targets).float().mean()
    return loss, torch.stack([loss.detach(), right])
