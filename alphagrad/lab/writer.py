"""Metrics written to the store in batches by a thread of its own, which outlasts a store that fails for a while."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from alphagrad.lab.errors import StorageLost

LOG = logging.getLogger("alphagrad")
BATCH = 1000
"""Metrics in one request: MLflow's limit."""
STEP = "alphagrad.step"
"""Tag that says how far a run is, "step/total"."""
FIRST_DELAY, LONGEST_DELAY = 0.25, 10.0
"""Seconds between attempts to write; each is twice the one before."""

Point = tuple[str, float, int, int]
"""Metric, value, time in ms, step."""


class MetricWriter:
    """A queue of one run's metrics.

    Args:
        client: of the store.
        run_id: the run.
        uri: the store's address, for messages.
        flush_seconds: between batches.
        retry_seconds: how long a store that fails is tried.
        known: what the store has already, (metric, step), which is not written again.
    """

    def __init__(
        self,
        client: Any,
        run_id: str,
        uri: str,
        flush_seconds: float,
        retry_seconds: float,
        known: set[tuple[str, int]],
    ) -> None:
        self.client, self.run_id, self.uri = client, run_id, uri
        self.flush_seconds, self.retry_seconds, self.known = flush_seconds, retry_seconds, known
        self.position = ""
        self._queue: list[Point] = []
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._closing, self._hurry = threading.Event(), threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="mlflow-writer", daemon=True)
        self._thread.start()

    def add(self, points: Iterable[Point]) -> None:
        """Queues points."""
        new = [p for p in points if (p[0], p[3]) not in self.known] if self.known else list(points)
        with self._lock:
            self._queue += new

    def pending(self) -> list[Point]:
        """What the store has not acknowledged yet."""
        with self._lock:
            return list(self._queue)

    def check(self) -> None:
        """Raises :class:`StorageLost` once the store has failed for too long."""
        if self._failure is not None:
            told = root_of(self._failure)
            raise StorageLost(f"tracking.uri={self.uri}: metrics can no longer be written ({told})") from self._failure

    def drain(self) -> None:
        """Returns once everything queued is in the store; raises :class:`StorageLost` if it cannot be."""
        self.check()
        try:
            self.persist(self._flush)
        except Exception as error:
            self._failure = error
            self.check()

    def close(self, patient: bool) -> None:
        """Writes what is left and ends the thread; unless ``patient``, a store that fails is not tried again.

        Raises:
            StorageLost: something could not be written.
        """
        if not patient:
            self._hurry.set()
        self._closing.set()
        self._thread.join()
        self.drain()

    def persist(self, act: Callable[[], Any]) -> Any:
        """``act()``, tried again with growing pauses while it raises, for ``retry_seconds``; its last error then."""
        deadline, delay, told = time.monotonic() + self.retry_seconds, FIRST_DELAY, False
        while True:
            try:
                return act()
            except Exception as error:
                if self._hurry.is_set() or time.monotonic() + delay > deadline:
                    raise
                if not told:
                    LOG.warning("tracking.uri=%s does not take metrics (%s); trying on", self.uri, root_of(error))
                    told = True
            self._hurry.wait(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    def _run(self) -> None:
        while not self._closing.wait(self.flush_seconds):
            try:
                self.persist(self._flush)
            except Exception as error:
                self._failure = error  # raised where the training thread can stop
                return

    def _flush(self) -> None:
        from mlflow.entities import Metric, RunTag

        with self._writing:
            while True:
                with self._lock:
                    batch = self._queue[:BATCH]
                if not batch:
                    return
                tags = [RunTag(STEP, self.position)] if self.position else []
                self.client.log_batch(self.run_id, metrics=[Metric(*point) for point in batch], tags=tags)
                with self._lock:
                    del self._queue[: len(batch)]


def root_of(error: BaseException) -> str:
    """What lies behind an error of the store, in a line: MLflow and SQLAlchemy wrap it in theirs, with their SQL.

    What an error was raised *from* lies behind it, and what it repeats in its own words (MLflow's of a server).
    What it merely followed does not: while MLflow deals with one error (a metric that is there already) it may
    meet another (a full disk).
    """
    while (behind := error.__cause__ or _repeated(error)) is not None:
        error = behind
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _repeated(error: BaseException) -> BaseException | None:
    """The error that was dealt with when this one was raised, if this one tells of it."""
    before = error.__context__
    told = before is not None and not error.__suppress_context__ and str(before)
    return before if told and told in str(error) else None
