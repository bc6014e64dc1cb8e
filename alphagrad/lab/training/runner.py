"""Trains a stack of jobs in this process: claimed, restored, recorded, trained, finished."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alphagrad.common import interrupts, ranks
from alphagrad.common.cells import differing, words_of
from alphagrad.common.errors import ConfigError, StorageLost
from alphagrad.common.files import check_files, write_whole
from alphagrad.harness.memory import forget_peak
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.lab.config.build import Setup, build, check_stack
from alphagrad.lab.config.compose import config_hash, job_key, settings_of
from alphagrad.lab.records.checkpoint import Checkpoints
from alphagrad.lab.records.folder import (
    CONFIG,
    LOCK,
    MEMBERS,
    RUN_ID,
    STACK,
    claimed,
    disband,
    forget,
    home_of,
    write_members,
)
from alphagrad.lab.records.judged import tags_of, told
from alphagrad.lab.records.lifecycle import FINISHED
from alphagrad.lab.records.provenance import provenance
from alphagrad.lab.records.run import Tracker, reason_of, tracker_of
from alphagrad.lab.records.search import CELL, CONFIGURATION, FOLDER, HOST, JOB_KEY, RECIPE, SEED, VARIANT, next_number
from alphagrad.lab.records.study import shared_in
from alphagrad.lab.records.untracked import Untracked
from alphagrad.lab.store.datasets import note_dataset
from alphagrad.lab.store.machine import PREFIX, measured
from alphagrad.lab.store.patience import Patience
from alphagrad.lab.training.begun import Begun, begun, going_on, unfinished
from alphagrad.lab.training.best import BEST
from alphagrad.lab.training.cpu import compiling, computing
from alphagrad.lab.training.job import Assignment, Outcome
from alphagrad.lab.training.log import CHECKPOINT, Pruned, TrackedLog
from alphagrad.lab.training.progress import Progress, ProgressLine
from alphagrad.lab.training.torchrun import TAG, Leader, note_processes

LOG = logging.getLogger("alphagrad")


class StackBroken(Exception):
    """Something raised while several runs of a stack trained; it does not say which of them is to blame.

    Those that still trained were taken back, as if they had not begun. Training them apart shows it
    (:mod:`alphagrad.lab.launching.apart`).
    """

    def __init__(self, reason: str, ended: dict[int, Outcome]) -> None:
        super().__init__(reason)
        self.ended = ended
        """Row → outcome of the runs that had ended before."""


def run_stack(
    assignments: Sequence[Assignment], line: Progress | None = None, leader: Leader | None = None
) -> list[Outcome]:
    """Trains jobs that differ in seed and optimizer alone as one stack, each recorded as a run of its own.

    Jobs whose folders hold runs that were stopped go on from their last state, and the stack must then be
    the one they were in. A run that turns non-finite is FAILED and the others go on.

    Args:
        assignments: the jobs.
        line: takes the progress in place of a :class:`ProgressLine`.
        leader: of the processes under torchrun.

    Raises:
        ConfigError: a setting is wrong, or another process trains one of them; nothing was recorded.
        StorageLost: the store or the disk gave out; the runs can go on.
        StackBroken: whatever several runs raised.
        Exception: whatever a run alone raised, FloatingPointError if it turned non-finite.
    """
    stack = _Stack(assignments, leader or Leader())
    with _with_advice(stack.folders[0]), computing(stack.setup.settings.threads), ExitStack() as held:
        stack.claim(held)
        stack.restore()
        stack.record(held)
        with line or ProgressLine(stack.title) as shown:
            stack.train(shown)
        stack.finish()
    stack.clear()  # nothing is left to go on from
    return stack.outcomes()


class _Stack:
    """The jobs of one stack on their way through :func:`run_stack`; nothing is recorded by making it."""

    log: TrackedLog

    def __init__(self, assignments: Sequence[Assignment], leader: Leader) -> None:
        if not assignments:
            raise ValueError("assignments: a stack needs at least one run")
        if ranks.count() > 1 and len(assignments) > 1:
            raise ConfigError(
                f"{assignments[0].folder}: holds a stack of {len(assignments)} runs; torchrun trains one run"
            )
        self.assignments, self.leader = assignments, leader
        self.configs = [OmegaConf.create(a.config) for a in assignments]
        self.setups = [build(config) for config in self.configs]
        self.setup = self.setups[0]
        if len(assignments) > 1:
            check_stack(self.setup, len(assignments))
        self.folders = [Path(a.folder) for a in assignments]
        self.home, saved = home_of(self.folders), self.setup.settings.checkpoint
        for folder in {self.home, *self.folders}:
            check_files(folder, CONFIG, RUN_ID, STACK, MEMBERS, CHECKPOINT, BEST)
        self.checkpoints = Checkpoints(self.home, saved.every_seconds, saved.every_steps, saved.keep_last)
        self.trackers: list[Tracker | Untracked] = []
        self.before: list[Begun] = []
        self.state: Mapping[str, Any] | None = None
        self.results: Sequence[Mapping[str, Any]] = []

    @property
    def title(self) -> str:
        """What the progress line calls it."""
        several = len(self.assignments) > 1
        own = self.assignments[0]
        name = f"{len(self.assignments)} runs" if several else f"{own.title} seed={own.seed}"
        return f"{self.configs[0].recipe.name} {name}"

    def claim(self, held: ExitStack) -> None:
        """Opens the store, and locks the folders of the runs to be trained; that of an ended run may be another's."""
        first = tracker_of(self.setup.settings.tracking, self.setup.settings.output_root)
        self.trackers = [first, *(first.another() for _ in self.assignments[1:])]
        for folder in going_on(self.folders, begun(self.assignments, self.trackers[0], self.home)):
            held.enter_context(claimed(folder / LOCK))

    def restore(self) -> None:
        """Finds out what the runs go on from, now that nobody else can be at it; removes what nobody goes on from."""
        before = begun(self.assignments, self.trackers[0], self.home)
        self.state = self.checkpoints.load() if before else None
        self.before = unfinished(before, self.state)
        if not self.before:
            for folder in {self.home, *self.folders}:
                forget(folder)

    def record(self, held: ExitStack) -> None:
        """Begins every run in the store and in its folder, and notes in the folders which runs belong together."""
        # where a CUDA toolkit stands without a GPU, compiling warns of it
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        first, shared = self.trackers[0], provenance()
        number = next_number(first.client) if isinstance(first, Tracker) else 0
        parent = first.parent() if isinstance(first, Tracker) else None
        # on the page of an experiment its name stands above
        known = [self.setup.settings.tracking.experiment] if parent is None else shared_in(parent.data.tags)
        for run, tracker in enumerate(self.trackers):
            if self.before and self.before[run].ended:
                tracker.leave(self.before[run].run_id)
            else:
                resume = (self.before[run].run_id or None) if self.before else None
                tracker.number = number + run
                own = self.assignments[run], self.configs[run], self.setups[run]
                held.enter_context(_recorded(tracker, *own, shared, known, resume))
        self.home.mkdir(exist_ok=True)
        ids, titles = [tracker.run_id for tracker in self.trackers], [a.title for a in self.assignments]
        members = list(zip(self.folders, titles, ids, strict=True))
        disk = Patience(str(self.home), self.setup.settings.tracking.retry_seconds)
        disk.persist(lambda: write_members(self.home, members, going_on(self.folders, self.before)))

    def train(self, line: Progress) -> None:
        """Trains to the end, or until no run is left."""
        line.start(self.setup.recipe.total_steps)
        forget_peak()
        if told := compiling(self.setup.recipe):
            line.note(told)
        specs = [RunSpec(own.settings.seed, own.optimizer) for own in self.setups]
        pruners = [a.pruner for a in self.assignments]
        self.log = TrackedLog(
            self.trackers, line, self.setup, self.leader, self.checkpoints, self.folders, self.state, pruners
        )
        self.log.ended.update({run: own.ended for run, own in enumerate(self.before) if own.ended})
        self.leader.begin(self.assignments[0].config)
        try:
            with interrupts.no_exit(), interrupts.at_ends_of_iterations(), measured(self.send):
                self.results = self.setup.recipe.train(RunStack(specs, self.setup.device), self.log)
        except Pruned:
            return  # the results are nobody's: every run has ended before
        except (ConfigError, StorageLost):
            raise
        except Exception as error:
            interrupts.check()  # what fails once a signal came may fail by it: another process of the run is gone
            if len(self.trackers) == 1:
                raise
            if len(self.log.ended) < len(self.trackers):
                with interrupts.deferred():  # a stack is broken up whole or not at all
                    broken = self._broken(reason_of(error))
                    self.clear()
                raise broken from error

    def send(self, number: int, machine: Mapping[str, float]) -> None:
        """Takes what the machine did meanwhile, which every run of the stack is told."""
        for tracker in self.trackers:
            tracker.metrics(tracker.counted(PREFIX) + number, machine)

    def finish(self) -> None:
        """Ends the runs that are left, once all there is of them is in their folders and the store."""
        self.log.finish(self.results)

    def _broken(self, reason: str) -> StackBroken:
        """Takes back the runs that still train; what to raise."""
        ended = {run: Outcome(self.log.last[run], life) for run, life in self.log.ended.items()}
        for run, tracker in enumerate(self.trackers):
            if run not in ended:
                tracker.take_back(f"its stack ended with {reason}")
        return StackBroken(reason, ended)

    def clear(self) -> None:
        """Removes what the runs would go on from, and what held them together."""
        self.checkpoints.clear()
        disband(self.home, self.folders)

    def outcomes(self) -> list[Outcome]:
        """How each job ended."""
        recipe = self.setup.recipe
        return [
            Outcome(last, self.log.ended.get(run, FINISHED), told(last, recipe.headlines), recipe.objective.score(last))
            for run, last in enumerate(self.log.last)
        ]


@contextmanager
def _with_advice(folder: Path) -> Iterator[None]:
    """Adds to the loss of the store before training what goes on from here."""
    try:
        yield
    except StorageLost as error:
        if error.advice:
            raise
        again = f"`alphagrad resume {folder}` goes on" if (folder / CONFIG).exists() else "start it again"
        raise StorageLost(error.told, again) from error


@contextmanager
def _recorded(
    tracker: Tracker | Untracked,
    assignment: Assignment,
    config: DictConfig,
    setup: Setup,
    shared: Mapping[str, str],
    known: Sequence[str],
    resume: str | None,
) -> Iterator[None]:
    """A job's run in the store and its folder's first files, as a context."""
    seed, recipe, folder = setup.settings.seed, str(config.recipe.name), Path(assignment.folder)
    cell = differing(words_of(recipe, assignment.title), known, assignment.title)
    tags = {
        VARIANT: setup.optimizer.name,
        RECIPE: recipe,
        SEED: str(seed),
        CONFIGURATION: assignment.title,
        CELL: cell,
        "config_hash": config_hash(config),
        JOB_KEY: job_key(config),
        FOLDER: str(folder),
        HOST: platform.node(),
        "device": str(setup.device),
        TAG: str(ranks.count()),
        **tags_of(setup.recipe),
        **shared,
    }
    name = f"{cell} seed={seed}"
    disk = Patience(str(folder), setup.settings.tracking.retry_seconds)
    disk.persist(lambda: write_whole(folder / CONFIG, OmegaConf.to_yaml(config, resolve=True)))
    with tracker.run(name, settings_of(config), tags, resume):
        note_processes(tracker, assignment.folder, resume is not None)
        if tracker.run_id:
            disk.persist(lambda: write_whole(folder / RUN_ID, tracker.run_id + "\n"))
        if resume is None or not tracker.has_artifact(CONFIG):
            tracker.upload(folder / CONFIG)
        if isinstance(tracker, Tracker) and "data" in config:
            note_dataset(tracker.client, tracker.run_id, config.data)
        LOG.info("run %s %s: %s in %s", tracker.run_id, "goes on" if resume else "started", name, folder)
        yield
    LOG.info("run %s ended", tracker.run_id)
