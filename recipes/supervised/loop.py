"""The loop of recipes that learn from examples: steps, points of the log, evaluations."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from alphagrad.harness import metrics
from alphagrad.harness.recipe import Log
from alphagrad.harness.stack import RunStack
from alphagrad.harness.state import HasState, Stateful

from ..windows import Window, stop_diverged
from .learner import Learner
from .schedules import ScheduleSettings, factor


class Batches(Protocol):
    """Where the examples of a step come from; what they are depends on the runs and the step alone."""

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs [R, B, ...] and targets [R, B, ...] of a step."""


@dataclass(frozen=True)
class FitPlan:
    """How long runs train, and when what is told of them."""

    total_steps: int
    schedule: ScheduleSettings
    log_every: int
    """Steps between points of the log."""
    eval_every: int
    """Steps between evaluations; 0 for only one, after the last step."""
    measures: Mapping[str, str]
    """Metric → *mean* or *max*: what the learner's objective reports, and how a window of it is summed up."""
    rates: Mapping[str, float]
    """Metric of throughput → how many of its units one run takes in a step."""
    target: Target | None = None


@dataclass(frozen=True)
class Target:
    """A value of an evaluation's metric, and whether it is to be reached from below."""

    metric: str
    value: float
    rising: bool = True

    def reached(self, row: Mapping[str, float]) -> bool:
        """Whether an evaluation has reached it."""
        return row[self.metric] >= self.value if self.rising else row[self.metric] <= self.value


Evaluate = Callable[[Learner, int, bool], list[dict[str, float]]]
"""Learner, step, whether it is the last → metrics of each run."""


class Clock(Stateful):
    """Time spent in training, evaluations left out.

    Where computation is on a GPU it is waited for whenever the clock is started or stopped.
    """

    STATE = ("seconds", "reached")

    def __init__(self, runs: int, device: torch.device) -> None:
        self.seconds = 0.0
        self.reached = [False] * runs
        """Whether each run has seen its target."""
        self._device = device
        self._since = self.now()

    def now(self) -> float:
        """The time, once all that was begun is done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def start(self) -> None:
        """Goes on."""
        self._since = self.now()

    def stop(self) -> float:
        """Seconds so far; what comes until the next :meth:`start` is not counted."""
        now = self.now()
        self.seconds += now - self._since
        self._since = now
        return self.seconds

    def state_dict(self) -> dict[str, Any]:
        """The seconds up to now."""
        self.stop()
        return super().state_dict()


def fit(
    plan: FitPlan, learner: Learner, batches: Batches, evaluate: Evaluate, stack: RunStack, log: Log
) -> list[dict[str, Any]]:
    """Trains the runs of a stack to the end of the plan, from wherever ``log`` has kept them; returns their results.

    An ``evaluate`` that has a state is kept too.
    """
    runs = len(stack)
    window, clock = Window(runs, plan.measures), Clock(runs, stack.device)
    parts: dict[str, Any] = {"learner": learner, "window": window, "clock": clock}
    if isinstance(evaluate, HasState):
        parts["evaluate"] = evaluate

    def result(run: int) -> dict[str, Any]:
        return {**learner.result(run), "steps": plan.total_steps}

    first = since = log.restore(parts)
    seconds = clock.seconds
    clock.start()
    for step in range(first, plan.total_steps):
        learner.scale_lr(factor(plan.schedule, step, plan.total_steps))
        inputs, targets = batches.at(step)
        observe = log.observation if log.observe_every and step % log.observe_every == 0 else None
        measures, signals = learner.step(inputs, targets, observe)
        window.add(measures)
        for run, row in enumerate(signals):
            log.metrics(run, step, row)
        done, last = step + 1, step + 1 == plan.total_steps
        if done % plan.log_every == 0 or last:
            rows = window.take(done)
            pace = (done - since) / (clock.stop() - seconds)
            since, seconds = done, clock.seconds
            speed = {name: units * pace for name, units in plan.rates.items()}
            told = zip(rows, learner.learning_rates(), learner.skipped(), strict=True)
            for run, (row, rate, skipped) in enumerate(told):
                log.metrics(run, step, {**row, metrics.LEARNING_RATE: rate, **speed, **skipped})
            stop_diverged(window, rows, step, log, learner)
            shown = f"loss {rows[0][metrics.TRAIN_LOSS]:.3f}" if metrics.TRAIN_LOSS in rows[0] else ""
            log.progress(done, shown)
        if last or (plan.eval_every and done % plan.eval_every == 0):
            clock.stop()
            stop_diverged(window, [{}] * runs, step, log, learner)
            for run, row in enumerate(evaluate(learner, step, last)):
                if run in learner.frozen:
                    continue
                if plan.target is not None and not clock.reached[run] and plan.target.reached(row):
                    clock.reached[run] = True
                    row |= {metrics.TARGET_STEPS: float(done), metrics.TARGET_SECONDS: clock.seconds}
                log.metrics(run, step, row)
            clock.start()
        log.checkpoint(done, parts, result)
    return [result(run) for run in range(runs)]
