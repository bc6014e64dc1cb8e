"""A small recipe for several processes, which stops or diverges on demand."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, Literal

import torch
from alphagrad.recipes.supervised.learner import Training
from alphagrad.recipes.supervised.looped import LoopLearner
from alphagrad.recipes.supervised.parallel import parallel_of
from alphagrad.recipes.supervised.precision import Numbers
from torch import nn

from alphagrad.harness import metrics
from alphagrad.harness.recipe import Settings


class TogetherSettings(Settings):
    name: str
    lr: float
    total_steps: int
    parallel: Literal["ddp", "fsdp"]
    pause: float
    diverging_at: int | None


def objective(outputs, targets):
    loss = nn.functional.mse_loss(outputs, targets)
    return loss, loss.detach().unsqueeze(0)


class Together:
    Settings = TogetherSettings

    def __init__(self, settings: TogetherSettings) -> None:
        self.settings = settings
        self.total_steps = settings.total_steps

    def networks(self) -> dict[str, nn.Module]:
        return {"model": self.model()}

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))

    def train(self, stack, log) -> list[dict[str, Any]]:
        s = self.settings
        parallel = parallel_of(s.parallel)
        training = Training(self.model, objective, frozenset(), 0.5, 1, False, False)
        learner = LoopLearner(stack, training, Numbers("float32", stack.device), parallel)
        parts = {"learner": learner}
        for step in range(log.restore(parts), s.total_steps):
            time.sleep(s.pause)
            if step == int(os.environ.get("INTERRUPTED_AT", "-1")):
                os.kill(os.getpid(), signal.SIGINT)
            x = torch.randn(1, 8, 3, generator=torch.Generator().manual_seed(step))
            part = slice(parallel.rank * 8 // parallel.processes, (parallel.rank + 1) * 8 // parallel.processes)
            measures, _ = learner.step(x[:, part], x[:, part].sum(-1, keepdim=True), None)
            for run in range(len(stack)):
                if step == s.diverging_at:
                    log.diverged(run, step, "on demand")
                log.metrics(run, step, {metrics.EVAL_RETURN: -float(measures[0, run]), "world": parallel.processes})
            log.progress(step + 1, "")
            log.checkpoint(step + 1, parts, learner.result)
        return [learner.result(run) for run in range(len(stack))]
