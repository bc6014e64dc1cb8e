"""A run on several processes that torchrun started: the first one leads and records it, the others follow.

The two sides speak at fixed points: when a run begins, when it takes up its state, and at the end of every
iteration. There the leader says what the others are to do with it. With one process all of this is nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from alphagrad.common import interrupts, ranks
from alphagrad.harness.driver import Observation
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.harness.state import pack, put_back
from alphagrad.lab.config.build import Setup, build
from alphagrad.lab.training.cpu import computing

TAG = "processes"
"""Tag of a run: how many processes train it; where it was resumed with others, all numbers in their order."""


class Word(IntEnum):
    """What the leader says at the end of an iteration."""

    GATHER_STATE = 0
    GATHER_RESULT = 1
    TRAIN_ON = 2
    ENDED = 3


class Ended(Exception):
    """The leader has ended the run."""


def lead(work: Callable[[Leader], None]) -> None:
    """Does ``work``, which trains one run at most, in the first process; the others follow that run."""
    with interrupts.closing_runs_on_signals(), _connected():
        if not ranks.is_first():
            follow_leader()
            return
        leader = Leader()
        try:
            work(leader)
        finally:
            leader.leave()


class Leader:
    """The first process's side."""

    def __init__(self) -> None:
        self._begun = False

    def begin(self, config: Mapping[str, Any]) -> None:
        """Gives the followers the configuration of the run that begins now."""
        self._begun = True
        _broadcast(dict(config))

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Gives them the state that the run goes on from; None for a new run."""
        _broadcast(state)

    def say(self, word: Word) -> None:
        """Tells them what to do at the end of an iteration."""
        _tell(word)

    def leave(self) -> None:
        """Lets them go where no run was begun."""
        if not self._begun:
            _broadcast(None)


def follow_leader() -> None:
    """Trains the run that the leader begins, if it does."""
    config = _broadcast()
    if config is None:
        return
    setup = build(OmegaConf.create(config))
    stack = RunStack([RunSpec(setup.settings.seed, setup.optimizer)], setup.device)
    log = Follower(setup)
    try:
        with computing(setup.settings.threads):
            with interrupts.no_exit(), interrupts.at_ends_of_iterations():
                setup.recipe.train(stack, log)
            log.gather()
    except Ended:
        interrupts.iteration_ended()
    except Exception:
        interrupts.check()  # a connection that broke because the run was interrupted
        raise


class Follower:
    """The others' side: a :class:`alphagrad.harness.recipe.Log` that keeps nothing."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.observation: Observation | None = setup.observation
        self.observe_every = setup.settings.instruments.every
        self._parts: Mapping[str, Any] = {}
        self._result: Callable[[int], dict[str, Any]] | None = None

    def metrics(self, run: int, step: int, values: Mapping[str, float]) -> None:
        interrupts.check()

    def diverged(self, run: int, step: int, reason: str) -> None:
        raise Ended(reason)

    failed = diverged

    def progress(self, step: int, shown: str) -> None:
        interrupts.check()

    def artifact(self, run: int, name: str, write: Callable[[Path], None]) -> None:
        pass

    def restore(self, parts: Mapping[str, Any]) -> int:
        state = _broadcast()
        return 0 if state is None else put_back(state, parts, self._setup.device)

    def checkpoint(self, step: int, parts: Mapping[str, Any], result: Callable[[int], dict[str, Any]]) -> None:
        self._parts, self._result = parts, result
        self.gather()

    def gather(self) -> None:
        """Helps the leader to gather what is spread over all processes, until it trains on.

        Raises:
            Ended: it does not.
        """
        while (word := _tell()) != Word.TRAIN_ON:
            if word == Word.ENDED:
                raise Ended
            if word == Word.GATHER_STATE:
                pack(dict(self._parts))
            elif self._result is not None:
                self._result(0)


def note_processes(tracker: Any, folder: str, resumed: bool) -> None:
    """Says how many processes train a run, where they are several or not as many as before, and records that."""
    now, before = str(ranks.count()), ""
    if resumed and tracker.run_id:
        before = tracker.client.get_run(tracker.run_id).data.tags.get(TAG, "")
    last = before.rpartition(", ")[2] or now
    if last != now and tracker.run_id:
        tracker.client.set_tag(tracker.run_id, TAG, f"{before}, {now}")
    if last != now or now != "1":
        words = "1 process" if now == "1" else f"{now} processes"
        print(f"alphagrad: {folder}: trained by {words}" + (f", after {last}" if last != now else ""), file=sys.stderr)


@contextmanager
def _connected() -> Iterator[None]:
    """The processes connected, by gloo on CPUs and NCCL on GPUs; nothing with one process."""
    if ranks.count() == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local())
        backend = "cpu:gloo,cuda:nccl"  # what processes tell each other must not wait for a GPU
    dist.init_process_group(backend)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _broadcast(value: Any = None) -> Any:
    """The first process's value, plain values and tensors, on all of them; they must call together."""
    if ranks.count() == 1:
        return value
    import torch
    import torch.distributed as dist

    held = [value]
    dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
    return held[0]


def _tell(word: Word = Word.TRAIN_ON) -> Word:
    """The first process's word to the others, on all of them; nothing with one process."""
    if ranks.count() == 1:
        return word
    import torch
    import torch.distributed as dist

    told = torch.tensor(int(word))
    dist.broadcast(told, src=0)
    return Word(int(told))
