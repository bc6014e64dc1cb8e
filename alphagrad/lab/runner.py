"""Runs one job: configuration → recipe and optimizer → MLflow."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from alphagrad.lab import processes
from alphagrad.lab.build import Job, build
from alphagrad.lab.checkpoint import Checkpoints, save_atomically
from alphagrad.lab.compose import JOB_KEY, config_hash, job_key, settings_of
from alphagrad.lab.errors import ConfigError, StorageLost
from alphagrad.lab.folder import (
    CONFIG,
    LOCK,
    MEMBERS,
    RUN_ID,
    STACK,
    claimed,
    forget,
    home_of,
    stack_of,
    write_members,
    write_whole,
)
from alphagrad.lab.following import announce
from alphagrad.lab.progress import ProgressLine
from alphagrad.lab.runlog import BEST, DIVERGED, Pruned, TrackedLog, Watch
from alphagrad.lab.stack import RunSpec, RunStack
from alphagrad.lab.store import artifact_root, store_uri
from alphagrad.lab.tracking import FOLDER, HOST, PRUNED, REASON, Tracker, can_go_on, provenance

LOG = logging.getLogger("alphagrad")
CHECKPOINT = "checkpoint.pt"
"""What a finished run leaves: its recipe's model."""


@dataclass(frozen=True)
class Assignment:
    """A job as a launcher hands it over: plain data, so that it can go to another process."""

    config: dict[str, Any]
    """The composed configuration, Hydra's own part and resolution left out."""
    title: str
    """The variant and what the user changed: the label of the job's replicas."""
    folder: str
    """Its output folder."""
    resume: bool = False
    """Whether a run in that folder goes on even if it failed."""
    watch: Watch | None = None
    """May end the run early. Pickles, like the rest."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended: the last value of each metric, or why it failed."""

    metrics: dict[str, float]
    failure: str | None = None
    pruned: bool = False
    """Ended by :attr:`Assignment.watch`."""


def run_stack(assignments: Sequence[Assignment], line: Any = None) -> list[Outcome]:
    """Trains jobs that differ in seed and optimizer alone as one stack, each recorded as a run of its own.

    Jobs whose folders hold runs that were stopped go on from their last state, and the stack must then be
    the one they were in. A run that turns non-finite is FAILED and the others go on; what ends them all
    ends them alike.

    Args:
        assignments: the jobs.
        line: takes the progress in place of a :class:`ProgressLine`.

    Raises:
        ConfigError: a setting is wrong, or another process trains one of them; nothing was recorded.
        FloatingPointError: every run diverged.
        StorageLost: the store or the disk gave out; the runs can go on.
    """
    if processes.count() > 1 and len(assignments) > 1:
        raise ConfigError(f"{assignments[0].folder}: holds a stack of {len(assignments)} runs; torchrun trains one run")
    configs = [OmegaConf.create(a.config) for a in assignments]
    jobs = [build(config) for config in configs]
    job = jobs[0]
    torch.set_num_threads(job.settings.threads)
    # where a CUDA toolkit stands without a GPU, compiling warns of it
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    shared = provenance()
    folders = [Path(a.folder) for a in assignments]
    home = home_of(folders)
    checkpoints = Checkpoints(home, job.settings.checkpoint)
    with ExitStack() as runs:
        for folder in folders:
            runs.enter_context(claimed(folder / LOCK))
        trackers = [_tracker(own) for own in jobs]
        before = begun(assignments, trackers[0], home)
        state = checkpoints.load() if before else None
        if not before:
            for folder in {home, *folders}:
                forget(folder)
        failures: dict[int, str] = {}
        for run, (assignment, config, own, tracker) in enumerate(
            zip(assignments, configs, jobs, trackers, strict=True)
        ):
            if before and (ended := before[run].ended):
                tracker.leave(before[run].run_id)
                failures[run] = ended
            else:
                resume = before[run].run_id if before else None
                runs.enter_context(_recorded(tracker, assignment, config, own, shared, resume))
        home.mkdir(exist_ok=True)
        ids = [tracker.run_id for tracker in trackers]
        write_members(home, list(zip(folders, [a.title for a in assignments], ids, strict=True)))
        stack = RunStack([RunSpec(own.settings.seed, own.optimizer) for own in jobs], job.device)
        name = assignments[0].title if len(jobs) == 1 else f"{len(jobs)} runs"
        with line or ProgressLine(f"{configs[0].recipe.name} {name}") as shown:
            shown.start(job.recipe.total_steps)
            log = TrackedLog(trackers, shown, job, checkpoints, folders, state, [a.watch for a in assignments])
            log.failures.update(failures)
            announce(assignments[0].config)
            try:
                results = job.recipe.train(stack, log)
            except Pruned:
                results = []  # nobody's: every run has ended before
        try:
            log.drain()
            for run, (tracker, folder) in enumerate(zip(trackers, folders, strict=True)):
                if run not in log.failures:
                    save_atomically(results[run], folder / CHECKPOINT)
                    for file in (folder / CHECKPOINT, folder / BEST):
                        if file.exists():
                            tracker.artifact(file)
            processes.tell(processes.ON)
        except (OSError, StorageLost) as error:
            raise log.stopped(error) from error
    checkpoints.clear()  # nothing is left to go on from
    for folder in folders:
        (folder / STACK).unlink(missing_ok=True)
    (home / MEMBERS).unlink()
    if home not in folders:
        home.rmdir()
    reasons = [log.failures.get(run) for run in range(len(jobs))]
    return [
        Outcome(last, None if why == "FINISHED" else why, run in log.pruned)
        for run, (last, why) in enumerate(zip(log.last, reasons, strict=True))
    ]


@dataclass(frozen=True)
class Begun:
    """A run that was begun by another process."""

    run_id: str
    ended: str
    """Why it does not go on, FINISHED or what it failed of; empty if it does."""


def begun(assignments: Sequence[Assignment], tracker: Tracker, home: Path) -> list[Begun]:
    """What the jobs' folders hold of runs that can go on, one entry a job; nothing if they start anew."""
    _, members = stack_of(Path(assignments[0].folder))
    found: list[Begun] = []
    for assignment, member in zip_longest(assignments, members):
        if assignment is None or member is None:
            return _unnoted(assignments, tracker)
        run = tracker.client.get_run(member.run_id)
        status, reason = run.info.status, run.data.tags.get(REASON, "")
        again = assignment.resume and not reason.startswith((DIVERGED, PRUNED))
        goes_on = can_go_on(run) or again
        key = job_key(OmegaConf.create(assignment.config))
        if goes_on and run.data.tags.get(JOB_KEY) != key:
            raise ConfigError(f"{assignment.folder}: holds a run of other settings; give another folder")
        found.append(Begun(member.run_id, "" if goes_on else reason or status))
    return [] if all(run.ended for run in found) else found


def _unnoted(assignments: Sequence[Assignment], tracker: Tracker) -> list[Begun]:
    """A run that was killed between its creation in the store and its note in the folder."""
    if len(assignments) > 1 or not (Path(assignments[0].folder) / CONFIG).exists():
        return []
    run_id = tracker.open_run(assignments[0].folder)
    return [] if run_id is None else [Begun(run_id, "")]


def _tracker(job: Job) -> Tracker:
    settings = job.settings.tracking
    uri = store_uri(settings.uri, job.settings.output_root)
    artifacts = artifact_root(settings.artifacts, uri, job.settings.output_root)
    return Tracker(uri, settings.experiment, settings.flush_seconds, settings.retry_seconds, artifacts)


@contextmanager
def _recorded(
    tracker: Tracker,
    assignment: Assignment,
    config: DictConfig,
    job: Job,
    shared: Mapping[str, str],
    resume: str | None,
) -> Iterator[Tracker]:
    """A job's run in the store and its folder's first files, as a context."""
    seed, variant, folder = job.settings.seed, job.optimizer.name, Path(assignment.folder)
    tags = {
        "variant": variant,
        "recipe": str(config.recipe.name),
        "seed": str(seed),
        "configuration": assignment.title,
        "config_hash": config_hash(config),
        JOB_KEY: job_key(config),
        FOLDER: str(folder),
        HOST: platform.node(),
        "device": str(job.device),
        **shared,
    }
    name = f"{variant} seed={seed}{assignment.title.removeprefix(variant)}"
    write_whole(folder / CONFIG, OmegaConf.to_yaml(config, resolve=True))
    with tracker.run(name, settings_of(config), tags, resume):
        write_whole(folder / RUN_ID, tracker.run_id + "\n")
        if resume is None:
            tracker.artifact(folder / CONFIG)
        LOG.info("run %s %s: %s in %s", tracker.run_id, "goes on" if resume else "started", name, folder)
        yield tracker
    LOG.info("run %s ended", tracker.run_id)


def assignment_of(config: DictConfig, overrides: Sequence[str], folder: Path) -> Assignment:
    """What a launcher needs to hand over of a composed job."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    shown: tuple[str, ...] = ("recipe=", "optimizer=", "experiment=", "seed=", "output_root=", "tracking.", "threads=")
    shown += ("device=", "stack.", "checkpoint.", "study.", "hydra.", "hydra/")
    title = " ".join([str(config.optimizer.name), *(o for o in overrides if not o.startswith(shown))])
    return Assignment({str(k): v for k, v in plain.items() if k != "hydra"}, title, str(folder))
