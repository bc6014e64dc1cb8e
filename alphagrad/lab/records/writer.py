"""Metrics written to the store in batches, those of all runs of the process by one thread."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alphagrad.common.errors import StorageLost
from alphagrad.lab.store.bulk import Point, log_points
from alphagrad.lab.store.patience import Patience, cause_of, is_final

LOG = logging.getLogger("alphagrad")
BATCH = 1000
"""Metrics in one request: MLflow's limit."""
STEP = "alphagrad.step"
"""Tag that says how far a run is, "step/total"."""
NONFINITE = "alphagrad.nonfinite"
"""Tag that names the metrics that were not finite, and where first: MLflow shows an infinite value as a number."""
LARGEST_SHARE = 0.05
"""Of the time that writing metrics may take."""


class RunQueue:
    """The metrics of one run on their way to the store.

    Args:
        writer: takes them.
        run_id: the run.
        known: what the store has already, (metric, step), which is not written again.
        nonfinite: the run's tag :data:`NONFINITE` as it is.
    """

    def __init__(self, writer: Writer, run_id: str, known: set[tuple[str, int]], nonfinite: str = "") -> None:
        self.writer, self.run_id, self.known = writer, run_id, known
        self.position = ""
        self.failure: Exception | None = None
        self._points: list[Point] = []
        self._files: dict[Path, int] = {}
        self._lock = threading.Lock()
        self._told = {told.rpartition(": ")[0]: told for told in nonfinite.split("; ") if told}

    def add(self, points: Iterable[Point]) -> None:
        """Queues points."""
        new = [p for p in points if (p[0], p[3]) not in self.known] if self.known else list(points)
        with self._lock:
            self._points += new

    def pending(self) -> list[Point]:
        """What the store has not acknowledged yet."""
        with self._lock:
            return list(self._points)

    def upload(self, path: Path) -> None:
        """Queues a file for the run's artifacts."""
        with self._lock:
            self._files[path] = self._files.get(path, 0) + 1

    def files(self) -> dict[Path, int]:
        """The files that the store has not taken yet, and how often each was queued."""
        with self._lock:
            return dict(self._files)

    def check(self) -> None:
        """Raises :class:`StorageLost` once the store has failed for too long."""
        failure = self.failure or self.writer.failure
        if failure is not None:
            behind = failure.__cause__ if isinstance(failure, StorageLost) else failure
            assert isinstance(behind, Exception)
            told = f"{self.writer.patience.what}: files and metrics can no longer be written"
            raise StorageLost(f"{told} ({cause_of(behind)})") from behind

    def drain(self, patience: Patience) -> None:
        """Returns once everything queued is in the store; raises :class:`StorageLost` if it cannot be."""
        self.check()
        try:
            patience.persist(lambda: self.writer.write(self))
        except Exception as error:
            self.failure = error
            self.check()

    def close(self, patience: Patience) -> None:
        """Writes what is left and takes the run out of the writer's hands.

        Raises:
            StorageLost: something could not be written.
        """
        try:
            self.drain(patience)
        finally:
            self.writer.forget(self)

    def batch(self) -> tuple[list[Point], dict[str, str]]:
        """What is to be written next, and tags."""
        with self._lock:
            points = self._points[:BATCH]
        tags = {STEP: self.position} if points and self.position else {}
        for name, value, _, step in points:
            if not math.isfinite(value) and name not in self._told:
                self._told[name] = f"{name}: {value} at step {step}"
                tags[NONFINITE] = ""
        if NONFINITE in tags:
            tags[NONFINITE] = "; ".join(self._told.values())[:4000]
        return points, tags

    def written(self, count: int) -> None:
        """Takes out points that the store has."""
        with self._lock:
            del self._points[:count]

    def taken(self, path: Path, times: int) -> None:
        """Takes out a file that the store has, unless it was queued anew meanwhile."""
        with self._lock:
            if self._files.get(path) == times:
                del self._files[path]


class Writer:
    """Writes the queues of all runs of this process, one after the other, every ``flush_seconds``.

    With many runs it writes less often, so that it takes at most :data:`LARGEST_SHARE` of the time.
    """

    def __init__(self, client: Any, uri: str, flush_seconds: float, retry_seconds: float) -> None:
        self.client, self.flush_seconds = client, flush_seconds
        self.patience = Patience.with_store(uri, retry_seconds)
        self.failure: Exception | None = None
        self._pause = flush_seconds
        self._queues: dict[str, RunQueue] = {}
        self._writing, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow-writer", daemon=True)

    def open(self, queue: RunQueue) -> None:
        """Takes a run's queue."""
        self._queues[queue.run_id] = queue
        if not self._thread.ident:
            self._thread.start()

    def forget(self, queue: RunQueue) -> None:
        """Leaves a run's queue alone; with the last one the thread ends."""
        with _registry:
            self._queues.pop(queue.run_id, None)
            if self._queues:
                return
            for key in [key for key, writer in _writers.items() if writer is self]:
                del _writers[key]
        self._stop.set()
        self._thread.join(1.0)  # one that waits for a store is left to itself

    def write(self, queue: RunQueue) -> None:
        """Writes what a queue holds."""
        with self._writing:
            while True:
                points, tags = queue.batch()
                if not points:
                    break
                log_points(self.client, queue.run_id, points, tags)
                queue.written(len(points))
            for path, times in queue.files().items():
                if path.exists():
                    self.client.log_artifact(queue.run_id, str(path))
                else:
                    LOG.warning("%s is not there any more, and so not among the artifacts of its run", path)
                queue.taken(path, times)

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                self.patience.persist(self._write_all, pause=self._stop.wait)
            except Exception as error:
                self.failure = error  # raised where the training thread can stop
                return

    def _write_all(self) -> None:
        begun = time.monotonic()
        for queue in list(self._queues.values()):
            if self._stop.is_set():
                return
            if queue.failure is None:
                try:
                    self.write(queue)
                except Exception as error:
                    if not is_final(error):
                        raise  # the store's fault, and so every run's
                    queue.failure = error
        self._pause = max(self.flush_seconds, (time.monotonic() - begun) / LARGEST_SHARE)


_writers: dict[tuple[int, str, float, float], Writer] = {}
_registry = threading.Lock()


def open_queue(
    client: Any,
    run_id: str,
    uri: str,
    flush_seconds: float,
    retry_seconds: float,
    known: set[tuple[str, int]],
    nonfinite: str = "",
) -> RunQueue:
    """A queue for a run, emptied by the one writer of this process.

    Args:
        client: of the store.
        run_id: the run.
        uri: the store's address.
        flush_seconds: between batches.
        retry_seconds: how long a store that fails is tried.
        known: what the store has already, (metric, step), which is not written again.
        nonfinite: the run's tag :data:`NONFINITE` as it is.
    """
    key = (os.getpid(), uri, flush_seconds, retry_seconds)
    with _registry:
        writer = _writers.get(key)
        if writer is None or writer.failure is not None:
            writer = _writers[key] = Writer(client, uri, flush_seconds, retry_seconds)
        queue = RunQueue(writer, run_id, known, nonfinite)
        writer.open(queue)
    return queue
