"""A study while it runs: its parent run in the store, and which of its jobs a restart runs."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alphagrad.common.files import write_whole
from alphagrad.harness.recipe import Objective
from alphagrad.lab.config import compose, sweep
from alphagrad.lab.config.build import recipe_class
from alphagrad.lab.launching.jobs import Jobs
from alphagrad.lab.records.folder import RUN_ID, claimed, forget, run_id_of, tidy
from alphagrad.lab.records.lifecycle import life_of
from alphagrad.lab.records.provenance import provenance
from alphagrad.lab.records.run import PARENT_RUN, Tracker, tracker_of
from alphagrad.lab.records.search import CELL, FOLDER, HOST, PARENT, newest, search
from alphagrad.lab.records.study import ARGUMENTS, JOBS, KIND, LOCK_TAG, SHARED, STUDY_KEY, JobState, job_states
from alphagrad.lab.records.untracked import Untracked
from alphagrad.lab.store.patience import Patience
from alphagrad.lab.store.view import PREFIX, view, view_key
from alphagrad.lab.training.job import ASIDE, shared_words


class NothingLeft(Exception):
    """The study is finished."""


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
        runs = search(self.tracker.client, PARENT, self.tracker.run_id)
        return job_states(self.tracker.client, runs, self.titles)


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
        job_states(tracker.client, search(tracker.client, PARENT, tracker.run_id), {})


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
            over = {Path(s.folder): s.run_id for s in states.values() if s.life.over}
            # the folder of a run that has ended may be another's by now
            tidy({place for place, run_id in over.items() if run_id_of(place) == run_id})
            for job, state in states.items():
                life = state.life
                if life.failed and rerun == "failed":
                    forget(Path(state.folder))
                elif life.finished or life.failed or life.running:  # running: a cluster's job, say
                    own.skipped.add(job)
        with as_parent(tracker):
            yield own
        states = own.states()
        open_jobs = [state for state in states.values() if not state.life.finished]
        if open_jobs:
            raise RuntimeError(f"{len(open_jobs)} of {len(states)} jobs are not finished")


def newest_unfinished(tracker: Tracker, key: str) -> Any:
    """The newest study with this key, unless it is finished."""
    found = newest(tracker.client, STUDY_KEY, key)
    return None if found is None or life_of(found).finished else found


@contextmanager
def started(
    jobs: Jobs, overrides: Sequence[str], config_dir: str | None, noted: Mapping[str, Any], resumed: Path | None = None
) -> Iterator[Study | None]:
    """The study of these jobs, begun or gone on with, as a context within which the sweeper is handed those to run.

    Args:
        jobs: checked.
        overrides: the settings they came from.
        config_dir: of ``--config-dir``.
        noted: what goes on with it needs: the words it was started with, and where.
        resumed: its folder, where it is only to go on.

    Raises:
        ConfigError: somebody else runs it.
        NothingLeft: it is finished, and is only to go on, or only missing jobs are to be run.
        RuntimeError: when all is done, if not every job is finished.
    """
    config = next(iter(jobs.values())).config
    root = Path(config.output_root).expanduser().resolve()
    key = hashlib.sha256(" ".join(sorted(jobs)).encode()).hexdigest()[:16]
    lock = root / ".studies" / f"{key}.lock"
    name = name_of(overrides)
    shared = json.dumps(shared_words((job.config, job.words) for job in jobs.values()))
    tags = {**provenance(), LOCK_TAG: str(lock), HOST: platform.node(), SHARED: shared}
    with claimed(lock):  # of two who start one study, the second is told
        tracker = tracker_of(config.tracking, config.output_root)
        if not isinstance(tracker, Tracker):
            with jobs.handed_out():
                yield None
            return
        if resumed is not None and newest_unfinished(tracker, key) is None:
            raise NothingLeft
        last = newest(tracker.client, STUDY_KEY, key) if config.study.rerun == "missing" else None
        if last is not None and life_of(last).finished and last.info.experiment_id == tracker.experiment_id:
            raise NothingLeft(last.data.tags[FOLDER])
        folder = sweep_folder(overrides, config_dir)
        with study(tracker, name, key, tags, jobs.titles(), folder, config.study.rerun) as running:
            # at its first start the arguments are noted; a study that goes on keeps its folder
            if not (running.folder / ARGUMENTS).exists():
                write_whole(running.folder / ARGUMENTS, json.dumps(dict(noted)))
            running.skipped &= set(jobs)
            if not running.goes_on:
                show_charts(tracker, [recipe_class(job.config.recipe._target_).objective for job in jobs.values()])
            with jobs.handed_out(running.skipped):
                yield running


def name_of(overrides: Sequence[str]) -> str:
    """A study's name in the store: its settings, but for those of where and how it runs."""
    return " ".join(o for o in overrides if not o.startswith(ASIDE)) or "study"


def show_charts(tracker: Tracker, objectives: Sequence[Objective]) -> None:
    """Saves a view of the study for MLflow's UI: its runs by cell, with what they are judged by first."""
    judged = list(dict.fromkeys(objective.metric for objective in objectives))
    shown = view(f"tags.`{PARENT}` = '{tracker.run_id}'", CELL, judged, [])
    tracker.client.set_experiment_tag(tracker.experiment_id, PREFIX + view_key(tracker.run_id), shown)


def sweep_folder(overrides: Sequence[str], config_dir: str | None = None) -> Path:
    """The folder of a study that begins now."""
    with compose.hydra_initialized(config_dir):
        single = [o for o in sweep.of_study(overrides) if not sweep.is_sweep(o)]
        folder = str(compose.hydra_config(single).hydra.sweep.dir)
    return Path(folder).expanduser().resolve()
