"""Runs one job: configuration → recipe and optimizer → MLflow."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from alphagrad.lab import interrupts
from alphagrad.lab.build import Job, build
from alphagrad.lab.compose import JOB_KEY, config_hash, job_key, settings_of
from alphagrad.lab.progress import ProgressLine
from alphagrad.lab.stack import Observation, RunSpec, RunStack
from alphagrad.lab.store import artifact_root, store_uri
from alphagrad.lab.tracking import Tracker, provenance

LOG = logging.getLogger("alphagrad")
CHECKPOINT = "checkpoint.pt"
CONFIG = "config.yaml"


@dataclass(frozen=True)
class Assignment:
    """A job as a launcher hands it over: plain data, so that it can go to another process."""

    config: dict[str, Any]
    """The composed configuration, Hydra's own part and resolution left out."""
    title: str
    """The variant and what the user changed: the label of the job's replicas."""
    folder: str
    """Its output folder."""
    watch: Callable[[int, Mapping[str, float]], str | None] | None = None
    """Sees each step's metrics; where it returns a reason, the run is ended as KILLED. Pickles, like the rest."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended: the last value of each metric, or why it failed."""

    metrics: dict[str, float]
    failure: str | None = None
    pruned: bool = False
    """Ended by :attr:`Assignment.watch`."""


class Pruned(Exception):
    """No run of the stack is left to train, and not all of them diverged."""


class TrackedLog:
    """The recipe's log: metrics to each run's tracker, progress to the terminal."""

    def __init__(self, trackers: Sequence[Tracker], line: Any, job: Job, watches: Sequence[Any] = ()) -> None:
        self._trackers = trackers
        self._watches = dict(enumerate(watches))
        self._line = line
        self.observation: Observation | None = job.observation
        self.observe_every = job.settings.instruments.every
        self.last: list[dict[str, float]] = [{} for _ in trackers]
        self.failures: dict[int, str] = {}
        self.pruned: set[int] = set()

    def metrics(self, run: int, step: int, values: Mapping[str, float]) -> None:
        """See :class:`alphagrad.lab.recipe.Log`."""
        interrupts.check()
        if run in self.pruned:
            return
        self._trackers[run].metrics(step, values)
        self.last[run].update(values)
        watch = self._watches.get(run)
        reason = watch(step, values) if watch is not None and run not in self.failures else None
        if reason is not None:
            self.pruned.add(run)
            self.failures[run] = reason
            self._trackers[run].end("KILLED", reason)
            if len(self.failures) == len(self._trackers):
                raise Pruned(reason)

    def diverged(self, run: int, step: int, reason: str) -> None:
        """See :class:`alphagrad.lab.recipe.Log`."""
        self.failures[run] = f"diverged at step {step}: {reason}"
        self._trackers[run].end("FAILED", self.failures[run])
        LOG.warning("run %s %s", self._trackers[run].run_id, self.failures[run])
        if len(self.failures) == len(self._trackers):
            raise Pruned(self.failures[run]) if self.pruned else FloatingPointError(self.failures[run])

    def progress(self, step: int, shown: str) -> None:
        """See :class:`alphagrad.lab.recipe.Log`."""
        interrupts.check()
        self._line.update(step, shown)


def run_stack(assignments: Sequence[Assignment], line: Any = None) -> list[Outcome]:
    """Trains jobs that differ in seed and optimizer alone as one stack, each recorded as a run of its own.

    ``line`` takes the progress in place of a :class:`ProgressLine`.

    A run that turns non-finite is FAILED and the others go on; what ends them all ends them alike.

    Raises:
        ConfigError: a setting is wrong; nothing was recorded.
        FloatingPointError: every run diverged.
    """
    configs = [OmegaConf.create(a.config) for a in assignments]
    jobs = [build(config) for config in configs]
    job = jobs[0]
    torch.set_num_threads(job.settings.threads)
    # where a CUDA toolkit stands without a GPU, compiling warns of it
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    tracking = job.settings.tracking
    uri = store_uri(tracking.uri, job.settings.output_root)
    shared = provenance()
    with ExitStack() as runs:
        trackers = []
        for assignment, config, own in zip(assignments, configs, jobs, strict=True):
            artifacts = artifact_root(tracking.artifacts, uri, job.settings.output_root)
            tracker = Tracker(uri, tracking.experiment, tracking.flush_seconds, artifacts)
            trackers.append(runs.enter_context(_recorded(tracker, assignment, config, own, shared)))
        stack = RunStack([RunSpec(own.settings.seed, own.optimizer) for own in jobs], job.device)
        name = assignments[0].title if len(jobs) == 1 else f"{len(jobs)} runs"
        with line or ProgressLine(f"{configs[0].recipe.name} {name}") as shown:
            shown.start(job.recipe.total_steps)
            log = TrackedLog(trackers, shown, job, [a.watch for a in assignments])
            try:
                checkpoints = job.recipe.train(stack, log)
            except Pruned:
                checkpoints = []  # nobody's: every run has ended before
        for run, (tracker, assignment) in enumerate(zip(trackers, assignments, strict=True)):
            if run not in log.failures:
                path = Path(assignment.folder) / CHECKPOINT
                save_atomically(checkpoints[run], path)
                tracker.artifact(path)
    return [Outcome(log.last[run], log.failures.get(run), run in log.pruned) for run in range(len(jobs))]


@contextmanager
def _recorded(
    tracker: Tracker, assignment: Assignment, config: DictConfig, job: Job, shared: Mapping[str, str]
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
        "output_folder": str(folder),
        "device": str(job.device),
        **shared,
    }
    name = f"{variant} seed={seed}{assignment.title.removeprefix(variant)}"
    with tracker.run(name, settings_of(config), tags):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run_id").write_text(tracker.run_id + "\n")
        (folder / CONFIG).write_text(OmegaConf.to_yaml(config, resolve=True))
        tracker.artifact(folder / CONFIG)
        LOG.info("run %s started: %s in %s", tracker.run_id, name, folder)
        yield tracker
    LOG.info("run %s ended", tracker.run_id)


def assignment_of(config: DictConfig, overrides: Sequence[str], folder: Path) -> Assignment:
    """What a launcher needs to hand over of a composed job."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    shown: tuple[str, ...] = ("recipe=", "optimizer=", "experiment=", "seed=", "output_root=", "tracking.", "threads=")
    shown += ("device=", "stack.", "hydra.", "hydra/")
    title = " ".join([str(config.optimizer.name), *(o for o in overrides if not o.startswith(shown))])
    return Assignment({str(k): v for k, v in plain.items() if k != "hydra"}, title, str(folder))


def save_atomically(content: Any, path: Path) -> None:
    """``torch.save`` that leaves the whole file or none."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(content, temporary)
    temporary.replace(path)
