"""Runs in MLflow: their parameters, tags, artifacts and status, and metrics written off the training path."""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alphagrad.common import interrupts
from alphagrad.common.errors import ConfigError, StorageLost, Terminated
from alphagrad.common.words import squeezed
from alphagrad.lab.records.lifecycle import FINISHED, Life, Standing, life_of, note_beginning, note_end
from alphagrad.lab.records.search import FOLDER, HOST, NUMBER, PARENT, newest, next_number
from alphagrad.lab.records.untracked import Untracked
from alphagrad.lab.records.writer import NONFINITE, STEP, RunQueue, open_queue
from alphagrad.lab.store.address import NONE, hide, store_uri
from alphagrad.lab.store.artifacts import artifact_root, tell_other_place
from alphagrad.lab.store.bulk import Point
from alphagrad.lab.store.connection import experiment_id, open_store
from alphagrad.lab.store.patience import Patience

LOG = logging.getLogger("alphagrad")
PARENT_RUN = "ALPHAGRAD_PARENT_RUN_ID"
"""Environment variable that hands a multirun's parent run to its jobs."""
LAST_SECONDS = 10.0
"""How long the end of a run that was interrupted is tried to be written."""


class Tracker:
    """One MLflow run: metrics are queued by :meth:`metrics` and written by the process's writer.

    Whatever uses the store is tried again while it fails; :class:`StorageLost` comes once it failed for too long.

    Args:
        uri: the store.
        experiment: of the run.
        flush_seconds: between batches of metrics.
        retry_seconds: how long a store that fails is tried before it counts as lost.
        artifacts: of a new experiment; see :func:`alphagrad.lab.store.artifacts.artifact_root`.

    Raises:
        ConfigError: the store cannot be used.
        StorageLost: it did not answer.
    """

    tracks = True
    """Whether there is a store."""

    def __init__(
        self,
        uri: str,
        experiment: str,
        flush_seconds: float = 2.0,
        retry_seconds: float = 120.0,
        artifacts: str | None = None,
    ) -> None:
        self.patience = Patience.with_store(uri, retry_seconds)
        self.uri = uri
        self.client = open_store(uri, self.patience)
        self.experiment_id = experiment_id(self.client, experiment, artifacts or artifact_root(None, uri, "."))
        self.flush_seconds = flush_seconds
        self.run_id = ""
        self.number: int | None = None
        """The run's place among those of the store; None: after the newest."""
        self._queue: RunQueue | None = None
        self._ended = False
        self._position = ""

    @contextmanager
    def run(
        self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], resume: str | None = None
    ) -> Iterator[Tracker]:
        """A run that is finished, or has failed (an exception), once the block is left.

        It is stopped, so that it can go on, after Ctrl-C, a signal or :class:`StorageLost`.
        """
        try:
            with interrupts.deferred():  # else a run that the store has just created could be left RUNNING
                self._write(lambda: self.start(name, params, tags, resume))
            yield self
        except (KeyboardInterrupt, Terminated, StorageLost) as interruption:
            seconds = 0.0 if isinstance(interruption, StorageLost) else LAST_SECONDS
            self.end(Life(Standing.STOPPED, reason_of(interruption)), seconds)
            raise
        except BaseException as error:
            self.end(Life(Standing.FAILED, reason_of(error)))
            raise
        self.end()

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], resume: str | None = None) -> None:
        """Creates the run, a child of the study's if there is one; or goes on with the run ``resume``.

        Metrics that a resumed run has in the store already, at the same steps, are not written again.
        """
        from mlflow.entities import Param

        known: set[tuple[str, int]] = set()
        found: dict[str, str] = {}
        if resume is None:
            lineage = {PARENT: parent} if (parent := os.environ.get(PARENT_RUN)) else {}
            number = next_number(self.client) if self.number is None else self.number
            self.run_id = self._create(name, {**tags, **lineage, NUMBER: f"{number:012d}"})
        else:
            self.run_id = resume
            run, moments = self.client.get_run(resume), []
            found = run.data.tags
            for metric in run.data.metrics:
                points = self.client.get_metric_history(resume, metric)
                known |= {(metric, point.step) for point in points}
                moments += [point.timestamp for point in points]
            note_beginning(self.client, run, moments)
            if HOST in tags:
                self.client.set_tag(resume, HOST, tags[HOST])  # the others say where it began
            params = {key: value for key, value in params.items() if key not in run.data.params}
        listed = [Param(key, hide(str(value))) for key, value in params.items()]
        for start in range(0, len(listed), 100):  # MLflow's limit for parameters
            self.client.log_batch(self.run_id, params=listed[start : start + 100])
        raw, told = self.client.client, found.get(NONFINITE, "")
        self._queue = open_queue(raw, self.run_id, self.uri, self.flush_seconds, self.retry_seconds, known, told)

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        """A new run; the one that a store made whose answer was lost, if it did."""
        moment, tries = int(time.time() * 1000), 0
        client = self.client.client

        def create() -> str:
            nonlocal tries
            tries += 1
            if tries > 1:
                made = client.search_runs([self.experiment_id], f"attributes.start_time = {moment}")
                for run in made:
                    if run.info.run_name == name and tags.items() <= run.data.tags.items():
                        return str(run.info.run_id)
            return str(client.create_run(self.experiment_id, moment, dict(tags), name).info.run_id)

        return str(self.patience.persist(create))

    def _write(self, act: Callable[[], Any]) -> Any:
        """``act()``, where even what no second attempt changes leaves the run as one that can go on."""
        try:
            return act()
        except (StorageLost, ConfigError):
            raise
        except Exception as error:
            raise self.patience.lost(error) from error

    @property
    def retry_seconds(self) -> float:
        """How long a store that fails is tried."""
        return self.patience.seconds

    @retry_seconds.setter
    def retry_seconds(self, seconds: float) -> None:
        self.patience.seconds = seconds

    def parent(self) -> Any:
        """The study's run; None outside a study."""
        parent = os.environ.get(PARENT_RUN)
        return self.client.get_run(parent) if parent else None

    def open_run(self, folder: str) -> str | None:
        """The newest run in this folder that has not ended, by what the store knows."""
        found = newest(self.client, FOLDER, folder)
        return found.info.run_id if found is not None and life_of(found).can_go_on else None

    def another(self) -> Tracker:
        """A tracker for another run of the same experiment."""
        other = copy.copy(self)
        other.run_id, other.number, other._queue, other._ended = "", None, None, False
        return other

    def leave(self, run_id: str) -> None:
        """Stands for a run that has ended already and stays as it is."""
        self.run_id, self._ended = run_id, True

    def take_back(self, reason: str) -> None:
        """Ends the run and deletes it, because it is trained anew; MLflow can restore what it deletes."""
        if not self._ended:
            self.end(Life(Standing.TAKEN_BACK, reason))
            self.client.delete_run(self.run_id)

    def end(self, life: Life = FINISHED, seconds: float | None = None) -> None:
        """Writes what is left and how the run ended; once ended, a run stays as it is.

        Args:
            life: how it ended.
            seconds: how long a store that fails is tried at most.

        Raises:
            StorageLost: a run that was to be finished is stopped, because not all of it could be written.
        """
        if self._ended or not self.run_id:
            return
        self._ended = True
        lost: StorageLost | None = None
        with self.patience.closing(self.retry_seconds if seconds is None else seconds):
            try:
                if self._queue is not None:  # None where the run's creation failed half-way
                    self._queue.close(self.patience)
            except StorageLost as error:
                if life.finished:
                    lost, life = error, Life(Standing.STOPPED, reason_of(error))
                    self.patience.seconds = 0.0  # it has had its time
            try:
                if self._position:
                    self.client.set_tag(self.run_id, STEP, self._position)
                note_end(self.client, self.run_id, Life(life.standing, hide(life.reason)))
            except Exception as error:  # that it ended shows in its folder
                told = f"run {self.run_id}: that it is {life.standing} could not be written to the store"
                LOG.warning("%s (%s)", told, reason_of(error))
                if life.finished:
                    told = f"the run's end could not be written ({reason_of(error)})"
                    lost = StorageLost(f"{self.patience.what}: {told}")
        if lost is not None:
            raise lost

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Queues metrics of one step; nothing more for a run that has ended."""
        if self._ended or self._queue is None:
            return
        now = int(time.time() * 1000)
        self._queue.add((name, float(value), now, step) for name, value in values.items())

    def counted(self, prefix: str) -> int:
        """Where the count of metrics with this prefix goes on, after those that a resumed run has already."""
        known = set() if self._queue is None else self._queue.known
        return max((step + 1 for name, step in known if name.startswith(prefix)), default=0)

    def position(self, step: int, total: int) -> None:
        """Notes how far the run is; written with the next batch of metrics, and when the run ends."""
        if self._ended:
            return
        self._position = f"{step}/{total}"
        if self._queue is not None:
            self._queue.position = self._position

    def pending(self) -> list[Point]:
        """The metrics that the store has not acknowledged."""
        return [] if self._ended or self._queue is None else self._queue.pending()

    def send(self, points: Iterable[Point]) -> None:
        """Queues what :meth:`pending` was when the run stopped; what of it is logged again counts once."""
        if not self._ended and self._queue is not None:
            points = list(points)
            self._queue.add(points)
            self._queue.known |= {(point[0], point[3]) for point in points}

    def check(self) -> None:
        """Raises :class:`StorageLost` once the store has failed for too long."""
        if not self._ended and self._queue is not None:
            self._queue.check()

    def drain(self) -> None:
        """Returns once all metrics are in the store; :class:`StorageLost` if they cannot be."""
        if not self._ended and self._queue is not None:
            self._queue.drain(self.patience)

    def upload(self, path: Path) -> None:
        """Queues a file, which is copied into the run's artifacts as metrics are written."""
        if not self._ended and self._queue is not None:
            self._queue.upload(path)

    def waiting(self) -> list[str]:
        """The names of the files that the store has not taken yet."""
        return [] if self._ended or self._queue is None else [path.name for path in self._queue.files()]

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copies a file into the run's artifacts."""
        self._write(lambda: self.client.log_artifact(self.run_id, str(path), folder))

    def has_artifact(self, name: str) -> bool:
        """Whether the run's artifacts hold a file."""
        return name in {file.path for file in self.client.list_artifacts(self.run_id)}


def tracker_of(settings: Any, output_root: str | Path) -> Tracker | Untracked:
    """A tracker by the settings of ``tracking``.

    Raises:
        ConfigError: the store cannot be used.
        StorageLost: it did not answer.
    """
    uri = store_uri(settings.uri, output_root)
    if uri == NONE:
        return Untracked()
    artifacts = artifact_root(settings.artifacts, uri, output_root)
    tracker = Tracker(uri, settings.experiment, settings.flush_seconds, settings.retry_seconds, artifacts)
    if settings.artifacts is not None and artifacts is not None:
        tell_other_place(tracker.client, tracker.experiment_id, artifacts)
    return tracker


def reason_of(error: BaseException) -> str:
    """An exception in one line."""
    return hide(f"{type(error).__name__}: {squeezed(error, 5000)}".rstrip(": "))
