"""Runs in MLflow: their parameters, tags, artifacts and status, and metrics written off the training path."""

from __future__ import annotations

import os
import platform
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alphagrad.lab.compose import JOB_KEY
from alphagrad.lab.store import artifact_root, check_store, experiment_id, open_store, store_uri

PARENT_RUN = "ALPHAGRAD_PARENT_RUN_ID"
"""Environment variable that hands a multirun's parent run to its jobs."""
KIND = "alphagrad.kind"
STUDY_KEY = "alphagrad.study"
REASON = "alphagrad.reason"
"""Tag that says why a run did not finish."""
BATCH = 1000
"""Metrics in one request: MLflow's limit."""
VERSIONS = ("alphagrad", "torch", "numpy", "gymnasium", "mlflow", "hydra-core", "pytorch-optimizer")


class Tracker:
    """One MLflow run: metrics are queued by :meth:`metrics` and written by a thread of its own.

    Raises:
        ConfigError: the store cannot be used.
    """

    def __init__(self, uri: str, experiment: str, flush_seconds: float = 2.0, artifacts: str | None = None) -> None:
        check_store(uri)
        self.uri = uri
        self.client = open_store(uri)
        self.experiment_id = experiment_id(self.client, experiment, artifacts or artifact_root(None, uri, "."))
        self.flush_seconds = flush_seconds
        self.run_id = ""
        self._queue: list[Any] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        self._ended = False

    @contextmanager
    def run(
        self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], resume: str | None = None
    ) -> Iterator[Tracker]:
        """A run that is FINISHED, FAILED (an exception) or KILLED (Ctrl-C, SIGTERM) once the block is left."""
        try:
            self.start(name, params, tags, resume)
            yield self
        except (KeyboardInterrupt, SystemExit) as interruption:
            self.end("KILLED", reason_of(interruption))
            raise
        except BaseException as error:
            self.end("FAILED", reason_of(error))
            raise
        self.end("FINISHED")

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], resume: str | None = None) -> None:
        """Creates the run, a child of the study's if there is one; or goes on with the run ``resume``."""
        from mlflow.entities import Param

        parent = os.environ.get(PARENT_RUN)
        lineage = {"mlflow.parentRunId": parent} if parent else {}
        if resume is None:
            created = self.client.create_run(self.experiment_id, run_name=name, tags={**tags, **lineage})
            self.run_id = created.info.run_id
        else:
            self.run_id = resume
            self.client.update_run(resume, status="RUNNING")
            if REASON in self.client.get_run(resume).data.tags:
                self.client.delete_tag(resume, REASON)  # what stopped it before
        listed = [Param(key, str(value)) for key, value in params.items()]
        for start in range(0, len(listed), 100):  # MLflow's limit for parameters
            self.client.log_batch(self.run_id, params=listed[start : start + 100])
        self._thread = threading.Thread(target=self._write, name="mlflow-writer", daemon=True)
        self._thread.start()

    def end(self, status: str, reason: str = "") -> None:
        """Writes what is left and gives the run its status; once ended, a run stays as it is.

        Raises:
            RuntimeError: a run that was to be FINISHED is FAILED, because its metrics could not be written.
        """
        if self._ended or not self.run_id:
            return
        self._ended = True
        lost: Exception | None = None
        try:
            self._stop()
        except Exception as error:
            lost = error if status == "FINISHED" else None
            status, reason = ("FAILED", reason_of(error)) if lost else (status, reason)
        if reason:
            self.client.set_tag(self.run_id, REASON, reason)
        self.client.set_terminated(self.run_id, status=status)
        if lost is not None:
            raise lost

    def unfinished(self, key: str) -> str | None:
        """The run id of the newest study with this key, unless it finished or is still running."""
        condition = f"tags.`{STUDY_KEY}` = '{key}'"
        found = self.client.search_runs([self.experiment_id], condition, max_results=1, order_by=["start_time DESC"])
        return found[0].info.run_id if found and found[0].info.status in ("FAILED", "KILLED") else None

    def finished_children(self, parent: str) -> set[str]:
        """The keys of a study's finished jobs."""
        condition = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = 'FINISHED'"
        keys: set[str] = set()
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], condition, max_results=1000, page_token=token)
            keys |= {run.data.tags.get(JOB_KEY, "") for run in page}
            token = page.token
            if not token:
                return keys

    @contextmanager
    def as_parent(self) -> Iterator[None]:
        """Runs started inside, in any process, become this run's children; none is left RUNNING."""
        os.environ[PARENT_RUN] = self.run_id
        try:
            yield
        finally:
            del os.environ[PARENT_RUN]
            self._close_children()

    def _close_children(self) -> None:
        """Children that still say RUNNING, though no process of the study is left, become KILLED."""
        condition = f"tags.`mlflow.parentRunId` = '{self.run_id}' and attributes.status = 'RUNNING'"
        while left := self.client.search_runs([self.experiment_id], condition, max_results=1000):
            for run in left:
                self.client.set_tag(run.info.run_id, REASON, "its process was gone when the study ended")
                self.client.set_terminated(run.info.run_id, status="KILLED")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Queues metrics of one step; nothing more for a run that has ended."""
        if self._ended:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(name, float(value), now, step) for name, value in values.items()]
        with self._lock:
            self._queue += points
        if self._failure is not None:
            raise RuntimeError(f"tracking.uri={self.uri}: metrics can no longer be written") from self._failure

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copies a file into the run's artifacts."""
        self.client.log_artifact(self.run_id, str(path), folder)

    def _write(self) -> None:
        while not self._closing.wait(self.flush_seconds):
            try:
                self._flush()
            except Exception as error:
                self._failure = error  # raised by the next call from the training thread
                return

    def _flush(self) -> None:
        while True:
            with self._lock:
                batch = self._queue[:BATCH]
            if not batch:
                return
            self.client.log_batch(self.run_id, metrics=batch)
            with self._lock:
                del self._queue[: len(batch)]

    def _stop(self) -> None:
        """Writes what is left; raises what the writer met."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise RuntimeError(f"tracking.uri={self.uri}: metrics could not be written") from self._failure
        self._flush()


def reason_of(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")[:5000]


@contextmanager
def study(
    uri: str, experiment: str, name: str, key: str, tags: Mapping[str, str], artifacts: str | None = None
) -> Iterator[set[str]]:
    """The parent run of a multirun, as a context; jobs started inside become its children, in any process.

    The newest study with this ``key`` that was not finished goes on; otherwise a new one starts.

    Yields:
        The keys (:data:`alphagrad.lab.compose.JOB_KEY`) of the jobs that are finished already.
    """
    tracker = Tracker(uri, experiment, artifacts=artifacts)
    before = tracker.unfinished(key)
    finished = tracker.finished_children(before) if before else set()
    with tracker.run(name, {}, {**tags, KIND: "study", STUDY_KEY: key}, resume=before), tracker.as_parent():
        yield finished


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


__all__ = ["Tracker", "git_commit", "provenance", "store_uri", "study"]
