"""A run on several processes that torchrun started: the first one records it, the others follow."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alphagrad.common.errors import ConfigError, Terminated

TAG = "processes"
"""Tag of a run: how many processes train it; where it was resumed with others, all numbers in their order."""
STATE, RESULT, ON, END = range(4)
"""What the first process tells the others at the end of an iteration: to gather the state with it, to gather
a result, to train on, that the run has ended."""


def count() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def note(tracker: Any, folder: str, resumed: bool) -> None:
    """Says how many processes train a run, where they are several or not as many as before, and records that."""
    now, before = str(count()), ""
    if resumed and tracker.run_id:
        before = tracker.client.get_run(tracker.run_id).data.tags.get(TAG, "")
    last = before.rpartition(", ")[2] or now
    if last != now and tracker.run_id:
        tracker.client.set_tag(tracker.run_id, TAG, f"{before}, {now}")
    if last != now or now != "1":
        words = "1 process" if now == "1" else f"{now} processes"
        print(f"alphagrad: {folder}: trained by {words}" + (f", after {last}" if last != now else ""), file=sys.stderr)


def is_first() -> bool:
    """Whether this process is the one that records, as one alone is."""
    return os.environ.get("RANK", "0") == "0"


def local() -> int:
    """This process's number on its machine, and its GPU's."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def connected() -> Iterator[None]:
    """The processes connected, by gloo on CPUs and NCCL on GPUs; nothing with one process."""
    if count() == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local())
        backend = "cpu:gloo,cuda:nccl"  # what processes tell each other must not wait for a GPU
    dist.init_process_group(backend)
    try:
        yield
    finally:
        dist.destroy_process_group()


def shared(value: Any = None) -> Any:
    """The first process's value, plain values and tensors, on all of them; they must call together."""
    if count() == 1:
        return value
    import torch
    import torch.distributed as dist

    held = [value]
    dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
    return held[0]


def tell(what: int = ON) -> int:
    """The first process's word to the others, on all of them; nothing with one process."""
    if count() == 1:
        return what
    import torch
    import torch.distributed as dist

    word = torch.tensor(what)
    dist.broadcast(word, src=0)
    return int(word)


def alone(command: str) -> None:
    """Ends a command that is not for torchrun; :class:`ConfigError` in the first process, quietly in the others."""
    if count() > 1 and not is_first():
        raise Terminated(0)
    if count() > 1:
        raise ConfigError(f"{command}: not under torchrun, which trains a single run")
