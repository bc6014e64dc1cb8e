"""A study in the store: its parent run, the state of every job, and which jobs a restart runs."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alphagrad.lab.compose import JOB_KEY
from alphagrad.lab.errors import ConfigError, StorageLost
from alphagrad.lab.folder import RUN_ID, forget, is_held, is_training, run_id_of, text_of, tidy, write_whole
from alphagrad.lab.patience import Patience
from alphagrad.lab.records import FOLDER, HOST, NEWEST_FIRST, REASON, is_over, newest
from alphagrad.lab.tracking import PARENT_RUN, Tracker
from alphagrad.lab.untracked import Untracked
from alphagrad.lab.words import squeezed
from alphagrad.lab.writer import STEP

LOG = logging.getLogger("alphagrad")
KIND = "alphagrad.kind"
STUDY_KEY = "alphagrad.study"
LOCK_TAG = "alphagrad.lock"
"""Tag of a study: the lock file that its driver holds."""
JOBS = "jobs.json"
"""Artifact of a study: key → what tells each job from the others."""
ARGUMENTS = "arguments.json"
"""In a study's folder: what it was started with, and where."""
MISSING = "MISSING"


@dataclass(frozen=True)
class JobState:
    """A job of a study as its newest run has it."""

    title: str
    status: str
    """MLflow's, or MISSING where it has no run."""
    run_id: str = ""
    folder: str = ""
    reason: str = ""
    step: str = ""
    """How far it is, "step/total"."""
    seconds: float = 0.0


@dataclass
class Study:
    """A study that runs."""

    tracker: Tracker
    folder: Path
    titles: dict[str, str]
    goes_on: bool
    skipped: set[str] = field(default_factory=set)
    """Keys of the jobs that are not run this time."""

    def states(self) -> dict[str, JobState]:
        """Every job's state by its key."""
        runs = children(self.tracker.client, self.tracker.experiment_id, self.tracker.run_id)
        return job_states(self.tracker.client, runs, self.titles)


def children(client: Any, experiment_id: str, parent: str | None = None) -> list[Any]:
    """The runs of a study, or of a whole experiment, newest first."""
    condition = f"tags.`mlflow.parentRunId` = '{parent}'" if parent else ""
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], condition, max_results=1000, order_by=list(NEWEST_FIRST), page_token=token
        )
        found += page
        token = page.token
        if not token:
            return found


def job_states(
    client: Any, runs: list[Any], titles: Mapping[str, str], dead: Sequence[Any] = ()
) -> dict[str, JobState]:
    """The state of every job by its key; a run whose process is gone becomes KILLED in the store.

    Args:
        client: of the store.
        runs: the study's, newest first.
        titles: key → title of the jobs there are to be; those of other runs are added.
        dead: other runs whose process is gone.
    """
    states: dict[str, JobState] = {}
    gone = list(dead)
    for run in runs:
        tags, status, reason = run.data.tags, run.info.status, run.data.tags.get(REASON, "")
        if status == "RUNNING" and is_dead(client, run):
            status, reason = "KILLED", DEAD
            gone.append(run)
        key = tags.get(JOB_KEY, run.info.run_id)
        if key not in states and KIND not in tags:
            end = run.info.end_time or int(time.time() * 1000)
            states[key] = JobState(
                titles.get(key, run.info.run_name),
                status,
                run.info.run_id,
                tags.get(FOLDER, ""),
                reason,
                tags.get(STEP, ""),
                max(0, end - run.info.start_time) / 1000,
            )
    mark_dead(client, gone)
    return {**{key: states.get(key, JobState(title, MISSING)) for key, title in titles.items()}, **states}


DEAD = "its process ended without a word"


def is_dead(client: Any, run: Any) -> bool:
    """Whether the process of a RUNNING run is gone."""
    tags = run.data.tags
    folder = Path(tags.get(FOLDER, "/nowhere"))
    if LOCK_TAG in tags:
        lives = is_held(Path(tags[LOCK_TAG]))
    else:
        lives = is_training(folder, run.info.run_id, tags.get(HOST, ""))
    return not lives and FOLDER in tags and client.get_run(run.info.run_id).info.status == "RUNNING"


def mark_dead(client: Any, runs: Sequence[Any]) -> None:
    """Makes runs whose process is gone KILLED, which says that they can go on; what cannot be written is told."""
    try:
        for run in runs:
            client.set_tag(run.info.run_id, REASON, DEAD)
            client.set_terminated(run.info.run_id, status="KILLED")
    except StorageLost as error:  # whoever looks on is to see them all the same
        LOG.warning("%s: runs whose process is gone stay RUNNING there", error)


def titles_of(client: Any, parent: str, study: str) -> dict[str, str]:
    """The jobs a study is to have: key → title; from the store, else from the study's folder on this machine."""
    if JOBS not in {artifact.path for artifact in client.list_artifacts(parent)}:
        file = Path(study, JOBS)
        return _titles_in(file) if study and file.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        return _titles_in(Path(client.download_artifacts(parent, JOBS, folder)))


def _titles_in(file: Path) -> dict[str, str]:
    try:
        found = json.loads(text_of(file))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: is damaged, it holds no JSON ({squeezed(error, 200)})") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: is damaged, it holds no list of jobs")
    return {str(key): str(title) for key, title in found.items()}


@contextmanager
def as_parent(tracker: Tracker | Untracked) -> Iterator[None]:
    """Runs started inside, in any process, become this run's children; those whose process dies are KILLED."""
    if not isinstance(tracker, Tracker):
        yield
        return
    os.environ[PARENT_RUN] = tracker.run_id
    try:
        yield
    finally:
        del os.environ[PARENT_RUN]
        job_states(tracker.client, children(tracker.client, tracker.experiment_id, tracker.run_id), {})


@contextmanager
def study(
    tracker: Tracker,
    name: str,
    key: str,
    tags: Mapping[str, str],
    titles: Mapping[str, str],
    folder: Path,
    rerun: str = "failed",
) -> Iterator[Study]:
    """The parent run of a multirun, as a context; jobs started inside become its children, in any process.

    The newest study with this ``key`` that was not finished goes on, unless ``rerun`` is *all*; otherwise a
    new one starts. The caller holds the study's lock.

    Args:
        tracker: of the store.
        name: of the study.
        key: equal for equal sets of jobs.
        tags: of the parent run.
        titles: key → title of every job.
        folder: of a new study.
        rerun: which jobs of a study that goes on are run: *missing* ones, which never ended, or *failed*
            ones, too, from their beginning.

    Raises:
        RuntimeError: when all is done, if not every job is finished.
    """
    before = None if rerun == "all" else newest_unfinished(tracker, key)
    if before is not None:
        folder = Path(before.data.tags[FOLDER])
    tags = {**tags, KIND: "study", STUDY_KEY: key, FOLDER: str(folder)}
    with tracker.run(name, {}, tags, resume=before.info.run_id if before else None):
        disk = Patience(str(folder), tracker.retry_seconds)
        disk.persist(lambda: folder.mkdir(parents=True, exist_ok=True))
        disk.persist(lambda: write_whole(folder / RUN_ID, tracker.run_id + "\n"))
        disk.persist(lambda: write_whole(folder / JOBS, json.dumps(dict(titles), indent=1, ensure_ascii=False)))
        tracker.artifact(folder / JOBS)
        own = Study(tracker, folder, dict(titles), before is not None)
        if before is not None:
            states = own.states()
            over = {Path(s.folder): s.run_id for s in states.values() if is_over(s.status, s.reason)}
            # the folder of a run that has ended may be another's by now
            tidy({place for place, run_id in over.items() if run_id_of(place) == run_id})
            for job, state in states.items():
                if state.status == "FAILED" and rerun == "failed":
                    forget(Path(state.folder))
                elif state.status in ("FINISHED", "FAILED", "RUNNING"):  # RUNNING: a cluster's job, say
                    own.skipped.add(job)
        with as_parent(tracker):
            yield own
        states = own.states()
        open_jobs = [state for state in states.values() if state.status != "FINISHED"]
        if open_jobs:
            raise RuntimeError(f"{len(open_jobs)} of {len(states)} jobs are not finished")


def newest_unfinished(tracker: Tracker, key: str) -> Any:
    """The newest study with this key, unless it is finished."""
    found = newest(tracker.client, tracker.experiment_id, STUDY_KEY, key)
    return found if found is not None and found.info.status != "FINISHED" else None


def find_run(client: Any, run_id: str) -> Any:
    """The run with this id, or whose id alone begins so.

    Raises:
        ConfigError: there is none, or several.
    """
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    found = [run for e in ids for run in children(client, e) if run.info.run_id.startswith(run_id)]
    if len(found) != 1:
        raise ConfigError(f"{run_id}: {len(found)} runs have an id that begins so, and it is no folder; give one run's")
    return found[0]
