"""The files that runs leave in their folders, written at the next occasion where a disk does not take them now."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from alphagrad.lab.records.checkpoint import save_atomically
from alphagrad.lab.records.folder import TRAJECTORY
from alphagrad.lab.store.patience import Patience

LOG = logging.getLogger("alphagrad")


class KeptFiles:
    """Writes files whole or not at all, and keeps in mind those that could not be written.

    Args:
        seconds: how long a disk that fails is tried.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waiting: dict[Path, tuple[Callable[[], None], Callable[[], None]]] = {}
        self._fails_since: float | None = None

    def write(self, path: Path, write: Callable[[], None], done: Callable[[], None]) -> None:
        """``write()``, which makes the file, then ``done()``; at a later :meth:`again` if the disk does not take it."""
        self._waiting[path] = write, done
        self._attempt()

    def again(self) -> None:
        """Writes what waits.

        Raises:
            OSError: the disk has failed for too long.
        """
        error = self._attempt()
        if error is not None and time.monotonic() - (self._fails_since or 0.0) >= self.seconds:
            raise error

    def finish(self) -> None:
        """Returns once all is written; :class:`StorageLost` if that takes too long."""
        for path in list(self._waiting):
            Patience(str(path), self.seconds).persist(self._raising)

    def _raising(self) -> None:
        error = self._attempt()
        if error is not None:
            raise error

    def _attempt(self) -> OSError | None:
        for path, (write, done) in list(self._waiting.items()):
            try:
                write()
            except OSError as error:
                if self._fails_since is None:
                    self._fails_since = time.monotonic()
                    LOG.warning("%s cannot be written (%s); trying on", path, error)
                return error
            del self._waiting[path]
            done()
        self._fails_since = None
        return None


def passed(every: int | None, before: int, step: int) -> bool:
    """Whether a step is the first one reached, or there is a multiple of ``every`` since the one before it."""
    return every is not None and (before == 0 or step // every > before // every)


def keep_on_the_way(files: KeptFiles, folder: Path, step: int, model: Mapping[str, Any]) -> None:
    """Keeps a run's model for good, without the states of its optimizers, which may be larger than all else."""
    # a copy: the disk may take it later
    kept = copy.deepcopy({name: value for name, value in model.items() if not name.endswith("optimizer")})
    path = folder / TRAJECTORY / f"step-{step:012d}.pt"

    def write() -> None:
        path.parent.mkdir(exist_ok=True)
        save_atomically(kept, path)

    files.write(path, write, lambda: None)
