"""Causal language modelling: GPT-2- and Llama-shaped models on packed sequences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from alphagrad.harness import metrics
from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.memory import check_memory
from alphagrad.harness.recipe import Capability, Log, Objective
from alphagrad.harness.stack import RunStack
from alphagrad.landscape.loss import FixedLoss

from .language.batches import Packed, Sequences
from .language.data import DataSettings, corpus
from .language.models import CAUSAL, ModelSettings, causal, check_model, numbers_of, outline
from .language.sampling import Sampler
from .language.speed import flops_per_token
from .language.tokens import END_OF_TEXT, Kind, Tokenizer, stream, trained
from .supervised.classify import MEASURES
from .supervised.held_out import spread
from .supervised.learner import Learner
from .supervised.loop import FitPlan, fit
from .supervised.looped import LoopLearner
from .supervised.orders import Orders
from .supervised.outline import MODEL_BYTES
from .supervised.parallel import parallel_of
from .supervised.precision import Numbers, check_scaled
from .supervised.settings import SupervisedSettings, check_step, part_of, training_of
from .supervised.speed import peak_flops
from .supervised.surveyed import surveyed

LARGE = ("recipe.batch_size", "recipe.eval_batch_size", "recipe.length", "model.width", "model.layers")
"""Settings that say what a run takes in memory."""
END = 0
"""The number of the token between documents."""


class LMSettings(SupervisedSettings):
    """See conf/recipe/lm.yaml for what each means."""

    data: DataSettings
    model: ModelSettings
    tokenizer: Kind
    vocabulary: PositiveInt | None
    length: int = Field(ge=2)
    total_steps: PositiveInt
    dropout: float = Field(ge=0, lt=1)
    stack: Literal["auto", "loop"]
    sample_every: NonNegativeInt
    sample_tokens: int = Field(gt=0, le=1_000_000)
    temperature: float = Field(ge=1e-3)
    peak_flops: PositiveFloat | None


class LM:
    """Cross-entropy of the next token; evaluated on the whole validation text.

    Documents follow one another in one row of tokens with an end-of-text token after each; it is cut into
    sequences of ``length`` tokens that begin without a memory of what was before.
    """

    Settings = LMSettings
    objective = Objective(metrics.EVAL_LOSS, "min")
    headlines: ClassVar[Mapping[str, int]] = {metrics.EVAL_LOSS: 4, metrics.EVAL_BITS: 3}
    capabilities = (Capability.STACKED, Capability.SHARDED, Capability.SURVEYED)
    logs = metrics.EXAMPLES | {
        *(metrics.EVAL_PERPLEXITY, metrics.EVAL_BITS, metrics.TOKENS_PER_SECOND, metrics.MFU),
    }

    takes: ClassVar[Mapping[str, Mapping[str, Sequence[str]]]] = {
        "model": dict.fromkeys(CAUSAL, ()),
        "data": {"topics": (), "files": (), "hub": ("text",)},
    }

    def __init__(self, settings: LMSettings) -> None:
        s = self.settings = settings
        check_model(s.model, "lm", CAUSAL)
        if s.tokenizer == "words":
            raise ValueError("recipe.tokenizer=words: recipe lm has bpe and bytes, which can write every text")
        if s.model.name == "llama" and s.dropout:
            raise ValueError(f"recipe.dropout={s.dropout}: llama has none; give 0.0")
        self.tokens = tokenizer_of(s.data, s.tokenizer, s.vocabulary)
        train_tokens, test_tokens = (len(row) for row in tokenized(s.data, s.tokenizer, s.vocabulary))
        if test_tokens < 2:
            raise ValueError(f"data.test: has {test_tokens} tokens; there is nothing to predict")
        if train_tokens <= s.length:
            raise ValueError(f"recipe.length={s.length}: data.train has only {train_tokens} tokens")
        check_step(s, (train_tokens - 1) // s.length)
        self.test_tokens = test_tokens
        own = s.model.target is not None
        self.outline = outline(s.model, self.tokens.size, None, s.length, s.dropout, END) if own else None
        check_memory(s, self.bytes_of, LARGE)

    def bytes_of(self, s: LMSettings, runs: int = 1) -> float:
        """What runs take in memory, about."""
        if self.outline is None:
            parameters, activations = numbers_of(s.model, self.tokens.size, s.length)
        else:
            parameters, activations = self.outline.parameters, -(-self.outline.activations // self.settings.length)
        tokens, evaluated = part_of(s) * s.length, min(s.eval_batch_size * s.length, self.test_tokens)
        logits = self.tokens.size * max(3 * tokens, 2 * evaluated)
        return MODEL_BYTES * runs * parameters + 4 * (activations * tokens + logits)

    @property
    def total_steps(self) -> int:
        """Optimizer steps."""
        return self.settings.total_steps

    def check_optimizer(self, spec: OptimizerSpec) -> None:
        """Raises ``ValueError`` for an optimizer that cannot train under the recipe's settings."""
        check_scaled(self.settings.precision, spec)

    def networks(self) -> dict[str, nn.Module]:
        """The language model."""
        return {"model": self._model()}

    def _model(self) -> nn.Module:
        s = self.settings
        return causal(s.model, self.tokens.size, s.length, s.dropout, END)

    def train(self, stack: RunStack, log: Log) -> list[dict[str, Any]]:
        """Trains all runs in lockstep; see :class:`alphagrad.harness.recipe.Recipe`."""
        s = self.settings
        parallel = parallel_of(s.parallel)
        training = training_of(s, self._model, next_token_objective)
        learner = LoopLearner(stack, training, Numbers(s.precision, stack.device, s.rounding), parallel)
        rows = tokenized(s.data, s.tokenizer, s.vocabulary)
        packed, held_out = (Packed(row, s.length, stack.device) for row in rows)
        orders = Orders(stack.generators("minibatch"), len(packed), s.batch_size, parallel.share)
        tokens = s.batch_size * s.length
        plan = FitPlan(
            total_steps=s.total_steps,
            schedule=s.schedule,
            log_every=s.log_every,
            eval_every=s.eval_every,
            measures=MEASURES,
            rates={metrics.TOKENS_PER_SECOND: tokens, **self._mfu(tokens / parallel.processes, stack.device)},
        )
        for run in range(len(stack)):
            log.artifact(run, "tokenizer.json", self._write_tokenizer)
        return fit(plan, learner, Sequences(packed, orders), LMExam(self, held_out, learner, stack, log), stack, log)

    def fixed_loss(self, checkpoint: Mapping[str, Any], examples: int, device: torch.device) -> FixedLoss:
        """On sequences of the training text, in batches as in training."""
        s = self.settings
        packed = Packed(tokenized(s.data, s.tokenizer, s.vocabulary)[0], s.length, device)
        chosen = torch.from_numpy(spread(len(packed), examples)).to(device)
        batches = [packed.sequences(part) for part in chosen.split(s.batch_size)]
        return surveyed(self._model, next_token_objective, checkpoint, batches, device)

    def _mfu(self, tokens: float, device: torch.device) -> dict[str, float]:
        """What a step adds to the MFU; nothing of a model of the user's own, whose operations are not known."""
        return {} if self.outline else {metrics.MFU: tokens * self.share_of_peak(device)}

    def share_of_peak(self, device: torch.device) -> float:
        """Training's FLOPs a token over the device's FLOP/s."""
        s = self.settings
        assert s.model.layers is not None
        assert s.model.width is not None
        work = flops_per_token(self._model(), s.model.layers, s.model.width, s.length)
        return work / (s.peak_flops or peak_flops(device, Numbers(s.precision, device).products))

    def _write_tokenizer(self, path: Path) -> None:
        path.write_text(self.tokens.described(), encoding="utf-8")


class LMExam:
    """The models' cross-entropy on the whole validation text; at intervals also a text that each writes."""

    def __init__(self, recipe: LM, held_out: Packed, learner: LoopLearner, stack: RunStack, log: Log) -> None:
        self.s, self.tokens, self.held_out, self.log = recipe.settings, recipe.tokens, held_out, log
        self.learner, self.device = learner, stack.device
        self.size = sum(len(document.encode()) for document in corpus(self.s.data)[1])
        self.samplers = [Sampler(rng, self.s.temperature, self.s.length) for rng in stack.generators("sampling")]

    def __call__(self, learner: Learner, step: int, last: bool) -> list[dict[str, float]]:
        """Each run's loss, perplexity and bits per byte."""
        losses = torch.zeros(len(self.samplers), dtype=torch.float64, device=self.device)
        for inputs, targets in self.held_out.sweep(self.s.eval_batch_size):
            losses += torch.stack([_total(outputs, targets) for outputs in learner.predict(inputs)])
        if self.s.sample_every and (last or self._due(step + 1)):
            for run in set(range(len(self.samplers))) - learner.frozen:
                self._sample(run, step + 1)
        return [scores(nats, len(self.held_out.tokens) - 1, self.size) for nats in losses.tolist()]

    def _due(self, done: int) -> bool:
        """Whether a multiple of ``sample_every`` lies between the evaluation before and this one."""
        return done // self.s.sample_every > (done - self.s.eval_every) // self.s.sample_every

    def _sample(self, run: int, step: int) -> None:
        predict = self.learner.runs[run].predict
        with torch.no_grad():
            ids = self.samplers[run].sample(predict, END, self.s.sample_tokens, step, self.device)
        text = self.tokens.decode(ids)
        self.log.artifact(run, f"sample-{step:07d}.txt", lambda path: _write(path, text))


def scores(nats: float, tokens: int, size: int) -> dict[str, float]:
    """Loss, perplexity and bits per byte from a text's whole cross-entropy, its tokens and its bytes."""
    loss = nats / tokens
    return {
        metrics.EVAL_LOSS: loss,
        metrics.EVAL_PERPLEXITY: math.inf if loss > 709 else math.exp(loss),
        metrics.EVAL_BITS: nats / math.log(2) / size,
    }


def _total(outputs: Tensor, targets: Tensor) -> Tensor:
    """The summed cross-entropy of one run, float64."""
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none").double().sum()


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def next_token_objective(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of logits [B, T, V] and tokens [B, T]; and what is logged: that, and the accuracy."""
    flat, expected = outputs.flatten(0, 1), targets.flatten()
    loss = F.cross_entropy(flat, expected)
    # argmax costs six times as much
    likeliest = flat.detach().amax(-1)
    right = (flat.detach().gather(1, expected[:, None]).squeeze(1) == likeliest).float().mean()
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
