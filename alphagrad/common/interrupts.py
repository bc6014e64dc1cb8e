"""Ctrl-C, SIGTERM and SIGHUP: the runs are closed first, then the process ends."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from alphagrad.common.errors import Terminated

HANGUP = getattr(signal, "SIGHUP", None)
"""Not there on Windows."""
SIGNALS = [s for s in (signal.SIGTERM, signal.SIGINT, HANGUP) if s is not None]
_received: list[int] = []
"""The signal that came, if any; a list, so that a handler can write to it."""
_deferring: list[None] = []
"""An entry for each :func:`deferred` that is entered."""


class closing_runs_on_signals:
    """While it lasts, SIGTERM and SIGHUP raise :class:`Terminated` as Ctrl-C raises :class:`KeyboardInterrupt`.

    SIGHUP says that the terminal is closed; where it is ignored, as under nohup, it stays so.

    Only the first signal raises, so that a second one does not break off the closing of runs. An exception
    out of a signal handler can be swallowed by whatever code it hits, so training also calls :func:`check`.
    """

    def __enter__(self) -> None:
        _received.clear()
        heard = [s for s in SIGNALS if s == signal.SIGINT or signal.getsignal(s) != signal.SIG_IGN]
        self._before = {s: signal.signal(s, self._handle) for s in heard}

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        _received.clear()

    @staticmethod
    def _handle(number: int, _: object) -> None:
        if number == HANGUP:
            _leave_terminal()
        if _received:
            with suppress(OSError, ValueError, RuntimeError):  # nobody listens, or a line is being written
                print("closing the run, one moment", file=sys.stderr)
            return
        _received.append(number)
        if not _deferring:
            check()


def _leave_terminal() -> None:
    """Sends what is written from now on nowhere: on a terminal that is gone, writing fails."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(stream).st_mode):
                os.dup2(nowhere, stream)
    os.close(nowhere)


def check() -> None:
    """Raises :class:`KeyboardInterrupt` or :class:`Terminated` if a signal came, even one already raised."""
    if _received:
        if _received[0] == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(128 + _received[0])


@contextmanager
def no_exit() -> Iterator[None]:
    """Around a user's code: its ``sys.exit()`` becomes a ``RuntimeError``, so that it fails as other code does."""
    try:
        yield
    except SystemExit as left:
        check()
        if isinstance(left, Terminated):
            raise
        raise RuntimeError(f"sys.exit({left.code!r}) was called by code that is used here") from left


@contextmanager
def deferred() -> Iterator[None]:
    """A signal that comes meanwhile raises at the end: for what must not be left half done."""
    _deferring.append(None)
    try:
        yield
    finally:
        _deferring.pop()
    check()


PARENT_SECONDS = 0.5
"""Between looks whether a worker's parent is there."""
_parent: list[Callable[[], bool]] = []
"""Whether the process that :func:`follow` follows lives."""


def end_with(lives: Callable[[], bool]) -> None:
    """In a worker: SIGTERM once another process no longer ``lives``, even by SIGKILL.

    So no run goes on behind the back of a study whose driver is gone.
    """
    _parent[:] = [lives]

    def watch() -> None:
        while lives():
            time.sleep(PARENT_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def orphaned() -> bool:
    """Whether the process that is followed is gone."""
    return bool(_parent) and not _parent[0]()
