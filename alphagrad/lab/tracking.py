"""Runs in MLflow: their parameters, tags, artifacts and status, and metrics written off the training path."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alphagrad.lab import interrupts
from alphagrad.lab.errors import StorageLost
from alphagrad.lab.store import artifact_root, check_store, experiment_id, open_store
from alphagrad.lab.writer import STEP, MetricWriter, Point

LOG = logging.getLogger("alphagrad")
PARENT_RUN = "ALPHAGRAD_PARENT_RUN_ID"
"""Environment variable that hands a multirun's parent run to its jobs."""
REASON = "alphagrad.reason"
"""Tag that says why a run did not finish."""
PRUNED = "pruned"
"""How the reason of a run that a tuning ended begins: KILLED, yet it does not go on."""
DIVERGED = "diverged"
"""How the reason of a run that turned non-finite begins: FAILED, and it cannot go on."""
FOLDER, HOST = "output_folder", "host"
"""Tags that say where a run is written, and on which machine it trains."""
VERSIONS = ("alphagrad", "torch", "numpy", "gymnasium", "mlflow", "hydra-core", "pytorch-optimizer")


class Tracker:
    """One MLflow run: metrics are queued by :meth:`metrics` and written by a thread of its own.

    Args:
        uri: the store.
        experiment: of the run.
        flush_seconds: between batches of metrics.
        retry_seconds: how long a store that fails is tried before it counts as lost.
        artifacts: of a new experiment; see :func:`alphagrad.lab.store.artifact_root`.

    Raises:
        ConfigError: the store cannot be used.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        flush_seconds: float = 2.0,
        retry_seconds: float = 120.0,
        artifacts: str | None = None,
    ) -> None:
        check_store(uri)
        self.uri = uri
        self.client = open_store(uri)
        self.experiment_id = experiment_id(self.client, experiment, artifacts or artifact_root(None, uri, "."))
        self.flush_seconds, self.retry_seconds = flush_seconds, retry_seconds
        self.run_id = ""
        self._writer: MetricWriter | None = None
        self._ended = False
        self._position = ""

    @contextmanager
    def run(
        self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], resume: str | None = None
    ) -> Iterator[Tracker]:
        """A run that is FINISHED or FAILED (an exception) once the block is left.

        It is KILLED, which says that it can go on, after Ctrl-C, SIGTERM or :class:`StorageLost`.
        """
        try:
            with interrupts.deferred():  # else a run that the store has just created could be left RUNNING
                self.start(name, params, tags, resume)
            yield self
        except (KeyboardInterrupt, SystemExit, StorageLost) as interruption:
            self.end("KILLED", reason_of(interruption))
            raise
        except BaseException as error:
            self.end("FAILED", reason_of(error))
            raise
        self.end("FINISHED")

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], resume: str | None = None) -> None:
        """Creates the run, a child of the study's if there is one; or goes on with the run ``resume``.

        Metrics that a resumed run has in the store already, at the same steps, are not written again.
        """
        from mlflow.entities import Param

        parent = os.environ.get(PARENT_RUN)
        lineage = {"mlflow.parentRunId": parent} if parent else {}
        known: set[tuple[str, int]] = set()
        if resume is None:
            created = self.client.create_run(self.experiment_id, run_name=name, tags={**tags, **lineage})
            self.run_id = created.info.run_id
        else:
            self.run_id = resume
            found = self.client.get_run(resume).data
            self.client.update_run(resume, status="RUNNING")
            if REASON in found.tags:
                self.client.delete_tag(resume, REASON)  # what stopped it before
            if HOST in tags:
                self.client.set_tag(resume, HOST, tags[HOST])  # the others say where it began
            params = {key: value for key, value in params.items() if key not in found.params}
            for metric in found.metrics:
                known |= {(metric, point.step) for point in self.client.get_metric_history(resume, metric)}
        listed = [Param(key, str(value)) for key, value in params.items()]
        for start in range(0, len(listed), 100):  # MLflow's limit for parameters
            self.client.log_batch(self.run_id, params=listed[start : start + 100])
        self._writer = MetricWriter(self.client, self.run_id, self.uri, self.flush_seconds, self.retry_seconds, known)

    def open_run(self, folder: str) -> str | None:
        """The newest run in this folder that has not ended, by what the store knows."""
        condition = f"tags.`{FOLDER}` = '{folder}'"
        found = self.client.search_runs([self.experiment_id], condition, max_results=1, order_by=["start_time DESC"])
        return found[0].info.run_id if found and can_go_on(found[0]) else None

    def leave(self, run_id: str) -> None:
        """Stands for a run that has ended already and stays as it is."""
        self.run_id, self._ended = run_id, True

    def take_back(self, reason: str) -> None:
        """Ends the run and deletes it, because it is trained anew; MLflow can restore what it deletes."""
        if not self._ended:
            self.end("KILLED", reason)
            self.client.delete_run(self.run_id)

    def end(self, status: str, reason: str = "") -> None:
        """Writes what is left and gives the run its status; once ended, a run stays as it is.

        Raises:
            StorageLost: a run that was to be FINISHED is KILLED, because not all of it could be written.
        """
        if self._ended or not self.run_id:
            return
        self._ended = True
        lost: StorageLost | None = None
        try:
            if self._writer is not None:  # None where the run's creation failed half-way
                self._writer.close(patient=status == "FINISHED")
        except StorageLost as error:
            if status == "FINISHED":
                lost, status, reason = error, "KILLED", reason_of(error)

        def write() -> None:
            if reason:
                self.client.set_tag(self.run_id, REASON, reason)
            if self._position:
                self.client.set_tag(self.run_id, STEP, self._position)
            self.client.set_terminated(self.run_id, status=status)

        try:
            # a run that is broken off is not kept waiting for its store: that it ended shows in its folder
            self._writer.persist(write) if self._writer is not None and status == "FINISHED" else write()
        except Exception as error:
            LOG.warning("run %s: %s could not be written to the store (%s)", self.run_id, status, reason_of(error))
            if status == "FINISHED":
                lost = StorageLost(f"tracking.uri={self.uri}: the run's end could not be written ({reason_of(error)})")
        if lost is not None:
            raise lost

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Queues metrics of one step; nothing more for a run that has ended."""
        if self._ended or self._writer is None:
            return
        now = int(time.time() * 1000)
        self._writer.add((name, float(value), now, step) for name, value in values.items())

    def position(self, step: int, total: int) -> None:
        """Notes how far the run is; written with the next batch of metrics, and when the run ends."""
        if self._ended:
            return
        self._position = f"{step}/{total}"
        if self._writer is not None:
            self._writer.position = self._position

    def pending(self) -> list[Point]:
        """The metrics that the store has not acknowledged."""
        return [] if self._ended or self._writer is None else self._writer.pending()

    def send(self, points: Iterable[Point]) -> None:
        """Queues what :meth:`pending` was when the run stopped; what of it is logged again counts once."""
        if not self._ended and self._writer is not None:
            points = list(points)
            self._writer.add(points)
            self._writer.known |= {(point[0], point[3]) for point in points}

    def check(self) -> None:
        """Raises :class:`StorageLost` once the store has failed for too long."""
        if not self._ended and self._writer is not None:
            self._writer.check()

    def drain(self) -> None:
        """Returns once all metrics are in the store; :class:`StorageLost` if they cannot be."""
        if not self._ended and self._writer is not None:
            self._writer.drain()

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copies a file into the run's artifacts."""
        self.client.log_artifact(self.run_id, str(path), folder)


def is_over(status: str, reason: str) -> bool:
    """Whether a run of this status and reason can never go on, whoever asks for it."""
    return status == "FINISHED" or reason.startswith((DIVERGED, PRUNED))


def can_go_on(run: Any) -> bool:
    """Whether a run of the store was stopped, or still trains; one that was pruned has ended."""
    over = is_over(run.info.status, run.data.tags.get(REASON, ""))
    return run.info.status in ("RUNNING", "KILLED") and not over and not is_deleted(run)


def recorded(client: Any, run_id: str) -> Any:
    """A run of the store; None if it has none of this id, as one that was set up anew."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        LOG.warning("run %s is not in the store any more", run_id)
        return None


def is_deleted(run: Any) -> bool:
    """Whether a run of the store was taken back, by :meth:`Tracker.take_back` or by the user."""
    return bool(run.info.lifecycle_stage != "active")


def reason_of(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")[:5000]


def provenance() -> dict[str, str]:
    """Tags that let a number be traced: commit and package versions."""
    tags = {"python": platform.python_version()}
    for package in VERSIONS:
        try:
            tags[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            tags[f"version.{package}"] = "not installed"
    commit = git_commit()
    if commit:
        tags["mlflow.source.git.commit"] = commit
    return tags


def git_commit() -> str | None:
    """The commit of the checkout alphagrad runs from, marked ``-dirty`` if it was changed; None outside one."""
    here = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", str(here), "status", "--porcelain", "--untracked-files=no"],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changed else commit
