"""The course of a run on text: settings, and the loop from the first step to the last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from alphagrad.lab import metrics
from alphagrad.lab.recipe import Log, Settings
from alphagrad.lab.stack import RunStack

from ..supervised.learner import LoopLearner, Objective, Training, undecayed
from ..supervised.parallel import Kind, Parallel, processes
from ..supervised.precision import Numbers, Precision
from ..supervised.schedules import ScheduleSettings, factor
from ..windows import Window, stop_diverged

COMPILE_FROM = 2000
"""Steps of a run from which compiling repays itself."""


class TrainingSettings(Settings):
    """What recipes text and lm have in common."""

    name: str
    lr: PositiveFloat
    batch_size: PositiveInt
    accumulate: PositiveInt
    schedule: ScheduleSettings
    decay: Literal["weights", "all"]
    precision: Precision
    ema: float | None = Field(gt=0, lt=1)
    parallel: Kind
    log_every: PositiveInt
    eval_batch: PositiveInt
    compile: bool | Literal["auto"]

    def check_batch(self, examples: int, what: str) -> None:
        """Raises ``ValueError`` where a batch cannot be filled or divided."""
        each = processes() * self.accumulate
        if self.batch_size % each:
            raise ValueError(
                f"recipe.batch_size={self.batch_size}: must be a multiple of recipe.accumulate × processes = {each}"
            )
        if self.batch_size > examples:
            raise ValueError(f"recipe.batch_size={self.batch_size}: the training split has {examples} {what}")


class Batches(Protocol):
    """Training batches of R runs."""

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [R, B, ...] of a step."""

    def tokens(self, step: int) -> int:
        """Tokens of one run in it, padding left out."""


def compiles(s: TrainingSettings, total: int) -> bool:
    """Whether models and optimizer steps are compiled."""
    return total >= COMPILE_FROM and torch.cuda.is_available() if s.compile == "auto" else bool(s.compile)


def learner_of(
    s: TrainingSettings,
    stack: RunStack,
    build: Callable[[], nn.Module],
    objective: Objective,
    total: int,
    parallel: Parallel,
) -> LoopLearner:
    """The runs' models and optimizers."""
    spared = undecayed(build()) if s.decay == "weights" else frozenset[str]()
    training = Training(build, objective, spared, s.ema, s.accumulate, compiles(s, total), channels_last=False)
    return LoopLearner(stack, training, Numbers(s.precision, stack.device), parallel)


def train(
    s: TrainingSettings,
    log: Log,
    learner: LoopLearner,
    batches: Batches,
    total: int,
    evaluate: Callable[[], list[dict[str, float]]],
    eval_every: NonNegativeInt,
    after_evaluation: Callable[[int], None],
    flops_per_token: float = 0.0,
) -> Sequence[dict[str, Any]]:
    """Trains ``total`` steps; every metric of a step is logged under its number, from 1.

    Args:
        s: the settings.
        log: where it reports.
        learner: the runs.
        batches: what they learn from.
        total: steps.
        evaluate: each run's metrics of an evaluation.
        eval_every: steps between evaluations; 0 for only one at the end.
        after_evaluation: called with the step after each of them.
        flops_per_token: as a share of the device's FLOP/s; 0 for no MFU.
    """
    runs = len(learner.runs)
    window = Window(runs, {metrics.TRAIN_LOSS: "mean", metrics.TRAIN_ACCURACY: "mean"})
    parts = {"learner": learner, "window": window}
    shown, tokens = "", 0

    def result(run: int) -> dict[str, Any]:
        return {**learner.result(run), "steps": total}

    for step in range(log.restore(parts), total):
        done = step + 1
        last = done == total
        learner.scale_lr(factor(s.schedule, step, total))
        observe = log.observation if log.observe_every and done % log.observe_every == 0 else None
        measures, signals = learner.step(*batches.at(step), observe)
        window.add(measures)
        tokens += batches.tokens(step)
        for run, seen in enumerate(signals):
            log.metrics(run, done, seen)
        if last or done % s.log_every == 0:
            rows = window.take(done)
            per_step, tokens = tokens / len_of(done, s.log_every), 0
            for run, (row, lr, skipped) in enumerate(
                zip(rows, learner.learning_rates(), learner.skipped(), strict=True)
            ):
                rate = per_step * row[metrics.STEPS_PER_SECOND]
                row |= {metrics.LEARNING_RATE: lr, metrics.TOKENS_PER_SECOND: rate, **skipped}
                if flops_per_token:
                    row[metrics.MFU] = flops_per_token * rate
                if run not in learner.frozen:
                    log.metrics(run, done, row)
            stop_diverged(window, rows, done, log, learner)
            shown = f"loss {rows[0].get(metrics.TRAIN_LOSS, float('nan')):.3f}"
            log.progress(done, shown)
        if last or (eval_every and done % eval_every == 0):
            with window.paused():
                evaluated(log, learner, done, evaluate())
                after_evaluation(done)
        log.checkpoint(done, parts, result)
    return [result(run) for run in range(runs)]


def evaluated(log: Log, learner: LoopLearner, step: int, rows: Sequence[Mapping[str, float]]) -> None:
    """Logs an evaluation of the runs that are in the race."""
    for run, row in enumerate(rows):
        if run not in learner.frozen:
            log.metrics(run, step, row)


def len_of(step: int, every: int) -> int:
    """How many steps lie between ``step`` and the last multiple of ``every`` before it."""
    return (step - 1) % every + 1
