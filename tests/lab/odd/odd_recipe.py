"""A recipe that trains nothing and fails on demand, by seed."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import torch
from torch import nn

from alphagrad.lab import metrics
from alphagrad.lab.recipe import Settings


class OddSettings(Settings):
    name: str
    lr: float
    total_steps: int
    pause: float
    raising: list[int]
    diverging: list[int]
    dying: list[int]


class Odd:
    Settings = OddSettings

    def __init__(self, settings: OddSettings) -> None:
        self.settings = settings
        self.total_steps = settings.total_steps

    def networks(self) -> dict[str, nn.Module]:
        return {"only": nn.Linear(2, 2)}

    def train(self, stack, log) -> list[dict[str, Any]]:
        """Returns of −(log10 lr + 2)² and the like, so that searches have something to find."""
        s = self.settings
        seeds = [run.seed for run in stack.runs]
        params = stack.initialize(lambda: self.networks()["only"])
        rates = stack.optimizer(params).learning_rates()
        for step in range(1, s.total_steps + 1):
            time.sleep(s.pause)
            for run, rate in enumerate(rates):
                value = -((torch.tensor(rate).log10().item() + 2) ** 2) * step / s.total_steps
                log.metrics(run, step, {metrics.EVAL_RETURN: value})
            log.progress(step, "")
        for run, seed in enumerate(seeds):
            if seed in s.raising:
                raise ZeroDivisionError(f"seed {seed}")
            if seed in s.dying:
                os.kill(os.getpid(), signal.SIGKILL)
            if seed in s.diverging:
                log.diverged(run, s.total_steps, "on demand")
            log.metrics(run, s.total_steps, {"stack": len(stack), "threads": torch.get_num_threads()})
            log.metrics(run, s.total_steps, {"omp": int(os.environ.get("OMP_NUM_THREADS", "0"))})
        return [{"seed": seed} for seed in seeds]
