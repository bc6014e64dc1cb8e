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
from alphagrad.lab.build import Job, build
from alphagrad.lab.checkpoint import Checkpoints, save_atomically
from alphagrad.lab.compose import JOB_KEY, config_hash, job_key, settings_of
from alphagrad.lab.cpu import computing
from alphagrad.lab.errors import ConfigError, StorageLost
from alphagrad.lab.folder import (
    CONFIG,
    LOCK,
    MEMBERS,
    RUN_ID,
    STACK,
    claimed,
    disband,
    forget,
    home_of,
    members_of,
    write_members,
    write_whole,
)
from alphagrad.lab.following import announce
from alphagrad.lab.progress import ProgressLine
from alphagrad.lab.runlog import BEST, Pruned, TrackedLog, Watch
from alphagrad.lab.stack import RunSpec, RunStack
from alphagrad.lab.store import artifact_root, store_uri
from alphagrad.lab.tracking import (
    FOLDER,
    HOST,
    REASON,
    Tracker,
    can_go_on,
    is_deleted,
    is_over,
    provenance,
    reason_of,
    recorded,
)

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
    if processes.count() > 1 and len(assignments) > 1:
        raise ConfigError(f"{assignments[0].folder}: holds a stack of {len(assignments)} runs; torchrun trains one run")
    configs = [OmegaConf.create(a.config) for a in assignments]
    jobs = [build(config) for config in configs]
    job = jobs[0]
    # where a CUDA toolkit stands without a GPU, compiling warns of it
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    shared = provenance()
    folders = [Path(a.folder) for a in assignments]
    home = home_of(folders)
    checkpoints = Checkpoints(home, job.settings.checkpoint)
    trackers = [_tracker(own) for own in jobs]
    with computing(job.settings.threads), ExitStack() as runs:
        # the folder of a run that has ended may be another's by now
        for folder in _going_on(folders, begun(assignments, trackers[0], home)):
            runs.enter_context(claimed(folder / LOCK))
        before = begun(assignments, trackers[0], home)  # again, now that nobody else can be at it
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
                resume = (before[run].run_id or None) if before else None
                runs.enter_context(_recorded(tracker, assignment, config, own, shared, resume))
        home.mkdir(exist_ok=True)
        ids = [tracker.run_id for tracker in trackers]
        titles = [a.title for a in assignments]
        write_members(home, list(zip(folders, titles, ids, strict=True)), _going_on(folders, before))
        stack = RunStack([RunSpec(own.settings.seed, own.optimizer) for own in jobs], job.device)
        name = assignments[0].title if len(jobs) == 1 else f"{len(jobs)} runs"
        with line or ProgressLine(f"{configs[0].recipe.name} {name}") as shown:
            shown.start(job.recipe.total_steps)
            log = TrackedLog(trackers, shown, job, checkpoints, folders, state, [a.watch for a in assignments])
            log.failures.update(failures)
            results: Sequence[dict[str, Any]] = []
            announce(assignments[0].config)
            try:
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
        try:
            if results:
                log.progress(job.recipe.total_steps, "")
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
    disband(home, folders)
    return [_outcome(log, run) for run in range(len(jobs))]


def _outcome(log: TrackedLog, run: int) -> Outcome:
    why = log.failures.get(run)
    return Outcome(log.last[run], None if why == "FINISHED" else why, run in log.pruned)


def _broken(log: TrackedLog, trackers: Sequence[Tracker], reason: str) -> StackBroken:
    """Takes back the runs that still train; what to raise."""
    ended = {run: _outcome(log, run) for run in log.failures}
    for run, tracker in enumerate(trackers):
        if run not in ended:
            tracker.take_back(f"its stack ended with {reason}")
    return StackBroken(reason, ended)


@dataclass(frozen=True)
class Begun:
    """A run that was begun by another process."""

    run_id: str
    """Empty for one that was not."""
    ended: str
    """Why it does not go on, FINISHED or what it failed of; empty if it does."""


def begun(assignments: Sequence[Assignment], tracker: Tracker, home: Path) -> list[Begun]:
    """What the jobs' folders hold of runs that can go on, one entry a job; nothing if they start anew."""
    members = members_of(home)
    if len(members) != len(assignments):
        return _unnoted(assignments, tracker)
    found: list[Begun] = []
    for assignment, member in zip(assignments, members, strict=True):
        run = recorded(tracker.client, member.run_id)
        if run is None or is_deleted(run):
            return []
        status, reason = run.info.status, run.data.tags.get(REASON, "")
        again = assignment.resume and not is_over(status, reason)
        goes_on = can_go_on(run) or again
        key = job_key(OmegaConf.create(assignment.config))
        if goes_on and run.data.tags.get(JOB_KEY) != key:
            raise ConfigError(f"{assignment.folder}: holds a run of other settings; give another folder")
        found.append(Begun(member.run_id, "" if goes_on else reason or status))
    return [] if all(run.ended for run in found) else found


def _unnoted(assignments: Sequence[Assignment], tracker: Tracker) -> list[Begun]:
    """Runs that were killed between their creation in the store and the note that they train."""
    found: list[Begun] = []
    for assignment in assignments:
        folder = Path(assignment.folder)
        trained = (folder / STACK).exists() or (folder / MEMBERS).exists()  # in another stack
        created = (folder / CONFIG).exists() and not trained
        found.append(Begun((created and tracker.open_run(assignment.folder)) or "", ""))
    return found if any(run.run_id for run in found) else []


def _going_on(folders: Sequence[Path], before: Sequence[Begun]) -> list[Path]:
    """The folders of the runs that are trained now."""
    return [folder for run, folder in enumerate(folders) if not (before and before[run].ended)]


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
        processes.TAG: str(processes.count()),
        **shared,
    }
    name = f"{variant} seed={seed}{assignment.title.removeprefix(variant)}"
    write_whole(folder / CONFIG, OmegaConf.to_yaml(config, resolve=True))
    with tracker.run(name, settings_of(config), tags, resume):
        processes.note(tracker, assignment.folder, resume is not None)
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
