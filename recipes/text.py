"""Text classification: a bag of embeddings, a small transformer, or a pretrained model fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import nn

from alphagrad.harness import metrics
from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.memory import check_memory
from alphagrad.harness.recipe import Capability, Log, Objective
from alphagrad.harness.stack import RunStack
from alphagrad.landscape.loss import FixedLoss

from .language.batches import Padded, Sweep, Texts
from .language.data import DataSettings, labelled, longest
from .language.models import CLASSIFIERS, ModelSettings, check_model, classifier, numbers_of, outline
from .language.reading import Reading, encoded, tokenizer_of
from .language.scores import macro_f1, write_confusion
from .language.tokens import START, Kind
from .supervised import classify
from .supervised.confusion import draw_confusion
from .supervised.held_out import spread
from .supervised.learner import Learner
from .supervised.loop import FitPlan, fit
from .supervised.looped import LoopLearner
from .supervised.orders import Orders
from .supervised.outline import MODEL_BYTES, Outline
from .supervised.parallel import parallel_of
from .supervised.precision import Numbers, check_scaled
from .supervised.settings import SupervisedSettings, check_step, part_of, training_of
from .supervised.surveyed import surveyed

LARGE = ("recipe.batch_size", "recipe.max_length", "model.hidden", "model.width", "model.layers")
"""Settings that say what a run takes in memory."""


class TextSettings(SupervisedSettings):
    """See conf/recipe/text.yaml for what each means."""

    data: DataSettings
    model: ModelSettings
    tokenizer: Kind | Literal["auto"]
    vocabulary: PositiveInt | None
    max_length: PositiveInt
    epochs: PositiveInt
    label_smoothing: float = Field(ge=0, lt=1)
    dropout: float | None = Field(ge=0, lt=1)
    stack: Literal["auto", "loop"]


class Text:
    """A classifier of texts, trained and tested as the settings say.

    The tokenizer is trained on the training split, or comes with a pretrained model. Texts are cut at
    ``max_length`` tokens and padded to the longest of their batch.
    """

    Settings = TextSettings
    objective = Objective(metrics.EVAL_ACCURACY)
    headlines: ClassVar[Mapping[str, int]] = {metrics.EVAL_ACCURACY: 4, metrics.EVAL_F1: 4, metrics.EVAL_LOSS: 4}
    capabilities = (Capability.STACKED, Capability.SHARDED, Capability.SURVEYED)
    logs = metrics.EXAMPLES | {metrics.EVAL_ACCURACY, metrics.EVAL_TOP5, metrics.EVAL_F1, metrics.TOKENS_PER_SECOND}

    takes: ClassVar[Mapping[str, Mapping[str, Sequence[str]]]] = {
        "model": dict.fromkeys(CLASSIFIERS, ()),
        "data": {"pydocs": (), "files": ("text", "label"), "hub": ("text", "label")},
    }

    def __init__(self, settings: TextSettings) -> None:
        s = self.settings = settings
        check_model(s.model, "text", CLASSIFIERS)
        if s.model.name == "pretrained":
            for setting, none in (("tokenizer", "auto"), ("vocabulary", None), ("dropout", None)):
                if (value := getattr(s, setting)) != none:
                    told = none or "null"
                    raise ValueError(f"recipe.{setting}={value}: a pretrained model has its own; give {told}")
        self.data = labelled(s.data)
        check_step(s, len(self.data.train.texts))
        kind: Kind = "words" if s.tokenizer == "auto" else s.tokenizer
        own = s.model.path, bool(s.model.download), s.max_length
        self.reading = Reading(s.data, kind, s.vocabulary, own if s.model.name == "pretrained" else None)
        self.tokens, self.pad = tokenizer_of(self.reading)
        self.outline = self._outline()
        check_memory(s, self.bytes_of, LARGE)
        self.networks()  # can the model be built?

    def _outline(self) -> Outline | None:
        """The size of a model of the user's own; None of others, whose size their settings tell."""
        s = self.settings
        if s.model.target is None:
            return None
        classes = len(self.data.classes)
        return outline(s.model, self.tokens.size, classes, s.max_length, s.dropout or 0.0, self.pad)

    def bytes_of(self, s: TextSettings, runs: int = 1) -> float:
        """What runs take in memory, about; the longest text is counted in words."""
        if self.outline is None:
            parameters, activations = numbers_of(s.model, self.tokens.size, s.max_length)
        else:
            parameters = self.outline.parameters
            activations = -(-self.outline.activations // self.settings.max_length)
        tokens = s.max_length if s.compile else min(s.max_length, longest(s.data))
        texts = max(part_of(s), min(s.eval_batch_size, len(self.data.test.texts)))
        each = 4 * tokens + activations * (1 if s.model.hidden else tokens)
        return MODEL_BYTES * runs * parameters + 4 * texts * each

    @property
    def steps_per_epoch(self) -> int:
        """An epoch's last, smaller batch is left out."""
        return len(self.data.train.texts) // self.settings.batch_size

    @property
    def total_steps(self) -> int:
        """Optimizer steps of each run."""
        return self.settings.epochs * self.steps_per_epoch

    def check_optimizer(self, spec: OptimizerSpec) -> None:
        """Raises ``ValueError`` for an optimizer that cannot train under the recipe's settings."""
        check_scaled(self.settings.precision, spec)

    def networks(self) -> dict[str, nn.Module]:
        """The classifier."""
        return {"model": self._model()}

    def _model(self) -> nn.Module:
        s = self.settings
        return classifier(s.model, self.tokens.size, len(self.data.classes), s.max_length, s.dropout, self.pad)

    def texts(self, split: Literal["train", "test"], device: torch.device) -> Texts:
        """A split's tokens; a transformer's begin with ``[START]``, where its class is read off."""
        ids = encoded(self.reading, split)
        if self.settings.model.name == "transformer":
            ids = [np.concatenate([[START], row]) for row in ids]
        return Texts(ids, getattr(self.data, split).labels, self.settings.max_length, self.pad, device)

    def train(self, stack: RunStack, log: Log) -> list[dict[str, Any]]:
        """Trains all runs in lockstep; see :class:`alphagrad.harness.recipe.Recipe`."""
        s = self.settings
        parallel = parallel_of(s.parallel)
        training = training_of(s, self._model, classify.classification_objective(s.label_smoothing))
        learner = LoopLearner(stack, training, Numbers(s.precision, stack.device, s.rounding), parallel)
        texts = self.texts("train", stack.device)
        orders = Orders(stack.generators("minibatch"), len(texts), s.batch_size, parallel.share)
        # a compiled model is compiled anew for every length
        batches = Padded(texts, orders, s.max_length if s.compile else None)
        plan = FitPlan(
            total_steps=self.total_steps,
            schedule=s.schedule,
            log_every=s.log_every,
            eval_every=s.eval_every * self.steps_per_epoch,
            measures=classify.MEASURES,
            rates={metrics.TOKENS_PER_SECOND: s.batch_size * float(texts.lengths.double().mean())},
        )
        return fit(plan, learner, batches, TextExam(self, stack, log), stack, log)

    def fixed_loss(self, checkpoint: Mapping[str, Any], examples: int, device: torch.device) -> FixedLoss:
        """On training texts, in batches as in training."""
        s = self.settings
        texts = self.texts("train", device)
        chosen = torch.from_numpy(spread(len(texts), examples)).to(device)
        batches = [(texts.padded(part), texts.labels[part]) for part in chosen.split(s.batch_size)]
        return surveyed(self._model, classify.classification_objective(s.label_smoothing), checkpoint, batches, device)


class TextExam:
    """The classifiers' scores on the whole test split; after the last step also their confusion matrices."""

    def __init__(self, recipe: Text, stack: RunStack, log: Log) -> None:
        self.s, self.classes, self.stack, self.log = recipe.settings, recipe.data.classes, stack, log
        self.test = Sweep(recipe.texts("test", stack.device), self.s.eval_batch_size)

    def __call__(self, learner: Learner, step: int, last: bool) -> list[dict[str, float]]:
        """Each run's loss, accuracies and macro-F1."""
        runs, classes = len(self.stack), len(self.classes)
        scores = classify.judged(learner.predict, self.test, runs, classes, self.stack.device)
        means = macro_f1(scores.confusion).tolist()
        rows = [{**row, metrics.EVAL_F1: f1} for row, f1 in zip(scores.rows(), means, strict=True)]
        for run, row in enumerate(rows) if last else ():
            counts = scores.confusion[run].cpu().numpy()
            title = f"{self.s.model.name}: {row[metrics.EVAL_ACCURACY]:.2%} right after {step + 1} steps"
            write = partial(draw_confusion, counts=counts, classes=self.classes, title=title)
            self.log.artifact(run, "confusion.png", write)
            self.log.artifact(run, "confusion.csv", partial(write_confusion, counts=counts, classes=self.classes))
        return rows
