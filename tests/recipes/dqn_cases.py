"""DQN with settings of a second."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from alphagrad.recipes.dqn import DQN, DQNSettings

from alphagrad import variants
from alphagrad.harness.driver import Observation, OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.optimizer import AlphaGrad

FILE = yaml.safe_load((Path(__file__).resolve().parents[2] / "conf/recipe/dqn_cartpole.yaml").read_text())
DEFAULTS = {k: v for k, v in FILE["recipe"].items() if k != "_target_"} | {"env": {"id": "CartPole-v1"}}


def recipe(**settings) -> DQN:
    env = {"env": {"id": settings.pop("env_id")}} if "env_id" in settings else {}
    return DQN(DQNSettings(**{**DEFAULTS, "compile": False, **env, **settings}))


ADAM = OptimizerSpec("adam", lambda params: torch.optim.Adam(params, lr=2.5e-4), "elementwise")
OURS = OptimizerSpec(
    "alphagrad",
    lambda params, **stacked: AlphaGrad(params, lr=2.5e-4, rule=variants.alphagrad(93.0), momentum=0.9, **stacked),
    "batch_dims",
)
CLIPPED = OptimizerSpec(
    "sgd", lambda params: torch.optim.SGD(params, lr=1e-2, momentum=0.9), "elementwise", clip_grad_norm=0.5
)


def lamb(params):
    from pytorch_optimizer import Lamb

    return Lamb(params, lr=1e-3)


PER_RUN = OptimizerSpec("lamb", lamb, "per_run")


class Recorder:
    """A log that remembers everything."""

    def __init__(self, runs: int = 1, observation: Observation | None = None, observe_every: int = 0) -> None:
        self.observation = observation
        self.observe_every = observe_every
        self.points: list[list[tuple[int, str, float]]] = [[] for _ in range(runs)]
        self.shown: list[tuple[int, str]] = []
        self.ended: list[tuple[int, int, str]] = []

    def metrics(self, run, step, values):
        self.points[run] += [(step, name, float(value)) for name, value in values.items()]

    def diverged(self, run, step, reason):
        self.ended.append((run, step, reason))

    def progress(self, step, shown):
        self.shown.append((step, shown))

    def restore(self, parts):
        return 0

    def checkpoint(self, step, parts, result):
        pass

    def of(self, run: int, name: str) -> list[tuple[int, float]]:
        return [(step, value) for step, n, value in self.points[run] if n == name]


def train(dqn: DQN, *runs: RunSpec, observe: int = 0):
    log = Recorder(len(runs), Observation(2, 2.5), observe)
    return dqn.train(RunStack(runs), log), log


def largest_gap(a: dict, b: dict) -> float:
    assert set(a) == set(b)
    return max(float((a[name] - b[name]).detach().abs().max()) for name in a)


def assert_same_history(history, expected, what):
    """Equal up to the order in which sums are taken: it differs with the number of runs in a product."""
    assert [step for step, _ in history] == [step for step, _ in expected], what
    assert [value for _, value in history] == pytest.approx([value for _, value in expected], rel=1e-6), what
