"""A study as the store has it: what its jobs are, and how each of them stands."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alphagrad.common.errors import ConfigError, StorageLost
from alphagrad.common.files import text_of
from alphagrad.common.words import squeezed
from alphagrad.harness import metrics
from alphagrad.lab.records.folder import is_held, is_training
from alphagrad.lab.records.judged import headlines_of, objective_of, told
from alphagrad.lab.records.lifecycle import DEAD, Life, Standing, life_of, note_end, seconds_of
from alphagrad.lab.records.search import FOLDER, HOST, JOB_KEY
from alphagrad.lab.records.writer import STEP

LOG = logging.getLogger("alphagrad")
KIND = "alphagrad.kind"
STUDY_KEY = "alphagrad.study"
LOCK_TAG = "alphagrad.lock"
"""Tag of a study: the lock file that its process holds."""
SHARED = "alphagrad.shared"
"""Tag of a study: what the configurations of all its jobs have in common, words in JSON."""
JOBS = "jobs.json"
"""Artifact of a study: key → what tells each job from the others."""
ARGUMENTS = "arguments.json"
"""In a study's folder: what it was started with, and where."""


@dataclass(frozen=True)
class JobState:
    """A job of a study as its newest run has it."""

    title: str
    life: Life
    run_id: str = ""
    folder: str = ""
    step: str = ""
    """How far it is, "step/total"."""
    seconds: float = 0.0
    metric: str = ""
    """What it is judged by."""
    value: str = ""
    """Its last value."""
    rate: float = 0.0
    """Steps a second, as last measured."""

    @property
    def done(self) -> float | None:
        """The share of its steps that are taken; None where nothing tells."""
        step, _, total = self.step.partition("/")
        return int(step) / int(total) if step.isdecimal() and total.isdecimal() and int(total) else None

    @property
    def left(self) -> float | None:
        """Seconds until it is finished, about; None of one that does not train, or has just begun."""
        if not self.life.running or not self.done:
            return None
        step, total = map(int, self.step.split("/"))
        return (total - step) / self.rate if self.rate else self.seconds * (1 - self.done) / self.done


def job_states(
    client: Any, runs: list[Any], titles: Mapping[str, str], dead: Sequence[Any] = ()
) -> dict[str, JobState]:
    """The state of every job by its key; a run whose process is gone is marked in the store as stopped.

    Args:
        client: of the store.
        runs: the study's, newest first.
        titles: key → title of the jobs there are to be; those of other runs are added.
        dead: other runs whose process is gone.
    """
    states: dict[str, JobState] = {}
    gone = list(dead)
    for run in runs:
        tags, life = run.data.tags, life_of(run)
        if is_dead(client, run):
            life = DEAD
            gone.append(run)
        key = tags.get(JOB_KEY, run.info.run_id)
        if key not in states and KIND not in tags:
            seconds = seconds_of(run, time.time()) or 0.0
            title = titles.get(key, run.info.run_name)
            metric, value, rate = judged(run)
            folder, step = tags.get(FOLDER, ""), tags.get(STEP, "")
            states[key] = JobState(title, life, run.info.run_id, folder, step, seconds, metric, value, rate)
    mark_dead(client, gone)
    missing = Life(Standing.MISSING)
    return {**{key: states.get(key, JobState(title, missing)) for key, title in titles.items()}, **states}


def judged(run: Any) -> tuple[str, str, float]:
    """What a run of the store is judged by, its last value as it is shown, and the run's steps a second."""
    tags, values = run.data.tags, run.data.metrics
    metric = objective_of(tags, values)[0]
    value = told(values, {metric: headlines_of(tags).get(metric, 4)}).removeprefix(f"{metric} ")
    return metric, value, values.get(metrics.STEPS_PER_SECOND, 0.0)


def is_dead(client: Any, run: Any) -> bool:
    """Whether a run is called running in the store and its process is gone."""
    tags = run.data.tags
    if not life_of(run).running or FOLDER not in tags:
        return False
    if LOCK_TAG in tags:
        lives = is_held(Path(tags[LOCK_TAG]))
    else:
        lives = is_training(Path(tags[FOLDER]), run.info.run_id, tags.get(HOST, ""))
    return not lives and life_of(client.get_run(run.info.run_id)).running


def mark_dead(client: Any, runs: Sequence[Any]) -> None:
    """Marks runs whose process is gone as stopped, so that they can go on; what cannot be written is told."""
    try:
        for run in runs:
            note_end(client, run.info.run_id, DEAD)
    except StorageLost as error:  # whoever looks on is to see them all the same
        LOG.warning("%s: runs whose process is gone stay RUNNING there", error)


def titles_of(client: Any, parent: str, study: str) -> dict[str, str]:
    """The jobs a study is to have: key → title; from the store, else from the study's folder on this machine."""
    if JOBS not in {artifact.path for artifact in client.list_artifacts(parent)}:
        file = Path(study, JOBS)
        return _titles_in(file) if study and file.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        return _titles_in(Path(client.download_artifacts(parent, JOBS, folder)))


def shared_in(tags: Mapping[str, str]) -> list[str]:
    """The words that a study's tag holds; none where it has no such tag."""
    try:
        return [str(word) for word in json.loads(tags.get(SHARED, "[]"))]
    except (ValueError, TypeError, RecursionError):
        return []


def _titles_in(file: Path) -> dict[str, str]:
    try:
        found = json.loads(text_of(file))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: is damaged, it holds no JSON ({squeezed(error, 200)})") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: is damaged, it holds no list of jobs")
    return {str(key): str(title) for key, title in found.items()}
