"""Processes that start at once: forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import forkserver
from multiprocessing.context import BaseContext, ForkServerContext
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import pytest


class Warm(ForkServerContext):
    """Starts processes as the ``spawn`` method does, but that they need not import anything first.

    They have the environment and the standard streams of the moment that they are started in, and nothing else of
    the process that starts them.
    """

    def Process(self, *, target: Callable[..., Any], args: tuple[Any, ...] = ()) -> BaseProcess:  # type: ignore[override]
        return super().Process(target=_run, args=(Surroundings(), target, args))


class Surroundings:
    """What a process has from the one that starts it; taken when it is sent, and taken on when it arrives."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _surround, (dict(os.environ), DupFd(1), DupFd(2))


def _surround(environment: dict[str, str], *streams: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, sent in enumerate(streams, start=1):
        descriptor = sent.detach()
        os.dup2(descriptor, number)
        os.close(descriptor)


def _run(surroundings: None, target: Callable[..., Any], args: tuple[Any, ...]) -> None:
    target(*args)


@lru_cache
def context() -> Warm:
    """How processes are made that have imported everything."""
    made = Warm()
    made.set_forkserver_preload(["warmed"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # where the server finds that
        forkserver.ensure_running()
    return made


@contextmanager
def spawning_warm() -> Iterator[None]:
    """While it is entered, who asks for the ``spawn`` method in this process gets :class:`Warm`."""
    get_context = multiprocessing.get_context

    def warm(method: str | None = None) -> BaseContext:
        return context() if method == "spawn" else get_context(method)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", warm)
        yield
