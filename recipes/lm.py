"""Causal language modelling: GPT-2- and Llama-shaped models on packed sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from alphagrad.lab import metrics
from alphagrad.lab.recipe import Log
from alphagrad.lab.stack import RunStack

from .language.batches import Packed, Sequences
from .language.data import DataSettings, corpus
from .language.models import CAUSAL, ModelSettings, causal, check
from .language.sampling import Sampler
from .language.speed import flops_per_token, peak_flops
from .language.tokens import END_OF_TEXT, Kind, Tokenizer, stream, trained
from .language.training import TrainingSettings, learner_of, train
from .supervised.learner import LoopLearner
from .supervised.order import Order
from .supervised.parallel import connected
from .supervised.precision import AUTOCAST

END = 0
"""The number of the token between documents."""


class LMSettings(TrainingSettings):
    """Settings of :class:`LM`; their meanings are in conf/recipe/lm.yaml."""

    data: DataSettings
    model: ModelSettings
    tokenizer: Kind
    vocabulary: PositiveInt | None
    length: int = Field(ge=2)
    total_steps: PositiveInt
    dropout: float = Field(ge=0, lt=1)
    eval_every: NonNegativeInt
    sample_every: NonNegativeInt
    sample_tokens: PositiveInt
    temperature: PositiveFloat
    peak_flops: PositiveFloat | None


class LM:
    """Cross-entropy of the next token; evaluated on the whole validation text.

    Documents follow one another in one row of tokens with an end-of-text token after each; it is cut into
    sequences of ``length`` tokens that begin without a memory of what was before.
    """

    Settings = LMSettings

    def __init__(self, settings: LMSettings) -> None:
        s = self.settings = settings
        check(s.model, "lm", CAUSAL)
        if s.tokenizer == "words":
            raise ValueError("recipe.tokenizer=words: recipe lm has bpe and bytes, which can write every text")
        if s.model.name == "llama" and s.dropout:
            raise ValueError(f"recipe.dropout={s.dropout}: llama has none; give 0.0")
        self.tokens = tokenizer_of(s.data, s.tokenizer, s.vocabulary)
        sizes = {
            split: len(tokenized(s.data, s.tokenizer, s.vocabulary)[k]) for k, split in enumerate(("train", "test"))
        }
        if sizes["test"] < 2:
            raise ValueError(f"data.test: has {sizes['test']} tokens; there is nothing to predict")
        s.check_batch((sizes["train"] - 1) // s.length, f"sequences of recipe.length={s.length} tokens")

    @property
    def total_steps(self) -> int:
        """Optimizer steps."""
        return self.settings.total_steps

    def network(self) -> nn.Module:
        """The language model."""
        s = self.settings
        return causal(s.model, self.tokens.size, s.length, s.dropout, END)

    def networks(self) -> dict[str, nn.Module]:
        return {"language_model": self.network()}

    def train(self, stack: RunStack, log: Log) -> Sequence[dict[str, Any]]:
        """See :class:`alphagrad.lab.recipe.Recipe`."""
        s = self.settings
        rows = tokenized(s.data, s.tokenizer, s.vocabulary)
        with connected(stack.device, s.parallel) as parallel:
            packed, held_out = (Packed(row, s.length, stack.device) for row in rows)
            share = (parallel.rank, parallel.processes)
            order = Order(stack.generators("minibatch"), len(packed), s.batch_size, share)
            learner = learner_of(s, stack, self.network, objective, s.total_steps, parallel)
            samplers = [Sampler(rng, s.temperature, s.length) for rng in stack.generators("sampling")]
            for run in range(len(stack)):
                log.artifact(run, "tokenizer.json", self._write_tokenizer)

            def sample(step: int) -> None:
                if s.sample_every and (step == s.total_steps or step % s.sample_every == 0):
                    for run in set(range(len(stack))) - learner.frozen:
                        ids = samplers[run].sample(learner.runs[run].predict, END, s.sample_tokens, step, stack.device)
                        text = self.tokens.decode(ids)
                        log.artifact(run, f"sample-{step:07d}.txt", partial(_write, text=text))

            return train(
                s,
                log,
                learner,
                Sequences(packed, order),
                s.total_steps,
                partial(self.evaluate, learner, held_out),
                s.eval_every,
                sample,
                self.share_of_peak(stack.device) / parallel.processes,
            )

    def share_of_peak(self, device: torch.device) -> float:
        """Training's FLOPs a token over the device's FLOP/s."""
        s = self.settings
        assert s.model.layers is not None
        assert s.model.width is not None
        dtype = AUTOCAST.get(s.precision, torch.bfloat16 if s.precision == "bfloat16" else torch.float32)
        work = flops_per_token(self.network(), s.model.layers, s.model.width, s.length)
        return work / (s.peak_flops or peak_flops(device, dtype))

    def evaluate(self, learner: LoopLearner, held_out: Packed) -> list[dict[str, float]]:
        """Each run's loss, perplexity and bits per byte on the validation text."""
        losses: Tensor | float = 0.0
        for inputs, targets in held_out.sweep(self.settings.eval_batch):
            outputs = learner.predict(inputs)
            losses = losses + torch.stack([_total(row, targets) for row in outputs])
        assert isinstance(losses, Tensor)
        size = sum(len(document.encode()) for document in corpus(self.settings.data)[1])
        return [scores(total, len(held_out.tokens) - 1, size) for total in losses.tolist()]

    def _write_tokenizer(self, path: Path) -> None:
        path.write_text(self.tokens.described(), encoding="utf-8")


def scores(nats: float, tokens: int, size: int) -> dict[str, float]:
    """Loss, perplexity and bits per byte from a text's whole cross-entropy, its tokens and its bytes."""
    loss = nats / tokens
    return {
        metrics.EVAL_LOSS: loss,
        metrics.EVAL_PERPLEXITY: math.exp(min(loss, 700.0)),
        metrics.EVAL_BITS: nats / math.log(2) / size,
    }


def _total(outputs: Tensor, targets: Tensor) -> Tensor:
    """The summed cross-entropy of one run, float64."""
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none").double().sum()


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def objective(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of logits [B, T, V] and tokens [B, T]; and what is logged: that, and the accuracy."""
    flat, expected = outputs.flatten(0, 1), targets.flatten()
    loss = F.cross_entropy(flat, expected)
    right = (flat.detach().argmax(-1) == expected).float().mean()
    return loss, torch.stack([loss.detach(), right])


@lru_cache(maxsize=2)
def tokenizer_of(data: DataSettings, kind: Kind, vocabulary: int | None) -> Tokenizer:
    """The tokenizer, trained on the training text."""
    return trained(kind, vocabulary, corpus(data)[0], [END_OF_TEXT])


@lru_cache(maxsize=2)
def tokenized(data: DataSettings, kind: Kind, vocabulary: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation text as rows of tokens, int32."""
    tokenizer = tokenizer_of(data, kind, vocabulary)
    train, test = (stream(tokenizer, documents, END) for documents in corpus(data))
    return train, test
