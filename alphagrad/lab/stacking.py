"""A multirun's jobs grouped into stacks, each trained in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import pairwise
from types import TracebackType
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from alphagrad.lab import memory
from alphagrad.lab.apart import run_apart
from alphagrad.lab.build import build, check_stack
from alphagrad.lab.compose import config_hash
from alphagrad.lab.errors import ConfigError, FailFast
from alphagrad.lab.interrupted import Stack, interrupted
from alphagrad.lab.interrupts import closing_runs_on_signals, follow, orphaned
from alphagrad.lab.logfiles import warn_on_stderr
from alphagrad.lab.progress import PlainLines
from alphagrad.lab.runner import Assignment, Outcome
from alphagrad.lab.tracking import reason_of

# What may differ between the runs of a stack, or does not touch the numbers.
OWN = ("seed", "optimizer", "normalization", "alpha", "transform", "stack")


def stacks_of(assignments: Sequence[Assignment], max_runs: int, processes: int) -> list[list[int]]:
    """The jobs' numbers, grouped: one list for each stack.

    Jobs can share a stack when their configurations differ in seed and optimizer alone. Those of one
    optimizer stay side by side, because they then share one optimizer too. A group is cut into as few parts
    of at most ``max_runs`` as keep ``processes`` processes busy.
    """
    if max_runs == 1 or not assignments:
        return [[number] for number in range(len(assignments))]
    groups: dict[str, list[int]] = {}
    configs = [_resolved(assignment.config) for assignment in assignments]
    for number, config in enumerate(configs):
        shared = {key: value for key, value in config.items() if key not in OWN}
        groups.setdefault(json.dumps(shared, sort_keys=True), []).append(number)
    busy = max(1, -(-processes // len(groups)))
    stacks: list[list[int]] = []
    for members in groups.values():
        members.sort(key=lambda number: json.dumps(configs[number]["optimizer"], sort_keys=True))
        parts = min(len(members), max(busy, -(-len(members) // max_runs)))
        bounds = [len(members) * part // parts for part in range(parts + 1)]
        stacks += [members[low:high] for low, high in pairwise(bounds)]
    return stacks


def check_stacks(configs: Sequence[DictConfig], max_runs: int, processes: int) -> None:
    """:class:`ConfigError` where a stack of these jobs, or those that train at a time, take more memory than there is.

    See :func:`alphagrad.lab.build.bytes_of`.
    """
    plain = [{str(k): v for k, v in config.items_ex(resolve=False) if k != "hydra"} for config in configs]
    taken: dict[tuple[str, int], float] = {}
    needs: list[float] = []
    for members in stacks_of([Assignment(own, "", "") for own in plain], max_runs, processes):
        like = config_hash(configs[members[0]]), len(members)
        if like not in taken:
            taken[like] = check_stack(build(configs[members[0]]), len(members))
        needs.append(taken[like])
    largest, there = sorted(needs, reverse=True)[:processes], memory.memory()
    if sum(largest) > there:
        raise ConfigError(
            f"stack.processes={processes}: {len(largest)} stacks at a time take about {memory.size(sum(largest))} of "
            f"memory, and this machine has {memory.size(there)}; give less, or a smaller stack.max_runs"
        )


def planned(assignments: Sequence[Assignment], max_runs: int, processes: int) -> list[Stack]:
    """The stacks to train: those that were interrupted as they were, the other jobs as :func:`stacks_of` has them."""
    stacks = interrupted(assignments)
    taken = {number for stack in stacks for number in stack.jobs.values()}
    left = [number for number in range(len(assignments)) if number not in taken]
    for members in stacks_of([assignments[number] for number in left], max_runs, processes):
        numbers = [left[n] for n in members]
        stacks.append(Stack([assignments[number] for number in numbers], dict(enumerate(numbers))))
    return stacks


def _resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.create(dict(config)), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def run_stacks(
    assignments: Sequence[Assignment],
    max_runs: int,
    processes: int,
    ended: Callable[[Mapping[int, Outcome]], bool] = lambda outcomes: False,
) -> list[Outcome]:
    """Trains all jobs, stack by stack, ``processes`` at a time; returns how each ended, in their order.

    A job that raises fails alone, and a stack whose process is killed does not stop the others. When
    interrupted, every process closes its runs first.

    Args:
        assignments: the jobs.
        max_runs: in one stack.
        processes: at a time.
        ended: gets number → outcome of the jobs of each stack as it ends; where it returns True, no other
            stack is begun.

    Raises:
        FailFast: ``ended`` returned True; the stacks that trained then have ended, too.
    """
    stacks = planned(assignments, max_runs, processes)
    context = multiprocessing.get_context("spawn")
    reports: Any = context.Queue()
    outcomes: dict[int, Outcome] = {}
    pools: list[ProcessPoolExecutor] = []
    idle: list[ProcessPoolExecutor] = []  # a process starts in 10 s, so it trains one stack after the other
    starting, stopped, closing = threading.RLock(), threading.Event(), threading.Event()

    def submit(index: int) -> tuple[ProcessPoolExecutor, Future[list[Outcome]]]:
        while idle:
            pool = idle.pop()
            with suppress(BrokenProcessPool):  # killed while it had nothing to do
                return pool, pool.submit(_train, index, stacks[index].assignments)
        pools.append(ProcessPoolExecutor(1, context, _prepare, (reports,)))
        return pools[-1], pools[-1].submit(_train, index, stacks[index].assignments)

    def train(index: int) -> None:
        results: list[Outcome] | str
        try:
            with starting:
                if stopped.is_set():
                    return
                pool, future = submit(index)
            try:
                results = future.result()
            finally:
                with starting:
                    idle.append(pool)  # also after a job that failed: processes that wait hold memory
        except Exception as error:
            results = reason_of(error)
        with starting:  # here, before this thread begins another stack
            told = stacks[index].outcomes(results)
            outcomes.update(told)
            if not closing.is_set() and ended(told):
                stopped.set()

    with _Lines(reports, stacks), ThreadPoolExecutor(min(processes, len(stacks))) as threads:
        futures = [threads.submit(train, index) for index in range(len(stacks))]
        try:
            for future in futures:
                future.result()
        except BaseException:
            with starting:  # so that no process starts behind our back
                stopped.set()
                closing.set()
            for future in futures:
                future.cancel()
            for process in multiprocessing.active_children():
                process.terminate()  # SIGTERM: the process closes its runs, then ends
            raise
        finally:
            for pool in pools:
                pool.shutdown()
    if len(outcomes) < len(assignments):
        raise FailFast(next(outcome.failure for outcome in outcomes.values() if outcome.failure))
    return [outcomes[number] for number in range(len(assignments))]


_reports: Any = None


def _prepare(reports: Any) -> None:
    """In a new process: how it reports progress, and how it takes signals."""
    global _reports  # noqa: PLW0603
    _reports = reports
    warn_on_stderr()
    closing_runs_on_signals().__enter__()
    driver = multiprocessing.parent_process()
    assert driver is not None
    follow(driver.is_alive)


def _train(index: int, assignments: Sequence[Assignment]) -> list[Outcome]:
    try:
        return run_apart(assignments, _Reporter(index))
    finally:
        if orphaned():
            os._exit(1)  # nobody is left to take the outcome, and the pool would wait for that


class _Reporter:
    """A progress line that is drawn in another process."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __enter__(self) -> _Reporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def start(self, total: int) -> None:
        _reports.put((self.index, 0, total, ""))

    def update(self, step: int, shown: str) -> None:
        _reports.put((self.index, step, None, shown))


class _Lines:
    """A progress line for each stack, fed by their processes; plain ones where the output is no terminal."""

    def __init__(self, reports: Any, stacks: Sequence[Stack]) -> None:
        self._reports, self._done = reports, threading.Event()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        titles = [f"stack {i + 1}/{len(stacks)}, {len(stack.assignments)} runs" for i, stack in enumerate(stacks)]
        self._tasks = [self._progress.add_task(title, total=None, shown="waiting") for title in titles]
        self._plain = [PlainLines(title) for title in titles] if self._progress.disable else None
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._progress.start()
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        self._progress.stop()

    def _follow(self) -> None:
        while not self._done.is_set():
            try:
                index, step, total, shown = self._reports.get(timeout=0.2)
            except queue.Empty:
                continue
            changes = {"total": total} if total else {}
            if self._plain and total:
                self._plain[index].start(total)
            elif self._plain:
                self._plain[index].update(step, shown)
            self._progress.update(self._tasks[index], completed=step, shown=shown, **changes)
