"""A recipe that counts its steps and fails on demand, by seed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from torch import nn

from alphagrad.harness import metrics
from alphagrad.harness.recipe import Capability, Objective, Settings


class OddSettings(Settings):
    name: str
    total_steps: int
    pause: float
    at: int | None
    raising: list[int]
    diverging: list[int]
    dying: list[int]
    once: str | None


class Odd:
    Settings = OddSettings
    objective = Objective(metrics.EVAL_RETURN)
    headlines = metrics.RETURNS
    capabilities = (Capability.STACKED,)

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
        optimizer = stack.optimizer(params)
        rates = optimizer.learning_rates()
        counted = torch.zeros(len(stack), dtype=torch.int64)
        began = torch.tensor(0)
        parts = {"params": params, "counted": counted, "began": began, "optimizer": optimizer}

        def result(run: int) -> dict[str, Any]:
            return {"seed": seeds[run], "steps": int(counted[run])}

        first = log.restore(parts)
        for step in range(first + 1, s.total_steps + 1):
            time.sleep(s.pause)
            counted += 1
            for run, rate in enumerate(rates):
                value = -((torch.tensor(rate).log10().item() + 2) ** 2) * step / s.total_steps
                log.metrics(run, step, {metrics.EVAL_RETURN: value})
            if step == (s.at or s.total_steps):
                self.misbehave(seeds, step, log, optimizer)
            log.progress(step, "")
            log.checkpoint(step, parts, result)
        for run in range(len(stack)):
            told = {"stack": len(stack), "threads": torch.get_num_threads(), "began": int(began), "resumed": first}
            told |= {"omp": int(os.environ.get("OMP_NUM_THREADS", "0"))}
            log.metrics(run, s.total_steps, told)
        return [result(run) for run in range(len(stack))]

    def misbehave(self, seeds: list[int], step: int, log, optimizer) -> None:
        s = self.settings
        for run, seed in enumerate(seeds):
            if seed in s.raising:
                raise ZeroDivisionError(f"seed {seed}")
            if seed in s.dying and self.first_time(seed):
                os.kill(os.getpid(), signal.SIGKILL)
            if seed in s.diverging and run not in optimizer.frozen:
                optimizer.freeze(run)
                log.diverged(run, step, "on demand")

    def first_time(self, seed: int) -> bool:
        """Whether a seed has not died before, of which it leaves a mark in the folder ``once``."""
        if self.settings.once is None:
            return True
        mark = Path(self.settings.once) / str(seed)
        died, _ = mark.exists(), mark.touch()
        return not died


class FragileCartPole(CartPoleEnv):
    """Raises in its tenth step if it was reset with the seed in $ALPHAGRAD_TEST_FRAGILE."""

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.fragile, self.taken = str(seed) == os.environ.get("ALPHAGRAD_TEST_FRAGILE"), 0
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self.taken += 1
        if self.fragile and self.taken == 10:
            raise RuntimeError("the pole broke")
        return super().step(action)


def choosy(params, lr: float) -> torch.optim.Optimizer:
    """An optimizer that what is tried at the start does not show to be wrong."""
    params = list(params)
    if any(p.numel() > 1000 for _, p in params):
        raise ValueError("matrices of more than 1000 elements are too large")
    return torch.optim.SGD([p for _, p in params], lr=lr)


gym.register("Fragile-v0", entry_point="odd_recipe:FragileCartPole", max_episode_steps=500)


class Lonely(Odd):
    """Not written for stacks."""

    capabilities = ()


class Mute:
    """Does not say what it is judged by."""

    Settings = OddSettings

    def networks(self) -> dict[str, nn.Module]:
        return {}

    def train(self, stack, log) -> list[dict[str, Any]]:
        return []
