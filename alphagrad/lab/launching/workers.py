"""Stacks trained side by side, in worker processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from types import TracebackType
from typing import Any

from alphagrad.common.errors import FailFast
from alphagrad.common.interrupts import closing_runs_on_signals, end_with, orphaned
from alphagrad.common.warned import show_once
from alphagrad.lab.launching.apart import run_apart
from alphagrad.lab.launching.board import Board
from alphagrad.lab.launching.interrupted import PlannedStack
from alphagrad.lab.launching.plan import planned
from alphagrad.lab.records.lifecycle import Life, Standing
from alphagrad.lab.records.run import reason_of
from alphagrad.lab.training.job import Assignment, Outcome
from alphagrad.lab.training.logfiles import warn_on_stderr
from alphagrad.lab.training.progress import Progress

Train = Callable[[Sequence[Assignment], Progress], list[Outcome]]


class Worker:
    """A process that trains one stack after the other: it takes 10 s to start.

    Args:
        context: what starts it.
        reports: takes its progress, (stack, step, total or None, words).
        train: what it does with a stack.
    """

    def __init__(self, context: SpawnContext, reports: Any, train: Train) -> None:
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, reports, train))
        self._process.start()
        self.usable = True
        """Whether it may be sent another stack."""
        there.close()  # the worker's own is then the only one, so that its death is heard

    def train(self, index: int, assignments: Sequence[Assignment]) -> list[Outcome]:
        """How each job of a stack ended."""
        try:
            self._here.send((index, assignments))
            results, self.usable = self._here.recv()
        except (EOFError, OSError):
            self._process.join()
            status = f"with status {self._process.exitcode}: killed, or out of memory"
            return [Outcome.failed(f"its process ended without a result, {status}")] * len(assignments)
        except Exception as error:  # it cannot be sent
            return [Outcome.failed(reason_of(error))] * len(assignments)
        return list(results)

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self._process.is_alive()

    def close(self) -> None:
        """Lets it end, once it has closed its runs."""
        with suppress(OSError):  # it has ended
            self._here.send(None)
        self._process.join()
        self._here.close()


def _serve(study: Connection, reports: Any, train: Train) -> None:
    """In the worker: trains what the study's process sends, until it sends nothing more or a signal comes."""
    warn_on_stderr()
    show_once()
    parent = multiprocessing.parent_process()
    assert parent is not None
    with suppress(EOFError, KeyboardInterrupt, SystemExit), closing_runs_on_signals():
        end_with(parent.is_alive)
        going_on = True
        while going_on and (sent := study.recv()) is not None:
            results, going_on = _outcomes(train, sent[1], _Reporter(sent[0], reports))
            if orphaned():
                os._exit(1)  # nobody is left to take the outcome
            try:
                study.send((results, going_on))
            except Exception as error:  # of a kind that cannot be sent
                study.send(([Outcome.failed(reason_of(error))] * len(results), going_on))


def _outcomes(train: Train, assignments: Sequence[Assignment], line: Progress) -> tuple[list[Outcome], bool]:
    """How each job of a stack ended, and whether the worker can train another stack: not once a signal came."""
    try:
        return train(assignments, line), True
    except Exception as error:
        return [Outcome.failed(reason_of(error))] * len(assignments), True
    except (KeyboardInterrupt, SystemExit) as stop:
        return [Outcome({}, Life(Standing.STOPPED, reason_of(stop)))] * len(assignments), False


class _Reporter:
    """Progress that is shown by another process."""

    def __init__(self, index: int, reports: Any) -> None:
        self._index, self._reports = index, reports

    def __enter__(self) -> _Reporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def start(self, total: int) -> None:
        self._reports.put((self._index, 0, total, ""))

    def note(self, words: str) -> None:
        self._reports.put((self._index, None, None, words))

    def update(self, step: int, shown: str) -> None:
        self._reports.put((self._index, step, None, shown))


def run_stacks(
    assignments: Sequence[Assignment],
    max_runs: int,
    processes: int,
    ended: Callable[[Mapping[int, Outcome]], bool] = lambda outcomes: False,
    train: Train = run_apart,
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
    with Board.of(stacks) as board:
        return _trained(assignments, stacks, processes, _Crew(stacks, ended, train, board), board)


def _trained(
    assignments: Sequence[Assignment], stacks: Sequence[PlannedStack], processes: int, crew: _Crew, board: Board
) -> list[Outcome]:
    with _Follower(crew.reports, board), ThreadPoolExecutor(min(processes, len(stacks))) as threads:
        futures = [threads.submit(crew.work, index) for index in range(len(stacks))]
        try:
            for future in futures:
                future.result()
        except BaseException:
            crew.interrupt()
            for future in futures:
                future.cancel()
            raise
        finally:
            crew.close()
    if len(crew.outcomes) < len(assignments):
        raise FailFast(next(outcome.failure for outcome in crew.outcomes.values() if outcome.failure))
    return [crew.outcomes[number] for number in range(len(assignments))]


class _Crew:
    """The workers of a study, and what they have done; used by a thread for each of them."""

    def __init__(
        self,
        stacks: Sequence[PlannedStack],
        ended: Callable[[Mapping[int, Outcome]], bool],
        train: Train,
        board: Board,
    ) -> None:
        self._stacks, self._ended, self._train, self._board = stacks, ended, train, board
        self._context = multiprocessing.get_context("spawn")
        self.reports: Any = self._context.Queue()
        self.outcomes: dict[int, Outcome] = {}
        self._workers: list[Worker] = []
        self._idle: list[Worker] = []
        self._lock, self._stopped, self._interrupted = threading.RLock(), threading.Event(), threading.Event()

    def work(self, index: int) -> None:
        """Has a stack trained, unless no more is to be begun."""
        with self._lock:
            if self._stopped.is_set():
                return
            try:
                worker = self._worker()
            except OSError as error:  # no process can be started
                failed = self._stacks[index].outcomes(reason_of(error))
                self.outcomes.update(failed)
                if self._ended(failed):
                    self._stopped.set()
                return
        results = worker.train(index, self._stacks[index].assignments)
        with self._lock:  # here, before this thread begins another stack
            if worker.usable:
                self._idle.append(worker)
            told = self._stacks[index].outcomes(results)
            self.outcomes.update(told)
            self._board.ended(index)
            if not self._interrupted.is_set() and self._ended(told):
                self._stopped.set()

    def _worker(self) -> Worker:
        while self._idle:
            found = self._idle.pop()
            if found.alive:  # else killed while it had nothing to do
                return found
        self._workers.append(Worker(self._context, self.reports, self._train))
        return self._workers[-1]

    def interrupt(self) -> None:
        """Lets no process start behind our back, and tells those there are to close their runs."""
        with self._lock:
            self._stopped.set()
            self._interrupted.set()
        for process in multiprocessing.active_children():
            process.terminate()  # SIGTERM

    def close(self) -> None:
        """Returns once all processes have ended."""
        for worker in self._workers:
            worker.close()


class _Follower:
    """Shows on a board what the processes of the stacks report."""

    def __init__(self, reports: Any, board: Board) -> None:
        self._reports, self._board, self._done = reports, board, threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._done.is_set():
            try:
                index, step, total, shown = self._reports.get(timeout=0.2)
            except queue.Empty:
                continue
            if total:
                self._board.start(index, total)
            elif step is None:
                self._board.note(index, shown)
            else:
                self._board.update(index, step, shown)
