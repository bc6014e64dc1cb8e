"""What a recipe measures at its updates, between two points of the log, for R runs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from alphagrad.harness import metrics
from alphagrad.harness.recipe import Log


class Freezable(Protocol):
    """What can take a run out of the race."""

    @property
    def frozen(self) -> set[int]:
        """The runs that are out of it."""

    def finite(self) -> list[bool]:
        """For each run whether its parameters are finite."""

    def freeze(self, run: int) -> None: ...


class Window:
    """Measures of R runs between two points of the log, kept on the device until they are asked for.

    Args:
        runs: R.
        reductions: name of the metric → *mean* or *max* over the updates of the window.
    """

    def __init__(self, runs: int, reductions: Mapping[str, str]) -> None:
        self.runs = runs
        self.reductions = dict(reductions)
        self.updates = 0
        self._measures: list[Tensor] = []
        self._step, self._time = 0, time.perf_counter()

    def add(self, measures: Tensor) -> None:
        """Adds one update's measures [metrics, R], in the order of ``reductions``."""
        self.updates += 1
        self._measures.append(measures)

    def take(self, step: int) -> list[dict[str, float]]:
        """Each run's metrics since the last call, which ended at an earlier ``step``; steps/s among them."""
        now = time.perf_counter()
        rows = [{metrics.STEPS_PER_SECOND: (step - self._step) / (now - self._time)} for _ in range(self.runs)]
        self._step, self._time = step, now
        if self._measures:
            # those out of a checkpoint may lie on another device than what came since
            columns = torch.stack([m.to(self._measures[-1].device) for m in self._measures]).unbind(1)
            for (name, reduction), column in zip(self.reductions.items(), columns, strict=True):
                values = column.amax(0) if reduction == "max" else column.mean(0)
                for row, value in zip(rows, values.tolist(), strict=True):
                    row[name] = value
            self._measures.clear()
        return rows

    def state_dict(self) -> dict[str, Any]:
        """The measures not yet taken, and the time since the last were."""
        measures = torch.stack(self._measures) if self._measures else None
        elapsed = time.perf_counter() - self._time
        return {"updates": self.updates, "step": self._step, "elapsed": elapsed, "measures": measures}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them back."""
        self.updates, self._step = state["updates"], state["step"]
        self._measures = [] if state["measures"] is None else list(state["measures"].unbind(0))
        self._time = time.perf_counter() - state["elapsed"]

    def diverged(self, rows: Sequence[Mapping[str, float]]) -> dict[int, str]:
        """Runs whose measures are not finite → which of them."""
        bad = {run: [n for n in self.reductions if not math.isfinite(row.get(n, 0))] for run, row in enumerate(rows)}
        return {run: f"non-finite {', '.join(names)}" for run, names in bad.items() if names}


def stop_diverged(
    window: Window, rows: Sequence[Mapping[str, float]], step: int, log: Log, *optimizers: Freezable
) -> None:
    """Freezes the runs whose measures or parameters have turned non-finite, and says so."""
    reasons = window.diverged(rows)
    # an update that was not followed by another has spoilt no measure yet
    for run, finite in enumerate(zip(*(optimizer.finite() for optimizer in optimizers), strict=True)):
        if not all(finite):
            reasons.setdefault(run, "non-finite parameters")
    for run, reason in reasons.items():
        if run not in optimizers[0].frozen:
            for optimizer in optimizers:
                optimizer.freeze(run)
            log.diverged(run, step, reason)
