"""How the processor computes while a run trains."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

FIRST_SECONDS = 12
"""What torch takes to compile a recipe of reinforcement learning, on two cores."""


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Training: torch and NumPy's BLAS on ``threads`` threads, subnormal numbers taken as 0.

    Where a unit's gradient has become exactly 0, as a dead ReLU's does, Adam's averages decay into the
    subnormal numbers (below 1.2e-38 in float32) and stay there, because 0.9 of the smallest one rounds to
    itself. Processors compute with these many times slower: Adam's step on a DQN of five runs took four
    times as long.

    NumPy does not warn of overflow: a run that diverges says so itself.
    """
    torch.set_num_threads(threads)
    before = flushes()
    torch.set_flush_denormal(True)  # does nothing where the processor cannot
    try:
        with threadpool_limits(threads, user_api="blas"), np.errstate(over="ignore", invalid="ignore"):
            yield
    finally:
        torch.set_flush_denormal(before)


def compiling(recipe: Any) -> str:
    """What a recipe's run does before its first steps, for people; empty where nothing is compiled."""
    settings = getattr(recipe, "settings", None)
    if not getattr(recipe, "compiles", getattr(settings, "compile", False) is True):
        return ""
    cache = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or _default_cache())
    known = cache.is_dir() and any(cache.iterdir())
    return "compiling" if known else f"compiling (first time, about {FIRST_SECONDS} s)"


def _default_cache() -> str:
    """Where torch keeps what it has compiled; to ask itself would take seconds."""
    return os.path.join(tempfile.gettempdir(), f"torchinductor_{getpass.getuser()}")


def flushes() -> bool:
    """Whether this thread takes subnormal numbers as 0."""
    return not torch.tensor(torch.finfo(torch.float32).tiny).div(2).item()
