"""What a process does that follows the first of a run: it trains along and keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from alphagrad.common import interrupts
from alphagrad.common import torchrun as processes
from alphagrad.harness.stack import Observation, RunSpec, RunStack
from alphagrad.harness.state import pack, put_back
from alphagrad.lab.config.build import Job, build
from alphagrad.lab.training.cpu import computing


class Ended(Exception):
    """The first process has ended the run and says why."""


def lead(work: Callable[[], None]) -> None:
    """Does ``work``, which trains one run at most, in the first process; in the others follows that run."""
    with interrupts.closing_runs_on_signals(), processes.connected():
        if not processes.is_first():
            follow()
            return
        before = len(_STARTED)
        try:
            work()
        finally:
            if len(_STARTED) == before:
                processes.shared(None)  # there is nothing to follow


_STARTED: list[None] = []
"""An entry for each run whose configuration the followers were given."""


def announce(config: Mapping[str, Any]) -> None:
    """Gives the followers, if there are any, the configuration of the run that begins now."""
    _STARTED.append(None)
    processes.shared(dict(config))


def follow() -> None:
    """Trains the run that the first process announces, if it does."""
    config = processes.shared()
    if config is None:
        return
    job = build(OmegaConf.create(config))
    stack = RunStack([RunSpec(job.settings.seed, job.optimizer)], job.device)
    log = FollowingLog(job)
    try:
        with computing(job.settings.threads):
            with interrupts.no_exit():
                job.recipe.train(stack, log)
            log.gather()
    except Ended:
        return
    except Exception:
        interrupts.check()  # a connection that broke because the run was interrupted
        raise


class FollowingLog:
    """See :class:`alphagrad.harness.recipe.Log`."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.observation: Observation | None = job.observation
        self.observe_every = job.settings.instruments.every
        self._parts: Mapping[str, Any] = {}
        self._result: Callable[[int], dict[str, Any]] | None = None

    def metrics(self, run: int, step: int, values: Mapping[str, float]) -> None:
        interrupts.check()

    def diverged(self, run: int, step: int, reason: str) -> None:
        raise Ended(reason)

    def progress(self, step: int, shown: str) -> None:
        interrupts.check()

    def artifact(self, run: int, name: str, write: Callable[[Path], None]) -> None:
        pass

    def restore(self, parts: Mapping[str, Any]) -> int:
        state = processes.shared()
        return 0 if state is None else put_back(state, parts, self._job.device)

    def checkpoint(self, step: int, parts: Mapping[str, Any], result: Callable[[int], dict[str, Any]]) -> None:
        self._parts, self._result = parts, result
        self.gather()

    def gather(self) -> None:
        """Helps the first process to gather what is spread over all, until it trains on.

        Raises:
            Ended: it does not.
        """
        while (word := processes.tell()) != processes.ON:
            if word == processes.END:
                raise Ended
            if word == processes.STATE:
                pack(dict(self._parts))
            elif self._result is not None:
                self._result(0)
