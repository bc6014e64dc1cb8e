"""Runs one job: configuration → recipe and optimizer → MLflow."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alphagrad.lab import interrupts, processes
from alphagrad.lab.address import kept_uri
from alphagrad.lab.begun import Assignment, begun, going_on, unfinished
from alphagrad.lab.best import BEST
from alphagrad.lab.build import Job, build, check_stack
from alphagrad.lab.checkpoint import Checkpoints
from alphagrad.lab.compose import JOB_KEY, config_hash, job_key, settings_of
from alphagrad.lab.cpu import computing
from alphagrad.lab.errors import ConfigError, StorageLost
from alphagrad.lab.folder import (
    CONFIG,
    LOCK,
    MEMBERS,
    RUN_ID,
    STACK,
    check_files,
    claimed,
    disband,
    forget,
    home_of,
    write_members,
    write_whole,
)
from alphagrad.lab.following import announce
from alphagrad.lab.patience import Patience
from alphagrad.lab.progress import ProgressLine
from alphagrad.lab.provenance import provenance
from alphagrad.lab.records import FOLDER, HOST, next_number
from alphagrad.lab.runlog import CHECKPOINT, Pruned, TrackedLog
from alphagrad.lab.stack import RunSpec, RunStack
from alphagrad.lab.tracking import Tracker, reason_of, tracker_of
from alphagrad.lab.untracked import Untracked

LOG = logging.getLogger("alphagrad")


@dataclass(frozen=True)
class Outcome:
    """How a job ended: the last value of each metric, or why it failed."""

    metrics: dict[str, float]
    failure: str | None = None
    pruned: bool = False
    """Ended by :attr:`Assignment.watch`."""


class StackBroken(Exception):
    """Something raised while several runs of a stack trained; it does not say which of them is to blame.

    Those that still trained were taken back, as if they had not begun. Training them apart shows it
    (:mod:`alphagrad.lab.apart`).
    """

    def __init__(self, reason: str, ended: dict[int, Outcome]) -> None:
        super().__init__(reason)
        self.ended = ended
        """Row → outcome of the runs that had ended before."""


def run_stack(assignments: Sequence[Assignment], line: Any = None) -> list[Outcome]:
    """Trains jobs that differ in seed and optimizer alone as one stack, each recorded as a run of its own.

    Jobs whose folders hold runs that were stopped go on from their last state, and the stack must then be
    the one they were in. A run that turns non-finite is FAILED and the others go on.

    Args:
        assignments: the jobs.
        line: takes the progress in place of a :class:`ProgressLine`.

    Raises:
        ConfigError: a setting is wrong, or another process trains one of them; nothing was recorded.
        StorageLost: the store or the disk gave out; the runs can go on.
        StackBroken: whatever several runs raised.
        Exception: whatever a run alone raised, FloatingPointError if it turned non-finite.
    """
    if not assignments:
        raise ValueError("assignments: a stack needs at least one run")
    if processes.count() > 1 and len(assignments) > 1:
        raise ConfigError(f"{assignments[0].folder}: holds a stack of {len(assignments)} runs; torchrun trains one run")
    configs = [OmegaConf.create(a.config) for a in assignments]
    jobs = [build(config) for config in configs]
    job = jobs[0]
    if len(jobs) > 1:
        check_stack(job, len(jobs))
    # where a CUDA toolkit stands without a GPU, compiling warns of it
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    shared = provenance()
    folders = [Path(a.folder) for a in assignments]
    home = home_of(folders)
    for folder in {home, *folders}:
        check_files(folder, CONFIG, RUN_ID, STACK, MEMBERS, CHECKPOINT, BEST)
    checkpoints = Checkpoints(home, job.settings.checkpoint)
    with _with_advice(folders[0]), computing(job.settings.threads), ExitStack() as runs:
        first = tracker_of(job.settings.tracking, job.settings.output_root)
        trackers = [first, *(first.another() for _ in jobs[1:])]
        # the folder of a run that has ended may be another's by now
        for folder in going_on(folders, begun(assignments, first, home)):
            runs.enter_context(claimed(folder / LOCK))
        before = begun(assignments, first, home)  # again, now that nobody else can be at it
        state = checkpoints.load() if before else None
        before = unfinished(before, state)
        if not before:
            for folder in {home, *folders}:
                forget(folder)
        number = next_number(first.client, first.experiment_id) if isinstance(first, Tracker) else 0
        failures: dict[int, str] = {}
        for run, (assignment, config, own, tracker) in enumerate(
            zip(assignments, configs, jobs, trackers, strict=True)
        ):
            if before and (ended := before[run].ended):
                tracker.leave(before[run].run_id)
                failures[run] = ended
            else:
                resume = (before[run].run_id or None) if before else None
                tracker.number = number + run
                runs.enter_context(_recorded(tracker, assignment, config, own, shared, resume))
        home.mkdir(exist_ok=True)
        ids = [tracker.run_id for tracker in trackers]
        titles = [a.title for a in assignments]
        members = list(zip(folders, titles, ids, strict=True))
        disk = Patience(str(home), job.settings.tracking.retry_seconds)
        disk.persist(lambda: write_members(home, members, going_on(folders, before)))
        stack = RunStack([RunSpec(own.settings.seed, own.optimizer) for own in jobs], job.device)
        name = assignments[0].title if len(jobs) == 1 else f"{len(jobs)} runs"
        with line or ProgressLine(f"{configs[0].recipe.name} {name}") as shown:
            shown.start(job.recipe.total_steps)
            log = TrackedLog(trackers, shown, job, checkpoints, folders, state, [a.watch for a in assignments])
            log.failures.update(failures)
            results: Sequence[dict[str, Any]] = []
            announce(assignments[0].config)
            try:
                with interrupts.no_exit():
                    results = job.recipe.train(stack, log)
            except Pruned:
                pass  # the results are nobody's: every run has ended before
            except (ConfigError, StorageLost):
                raise
            except Exception as error:
                if len(jobs) == 1:
                    raise
                if len(log.failures) < len(jobs):
                    with interrupts.deferred():  # a stack is broken up whole or not at all
                        broken = _broken(log, trackers, reason_of(error))
                        checkpoints.clear()
                        disband(home, folders)
                    raise broken from error
        if results:
            log.progress(job.recipe.total_steps, "")
        log.finish(results)
    checkpoints.clear()  # nothing is left to go on from
    disband(home, folders)
    return [_outcome(log, run) for run in range(len(jobs))]


def _outcome(log: TrackedLog, run: int) -> Outcome:
    why = log.failures.get(run)
    return Outcome(log.last[run], None if why == "FINISHED" else why, run in log.pruned)


@contextmanager
def _with_advice(folder: Path) -> Iterator[None]:
    """Adds to the loss of the store before training what goes on from here."""
    try:
        yield
    except StorageLost as error:
        if "goes on" in str(error):
            raise
        again = f"`alphagrad resume {folder}` goes on" if (folder / CONFIG).exists() else "start it again"
        raise StorageLost(f"{error}; once that is put right, {again}") from error


def _broken(log: TrackedLog, trackers: Sequence[Tracker | Untracked], reason: str) -> StackBroken:
    """Takes back the runs that still train; what to raise."""
    ended = {run: _outcome(log, run) for run in log.failures}
    for run, tracker in enumerate(trackers):
        if run not in ended:
            tracker.take_back(f"its stack ended with {reason}")
    return StackBroken(reason, ended)


@contextmanager
def _recorded(
    tracker: Tracker | Untracked,
    assignment: Assignment,
    config: DictConfig,
    job: Job,
    shared: Mapping[str, str],
    resume: str | None,
) -> Iterator[None]:
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
        processes.TAG: str(processes.count()),
        **shared,
    }
    name = f"{variant} seed={seed}{assignment.title.removeprefix(variant)}"
    disk = Patience(str(folder), job.settings.tracking.retry_seconds)
    disk.persist(lambda: write_whole(folder / CONFIG, OmegaConf.to_yaml(config, resolve=True)))
    with tracker.run(name, settings_of(config), tags, resume):
        processes.note(tracker, assignment.folder, resume is not None)
        if tracker.run_id:
            disk.persist(lambda: write_whole(folder / RUN_ID, tracker.run_id + "\n"))
        if resume is None or not tracker.has_artifact(CONFIG):
            tracker.upload(folder / CONFIG)
        LOG.info("run %s %s: %s in %s", tracker.run_id, "goes on" if resume else "started", name, folder)
        yield
    LOG.info("run %s ended", tracker.run_id)


def assignment_of(config: DictConfig, overrides: Sequence[str], folder: Path) -> Assignment:
    """What a launcher needs to hand over of a composed job."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    # where it was, from wherever it goes on; a password stays out of files and messages
    plain["tracking"]["uri"] = kept_uri(plain["tracking"]["uri"], plain["output_root"])
    plain["output_root"] = str(Path(plain["output_root"]).expanduser().resolve())
    shown: tuple[str, ...] = ("recipe=", "optimizer=", "experiment=", "seed=", "output_root=", "tracking.", "threads=")
    shown += ("device=", "stack.", "checkpoint.", "study.", "hydra.", "hydra/")
    title = " ".join([str(config.optimizer.name), *(o for o in overrides if not o.startswith(shown))])
    return Assignment({str(k): v for k, v in plain.items() if k != "hydra"}, title, str(folder))
