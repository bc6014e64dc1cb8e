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

HANGUP, ALARM = getattr(signal, "SIGHUP", None), getattr(signal, "SIGALRM", None)
"""Not there on Windows."""
SIGNALS = [s for s in (signal.SIGTERM, signal.SIGINT, HANGUP) if s is not None]
_received: list[int] = []
"""The signal that came, if any; a list, so that a handler can write to it."""
_deferring: list[None] = []
"""An entry for each :func:`deferred` that is entered."""
GRACE_SECONDS = 20.0
"""How long a signal waits for the end of an iteration; schedulers kill after 30 s."""
AGAIN_SECONDS = 0.05
"""Until what a callback has swallowed is raised again."""
TOGETHER_SECONDS = 2.0
"""Signals that come so soon after the first are the same wish: a terminal and a launcher both send one."""
_in_iteration: list[None] = []
"""An entry while a signal waits for the end of an iteration (:func:`at_ends_of_iterations`)."""
_since: list[float] = []
"""When the signal came that waits."""


class closing_runs_on_signals:
    """While it lasts, SIGTERM and SIGHUP raise :class:`Terminated` as Ctrl-C raises :class:`KeyboardInterrupt`.

    SIGHUP says that the terminal is closed; where it is ignored, as under nohup, it stays so.

    Only the first signal raises, so that a second one does not break off the closing of runs. An exception
    out of a signal handler can be swallowed by whatever code it hits, so training also calls :func:`check`;
    out of a callback that Python says it ignored, it is raised again.
    While a run trains, the signal waits for the end of the iteration, where the state can be saved.
    """

    def __enter__(self) -> None:
        _received.clear()
        heard = [s for s in SIGNALS if s != HANGUP or signal.getsignal(s) != signal.SIG_IGN]
        self._before = {s: signal.signal(s, self._handle) for s in heard}
        if ALARM is not None:
            self._before[ALARM] = signal.signal(ALARM, self._hurry)
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._swallowed

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        _wait_no_more()
        sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            signal.signal(number, handler)
        _received.clear()

    @staticmethod
    def _handle(number: int, _: object) -> None:
        if number == HANGUP:
            _leave_terminal()
        if _waits():
            if time.monotonic() - _since[0] > TOGETHER_SECONDS:
                _wait_no_more()
                check()
            return
        if _received:
            with suppress(OSError, ValueError, RuntimeError):  # nobody listens, or a line is being written
                print("closing the run, one moment", file=sys.stderr)
            return
        _received.append(number)
        if _in_iteration:
            _since[:] = [time.monotonic()]
            if ALARM is not None:
                signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)
            if not _parent:  # whoever started a worker says it
                with suppress(OSError, ValueError, RuntimeError):
                    print("alphagrad: stops at the end of this iteration; once more to stop at once", file=sys.stderr)
        elif not _deferring:
            check()

    @staticmethod
    def _hurry(number: int, _: object) -> None:
        if _waits():  # for too long
            _wait_no_more()
        if not _deferring:
            check()

    def _swallowed(self, lost: sys.UnraisableHookArgs) -> None:
        """Raises once more what came in a callback or a ``__del__``, out of which nothing can be raised."""
        if ALARM is None or not isinstance(lost.exc_value, (KeyboardInterrupt, Terminated)):
            self._hook(lost)
        elif not _waits():
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)


def _leave_terminal() -> None:
    """Sends what is written from now on nowhere: on a terminal that is gone, writing fails."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(stream).st_mode):
                os.dup2(nowhere, stream)
    os.close(nowhere)


def _waits() -> bool:
    return bool(_in_iteration and _since)


def _wait_no_more() -> None:
    _since.clear()
    _in_iteration.clear()
    if ALARM is not None:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def at_ends_of_iterations() -> Iterator[None]:
    """A signal that comes meanwhile raises at :func:`iteration_ended`, or after :data:`GRACE_SECONDS`."""
    _in_iteration.append(None)
    try:
        yield
    finally:
        _in_iteration.clear()


def came() -> bool:
    """Whether a signal has come."""
    return bool(_received)


def iteration_ended() -> None:
    """Raises the signal that came, if one did: what it waited for is over."""
    if _received:
        _wait_no_more()
        check()


def check() -> None:
    """Raises :class:`KeyboardInterrupt` or :class:`Terminated` if a signal came, even one already raised.

    Not while it waits for the end of an iteration.
    """
    if _received and not _waits():
        _wait_no_more()
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
"""Whether the process that :func:`end_with` follows lives."""


def end_with(lives: Callable[[], bool]) -> None:
    """In a worker: SIGTERM once another process no longer ``lives``, even by SIGKILL.

    So no run goes on behind the back of a study whose process is gone.
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
