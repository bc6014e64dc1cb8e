"""A run of a recipe and a plain loop that take turns in one process, so that both meet the same machine."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np


class Turns:
    """Takes a run's progress, and lets the plain loop do as many steps.

    Args:
        plain: a loop that stands still after every step; yields what it has done, in tokens or images.
        each: what the run does in a step.
    """

    def __init__(self, plain: Iterator[int], each: float) -> None:
        self.plain, self.each = plain, each
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self.spent: list[tuple[float, float]] = []
        """CPU seconds of the process for each token or image, the run's and the plain loop's, of each turn."""
        self._step, self._since, self._cpu = 0, time.perf_counter(), time.process_time()

    def __enter__(self) -> Turns:
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def start(self, total: int) -> None:
        """A run of so many steps begins."""

    def note(self, words: str) -> None:
        """What is done before the first step."""

    def update(self, step: int, shown: str) -> None:
        """The run has done ``step`` steps."""
        begun, cpu = time.perf_counter(), time.process_time()
        steps = step - self._step
        if not steps:  # told again, as at the end
            return
        done = sum(next(self.plain) for _ in range(steps))
        ended, cpu_ended = time.perf_counter(), time.process_time()
        self.spent.append(((cpu - self._cpu) / (steps * self.each), (cpu_ended - cpu) / done))
        self.ours.append(steps * self.each / (begun - self._since))
        self.theirs.append(done / (ended - begun))
        self._step, self._since, self._cpu = step, time.perf_counter(), time.process_time()

    def row(self) -> str:
        """Both rates over all turns but the first, their ratio, the middle half of the ratios of single turns, and the
        ratio of what is done in a second of CPU time, which other programs disturb less.
        """
        ours, theirs = np.array(self.ours[1:]), np.array(self.theirs[1:])
        mine, other = (len(column) / (1 / column).sum() for column in (ours, theirs))
        low, high = np.quantile(ours / theirs, [0.25, 0.75])
        mine_cpu, other_cpu = np.array(self.spent[1:]).sum(0)
        ratios = f"{mine / other:.3f} | {low:.2f} to {high:.2f} | {other_cpu / mine_cpu:.3f}"
        return f"{mine:,.0f} | {other:,.0f} | {ratios} |"
