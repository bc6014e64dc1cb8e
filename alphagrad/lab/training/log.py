"""The log that a recipe trains with: metrics to the store, progress to the terminal, states to the disk."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from alphagrad.common import interrupts
from alphagrad.common.errors import StorageLost, Terminated
from alphagrad.common.files import write_by
from alphagrad.harness.driver import Observation
from alphagrad.harness.memory import taken
from alphagrad.harness.pictures import Pictures
from alphagrad.harness.recipe import RunFailed
from alphagrad.harness.state import pack, put_back
from alphagrad.lab.config.build import Setup
from alphagrad.lab.records.checkpoint import Checkpoints, save_atomically
from alphagrad.lab.records.lifecycle import FINISHED, Life, Standing, life_in
from alphagrad.lab.records.run import Tracker
from alphagrad.lab.records.untracked import Untracked
from alphagrad.lab.training.best import BEST, BestValues
from alphagrad.lab.training.job import Pruner
from alphagrad.lab.training.kept import KeptFiles, keep_on_the_way, passed
from alphagrad.lab.training.torchrun import Leader, Word

LOG = logging.getLogger("alphagrad")
CHECKPOINT = "checkpoint.pt"
"""What a finished run leaves: its recipe's model."""
RETRY_SECONDS = 10.0
"""Between attempts to save a state where the disk does not take it."""


class Pruned(Exception):
    """No run of the stack is left to train, and not all of them diverged."""


class TrackedLog:
    """See :class:`alphagrad.harness.recipe.Log`.

    Args:
        trackers: one for each run of the stack.
        line: takes the progress.
        setup: any of the stack's.
        leader: of the processes under torchrun.
        checkpoints: where states go; none without.
        folders: each run's.
        state: what the runs go on from; None for new ones.
        pruners: each run's, if it has one.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker | Untracked],
        line: Any,
        setup: Setup,
        leader: Leader,
        checkpoints: Checkpoints | None = None,
        folders: Sequence[Path] = (),
        state: Mapping[str, Any] | None = None,
        pruners: Sequence[Pruner | None] = (),
    ) -> None:
        self._trackers, self._line, self._setup, self._leader = trackers, line, setup, leader
        self._checkpoints, self._folders, self._state = checkpoints, folders, state
        self._pruners = dict(enumerate(pruners))
        self.observation: Observation | None = setup.observation
        self.observe_every = setup.settings.instruments.every
        self.last: list[dict[str, float]] = [{} for _ in trackers]
        self.ended: dict[int, Life] = {}  # the runs that do not train any more, and why
        self._best = BestValues(setup.settings.checkpoint, len(trackers))
        self._at: list[dict[str, int]] = [{} for _ in trackers]
        """The step of each last value."""
        self._made: list[set[str]] = [set() for _ in trackers]
        """The names of the files that each run has sent to its store."""
        self._pictures = Pictures(self.artifact, self.observe_every)
        self._reached: tuple[int, Mapping[str, Any]] | None = None
        self._disk_fails_since: float | None = None
        self._done = self._progress = 0
        self._files = KeptFiles(setup.settings.tracking.retry_seconds if checkpoints is not None else 0.0)

    def metrics(self, run: int, step: int, values: Mapping[str, float]) -> None:
        values = {name: float(value) for name, value in values.items()}  # states hold no NumPy numbers
        interrupts.check()
        if run in self.ended and self.ended[run].pruned:
            return
        self._trackers[run].metrics(step, values)
        self.last[run].update(values)
        self._at[run].update(dict.fromkeys(values, step))
        prune = None if run in self.ended else self._pruners.get(run)
        if prune is not None and (why := prune(step, values)) is not None and not self._over(step):
            self._end(run, Life(Standing.PRUNED, f"pruned at step {step}: {why}"))

    def _over(self, step: int) -> bool:
        """Whether nothing is left to train when a metric of this step comes; recipes count from 0 or from 1."""
        return max(step, self._done + 1, self._progress) >= self._setup.recipe.total_steps

    def diverged(self, run: int, step: int, reason: str) -> None:
        self._end(run, Life(Standing.DIVERGED, f"diverged at step {step}: {reason}"))

    def failed(self, run: int, step: int, reason: str) -> None:
        self._end(run, Life(Standing.FAILED, f"failed at step {step}: {reason}"))

    def _end(self, run: int, life: Life) -> None:
        """Ends one run; once none is left, the training of the stack."""
        self._pictures.draw(run, self.last[run])
        self.ended[run] = life
        self._trackers[run].end(life)
        if not life.pruned:
            LOG.warning("run %s %s", self._trackers[run].run_id, life.reason)
        if len(self.ended) == len(self._trackers):
            own = FloatingPointError if life.standing is Standing.DIVERGED else RunFailed
            raise (Pruned if any(life.pruned for life in self.ended.values()) else own)(life.reason)

    def progress(self, step: int, shown: str) -> None:
        interrupts.check()
        self._progress = step
        self._line.update(step, shown)
        for tracker in self._trackers:
            tracker.position(step, self._setup.recipe.total_steps)

    def artifact(self, run: int, name: str, write: Callable[[Path], None]) -> None:
        if run in self.ended:
            return
        self._keep(run, path := self._folders[run] / name, partial(write_by, path, write))

    def _keep(self, run: int, path: Path, make: Callable[[], None]) -> None:
        """Makes a run's file and sends it to the store, both off the training's way where they fail for a while."""

        def made() -> None:
            self._made[run].add(path.name)
            self._trackers[run].upload(path)

        self._files.write(path, make, made)

    def restore(self, parts: Mapping[str, Any]) -> int:
        self._pictures.parts = parts
        self._leader.restore(self._state)
        if self._state is None:
            return 0
        step, now = put_back(self._state, parts, self._setup.device), int(time.time() * 1000)
        for run, kept in enumerate(self._state["runs"]):
            tracker = self._trackers[run]
            self.last[run], self._best.values[run] = dict(kept["last"]), kept["best"]
            self._at[run] = dict(kept.get("at", {}))
            if tracker.run_id != kept["run_id"]:  # a new store, which has nothing of it yet
                tracker.send((name, self.last[run][name], now, at) for name, at in self._at[run].items())
                waiting = [name for name in kept.get("made", ()) if (self._folders[run] / name).exists()]
            else:
                waiting = list(kept.get("files", ()))
            self._made[run] = set(kept.get("made", ()))
            tracker.send(tuple(point) for point in kept["pending"])
            for name in waiting:
                tracker.upload(self._folders[run] / name)
        self.ended.update({run: life_in(kept) for run, kept in self._state["failures"].items()})
        self._done, self._state = step, None  # whose memory is not needed any more
        self.progress(step, "resumed")
        return step

    def checkpoint(self, step: int, parts: Mapping[str, Any], result: Callable[[int], dict[str, Any]]) -> None:
        before, self._done = self._done, step
        if self._checkpoints is None:
            interrupts.iteration_ended()
            return
        self._reached = step, parts
        if interrupts.came():
            self._save_and_leave()
        self._keep_models(step, before, result)
        try:
            self._files.again()
            for run, tracker in enumerate(self._trackers):
                if run not in self.ended:
                    tracker.check()
        except (OSError, StorageLost) as error:
            raise self.stopped(error) from error
        if self._checkpoints.due(step):
            self._save(step, parts)
        self._leader.say(Word.TRAIN_ON)

    def _save_and_leave(self) -> None:
        """Saves the state for a run that a signal ends, and raises the signal."""
        if (error := self._save_reached()) is not None:
            LOG.warning("%s; the run goes on from the state before", error)
        self._leader.say(Word.ENDED)
        interrupts.iteration_ended()

    def stopped(self, error: Exception) -> StorageLost:
        """Saves the state reached whether it is due or not; the error with what the user can do about it."""
        assert self._checkpoints is not None
        told, again = " ".join(str(error).split()), self._save_reached()
        if again is not None and str(again) not in told:
            told += f"; {again}"
        self._leader.say(Word.ENDED)
        kept = self._checkpoints.told(self._folders[0])
        return StorageLost(f"{told}; {kept}", f"`alphagrad resume {self._folders[0]}` goes on")

    def finish(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Ends the runs that are left as finished, once all there is of them is in their folders and the store.

        Args:
            results: each run's model.

        Raises:
            StorageLost: it cannot be; the state is kept.
        """
        left = [run for run in range(len(self._trackers)) if run not in self.ended]
        try:
            if results:
                self.progress(self._setup.recipe.total_steps, "")
            for run in left:
                self._pictures.draw(run, self.last[run])
                self._keep(run, path := self._folders[run] / CHECKPOINT, partial(save_atomically, results[run], path))
                if (self._folders[run] / BEST).exists():
                    self._trackers[run].upload(self._folders[run] / BEST)
                self._best.tell(run, self.last[run])
                self._trackers[run].metrics(self._setup.recipe.total_steps, taken(results[run], self._setup.device))
            self._files.finish()
            for run in left:
                self._trackers[run].drain()
            for run in left:
                self._trackers[run].end(FINISHED)
        except (OSError, StorageLost) as error:
            raise self.stopped(error) from error
        except (KeyboardInterrupt, Terminated):
            self._save_reached()
            raise
        self._leader.say(Word.TRAIN_ON)

    def _save_reached(self) -> OSError | None:
        """Saves the state at the end of the last iteration; the error if the disk does not take it."""
        if self._checkpoints is not None and self._reached is not None:
            try:
                self._checkpoints.save(self._reached[0], self._content(self._reached[1]))
            except OSError as error:
                return error
        return None

    def _save(self, step: int, parts: Mapping[str, Any]) -> None:
        """Saves a state; a disk that does not take it is tried again while the run goes on."""
        assert self._checkpoints is not None
        try:
            self._checkpoints.save(step, self._content(parts))
            self._disk_fails_since = None
        except OSError as error:
            now = time.monotonic()
            if self._disk_fails_since is None:
                self._disk_fails_since = now
                LOG.warning("%s; trying on", error)
            if now - self._disk_fails_since >= self._setup.settings.tracking.retry_seconds:
                raise self.stopped(error) from error
            self._checkpoints.postpone(RETRY_SECONDS)

    def _content(self, parts: Mapping[str, Any]) -> dict[str, Any]:
        self._leader.say(Word.GATHER_STATE)
        content: dict[str, Any] = {"parts": {}, "torch": torch.get_rng_state()}
        content["failures"] = {run: life.plain() for run, life in self.ended.items()}
        for name, part in parts.items():
            try:
                content["parts"][name] = pack(part)
            except TypeError as error:
                raise TypeError(f"{name}: {error}") from error
        if self._setup.device.type == "cuda":
            content["cuda"] = torch.cuda.get_rng_state(self._setup.device)
        content["runs"] = [
            {
                "run_id": tracker.run_id,
                "pending": tracker.pending(),
                "files": tracker.waiting(),
                "made": sorted(self._made[run]),
                "last": self.last[run],
                "at": self._at[run],
                "best": self._best.values[run],
            }
            for run, tracker in enumerate(self._trackers)
        ]
        return content

    def _keep_models(self, step: int, before: int, result: Callable[[int], dict[str, Any]]) -> None:
        due = passed(self._best.settings.trajectory_every, before, step)
        for run, values in enumerate(self.last):
            improved = run not in self.ended and self._best.improve(run, values)
            if run in self.ended or not (improved or due):
                continue
            self._leader.say(Word.GATHER_RESULT)
            model = {**pack(result(run)), "steps": step}
            if due:
                keep_on_the_way(self._files, self._folders[run], step, model)
            if improved:
                content = {**model, str(self._best.settings.best): self._best.values[run]}
                path = self._folders[run] / BEST
                try:
                    save_atomically(content, path)
                    self._made[run].add(BEST)
                except OSError:  # training goes on with what is in it
                    self._keep(run, path, partial(save_atomically, copy.deepcopy(content), path))
