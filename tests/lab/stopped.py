"""Runs that are stopped, and what they go on from."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.harness.state import pack, unpack

CONF = Path(__file__).resolve().parents[2] / "conf"
OPTIMIZERS = sorted(file.stem for file in (CONF / "optimizer").glob("[!_]*.yaml"))
# what has a state or a schedule of its own
MORE = [
    ("optimizer=alphagrad", "alpha=saturation"),
    ("optimizer=alphagrad", "alpha=schedule", "alpha.steps=9"),
    ("optimizer=alphagrad", "alpha=quantile"),
    ("optimizer=hybrid", "transform=hybrid_scheduled", "transform.lam.steps=9"),
    ("optimizer=hybrid", "transform=hybrid_adaptive"),
    ("optimizer=adam", "optimizer.amsgrad=true", "optimizer.clip_grad_norm=0.5"),
]
EVERY = ("checkpoint.every_steps=10", "recipe.compile=false")


def interrupt() -> None:
    raise KeyboardInterrupt


def assert_same(a, b) -> None:
    """Equal bit for bit."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    else:
        assert a == b


class Stopped(Exception):
    pass


def gone_on(job, at: int) -> list:
    """What a job gives that is stopped at a step, in a stack of two, and goes on: the same as without a stop."""

    def train(log: Stopping) -> list:
        return job.recipe.train(RunStack([RunSpec(seed, job.optimizer) for seed in range(2)]), log)

    whole, log = train(Stopping(None)), Stopping(at)
    with pytest.raises(Stopped):
        train(log)
    again = train(log)
    for a, b in zip(whole, again, strict=True):
        assert_same(a, b)
    return again


class Stopping:
    """A log that stops a recipe at a step, and has the next one go on from there."""

    observation, observe_every = None, 0

    def __init__(self, at: int | None) -> None:
        self.at, self.stopped, self.file = at, at or 0, io.BytesIO()

    def metrics(self, run, step, values) -> None:
        pass

    def progress(self, step, shown) -> None:
        pass

    def artifact(self, run, name, write) -> None:
        pass

    def restore(self, parts) -> int:
        if not self.file.tell():
            return 0
        self.file.seek(0)
        state = torch.load(self.file, weights_only=True)
        for name, part in parts.items():
            unpack(part, state[name])
        return self.stopped

    def checkpoint(self, step, parts, result) -> None:
        if step == self.at:
            self.at = None
            torch.save({name: pack(part) for name, part in parts.items()}, self.file)
            raise Stopped
