"""A store or disk that fails for a while: every use of it is tried again, for so long and no longer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from alphagrad.common import interrupts
from alphagrad.common.errors import ConfigError, StorageLost
from alphagrad.lab.store.address import hide, masked

LOG = logging.getLogger("alphagrad")
FIRST_DELAY, LONGEST_DELAY = 0.25, 10.0
"""Seconds between two attempts; each pause is twice the one before."""
FINAL = ("RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_PARAMETER_VALUE")
"""MLflow's words for what no second attempt changes."""


class Patience:
    """How long a store or disk that fails is tried.

    Args:
        what: it is, for messages.
        seconds: how long, from the first failure of an act.
    """

    def __init__(self, what: str, seconds: float) -> None:
        self.what, self.seconds = what, seconds
        self._closing = False

    @classmethod
    def with_store(cls, uri: str, seconds: float) -> Patience:
        """That with the store of this address."""
        return cls(f"tracking.uri={masked(uri)}", seconds)

    def persist(
        self,
        act: Callable[[], Any],
        pause: Callable[[float], Any] | None = None,
        failed: Callable[[], Any] = lambda: None,
    ) -> Any:
        """``act()``, tried again with growing pauses while it raises.

        Args:
            act: what uses the store or the disk.
            pause: waits so many seconds; by default asleep, and a signal that came is raised.
            failed: is called after each failure.

        Raises:
            StorageLost: it failed for too long.
            Exception: what no second attempt changes, as ``act`` raised it.
        """
        deadline, delay, told = time.monotonic() + self.seconds, FIRST_DELAY, False
        while True:
            try:
                return act()
            except Exception as error:
                if is_final(error):
                    raise
                if time.monotonic() + delay > deadline:
                    raise self.lost(error) from error
                if not told:
                    LOG.warning("%s: cannot be used now (%s); trying on", self.what, cause_of(error))
                    told = True
            failed()
            (pause or self._pause)(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    def lost(self, error: BaseException) -> StorageLost:
        """What to raise for good."""
        return StorageLost(f"{self.what}: cannot be used ({cause_of(error)})")

    @contextmanager
    def closing(self, seconds: float) -> Iterator[None]:
        """While it lasts a store is tried for so long at most, and a signal, which has been raised already, is not."""
        before = self.seconds
        self.seconds, self._closing = min(before, seconds), True
        try:
            yield
        finally:
            self.seconds, self._closing = before, False

    def _pause(self, seconds: float) -> None:
        time.sleep(seconds)
        if not self._closing and threading.current_thread() is threading.main_thread():
            interrupts.check()


class PatientClient:
    """An ``mlflow.MlflowClient`` each of whose calls is tried again while the store fails."""

    def __init__(self, client: Any, patience: Patience, failed: Callable[[], Any] = lambda: None) -> None:
        self.client, self._patience, self._failed = client, patience, failed

    def ask(self, act: Callable[[Any], Any]) -> Any:
        """``act(client)``, of the client as MLflow has it, tried again likewise."""
        return self._patience.persist(lambda: act(self.client), failed=self._failed)

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            return self._patience.persist(lambda: getattr(self.client, name)(*arguments, **more), failed=self._failed)

        return call


def is_final(error: Exception) -> bool:
    """Whether no second attempt can succeed."""
    known = isinstance(error, (ConfigError, StorageLost, TypeError, AttributeError, NameError))
    return known or getattr(error, "error_code", None) in FINAL


def cause_of(error: BaseException) -> str:
    """What lies behind an error of the store, in a line: MLflow and SQLAlchemy wrap it in theirs, with their SQL.

    What an error was raised *from* lies behind it, and what it repeats in its own words (MLflow's of a server).
    What it merely followed does not: while MLflow deals with one error (a metric that is there already) it may
    meet another (a full disk).
    """
    while (behind := error.__cause__ or _repeated(error)) is not None:
        error = behind
    return hide(" ".join(f"{type(error).__name__}: {error}".split()))[:300]


def _repeated(error: BaseException) -> BaseException | None:
    """The error that was dealt with when this one was raised, if this one tells of it."""
    before = error.__context__
    told = before is not None and not error.__suppress_context__ and str(before)
    return before if told and told in str(error) else None
