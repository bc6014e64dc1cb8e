"""What a study shows while it trains, under every launcher: jobs done, who trains, and the time left for all of it."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import TaskID

from alphagrad.common.cells import cells
from alphagrad.common.words import plain, say
from alphagrad.lab.launching.interrupted import PlannedStack
from alphagrad.lab.launching.jobs import CheckedJob
from alphagrad.lab.training.job import title_of
from alphagrad.lab.training.progress import PLAIN_WIDTH, Cadence, Lines, clock, elided, fitted, write

REPORT_SECONDS = 1.0
"""Between two reports of a worker, and two looks at them."""
REPORTS = ".progress"
"""Folder of a study's reports while it trains."""


class Board:
    """The progress of a study's stacks; a context, within which it is called, by any thread.

    Args:
        titles: of the stacks: who is inside.
        jobs: how many each has.
    """

    @classmethod
    def of(cls, stacks: Sequence[PlannedStack]) -> Board:
        """That of these stacks."""
        members = [member for stack in stacks for member in stack.assignments]
        names = iter(names_of([member.named for member in members]))
        titles = [inside([next(names) for _ in stack.assignments]) for stack in stacks]
        return cls(titles, [len(stack.jobs) for stack in stacks])

    def __init__(self, titles: Sequence[str], jobs: Sequence[int]) -> None:
        self._titles, self._jobs = [plain(title) for title in titles], list(jobs)
        self._total = [0] * len(jobs)
        self._step = [0] * len(jobs)
        self._over: set[int] = set()
        self._began: tuple[float, float] | None = None
        self._lock, self._cadence, self._moves = threading.RLock(), Cadence(), sys.stderr.isatty()
        self._lines = Lines(disable=not self._moves)
        self._whole = self._lines.add_task("", total=float(max(sum(jobs), 1)))
        self._tasks: dict[int, TaskID] = {}

    def __enter__(self) -> Board:
        self._lines.start()
        self._show()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._lines.stop()

    @property
    def done(self) -> int:
        """Jobs that have ended."""
        return sum(self._jobs[index] for index in self._over)

    @property
    def share(self) -> float:
        """Of all steps there are, about."""
        parts = [
            1.0 if n in self._over else self._step[n] / total if total else 0.0 for n, total in enumerate(self._total)
        ]
        return sum(part * jobs for part, jobs in zip(parts, self._jobs, strict=True)) / max(sum(self._jobs), 1)

    @property
    def left(self) -> float | None:
        """Seconds until all is done, about; None while nothing tells."""
        if self._began is None:
            return None
        since, from_share = self._began
        gained = self.share - from_share
        return (time.monotonic() - since) * (1 - self.share) / gained if gained > 1e-4 else None

    def start(self, index: int, total: int) -> None:
        """A stack begins: so many steps."""
        with self._lock:
            self._total[index] = total
            self._began = self._began or (time.monotonic(), self.share)  # what starts the workers is no training
            if self._moves:
                if index in self._tasks:  # its stack was broken up and begins anew
                    self._lines.remove_task(self._tasks.pop(index))
                self._tasks[index] = self._lines.add_task(self._titles[index], total=total, shown="", steps=True)
            self._show()

    def note(self, index: int, words: str) -> None:
        """Says what a stack does before its first step."""
        with self._lock:
            if index in self._tasks:
                self._lines.update(self._tasks[index], shown=plain(words))
            if not self._moves:
                write(fitted(f"{self._titles[index]}:", words, "", PLAIN_WIDTH, " "))

    def update(self, index: int, step: int, shown: str) -> None:
        """Says how far a stack is."""
        with self._lock:
            first, self._step[index] = self._step[index] == 0, step
            if first and step and self._began is not None and shown == "resumed":
                self._began = self._began[0], self._began[1] + step / max(self._total[index], 1) / len(self._jobs)
            if index in self._tasks:
                self._lines.update(self._tasks[index], completed=step, shown=plain(shown))
            self._show()
            if not self._moves and self._cadence.due():
                self.write(index)

    def write(self, index: int) -> None:
        """A line for a file or pipe."""
        share = f" {100 * self._step[index] // self._total[index]} %" if self._total[index] else ""
        others = len([n for n, step in enumerate(self._step) if step and n not in self._over and n != index])
        more = f", {others} more" if others else ""
        head = f"{self.told()}; "
        room = PLAIN_WIDTH - len(head) - len(share) - len(more)
        write(f"{head}{elided(self._titles[index], max(room, 8))}{share}{more}")

    def told(self) -> str:
        """``3/10 jobs, 34 %, 0:03:12 left``."""
        left = self.left
        after = "" if left is None else f", {clock(left)} left"
        return f"{self.done}/{sum(self._jobs)} jobs, {100 * self.share:.0f} %{after}"

    def ended(self, index: int) -> None:
        """A stack has ended."""
        with self._lock:
            self._over.add(index)
            if index in self._tasks:
                self._lines.remove_task(self._tasks.pop(index))
            self._show()

    def _show(self) -> None:
        """Moves the line of the whole study."""
        jobs = sum(self._jobs)
        self._lines.update(
            self._whole, description=f"{self.done}/{jobs} jobs", completed=self.share * jobs, left=self.left
        )


class Line:
    """The :class:`~alphagrad.lab.training.progress.Progress` of one stack of a board."""

    def __init__(self, board: Board, index: int) -> None:
        self._board, self._index = board, index

    def __enter__(self) -> Line:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def start(self, total: int) -> None:
        self._board.start(self._index, total)

    def note(self, words: str) -> None:
        self._board.note(self._index, words)

    def update(self, step: int, shown: str) -> None:
        self._board.update(self._index, step, shown)


class Boards:
    """The board of the jobs that a study trains in this process, one after the other: it is set up by the first."""

    def __init__(self, jobs: Sequence[CheckedJob]) -> None:
        configs = [job.config for job in jobs]
        titles = [title_of(job.config, job.words) for job in jobs]
        self._names = names_of([(str(c.recipe.name), t, int(c.seed)) for c, t in zip(configs, titles, strict=True)])
        self._held, self._board = ExitStack(), Board(self._names, [1] * len(jobs))
        self._entered = False

    def __enter__(self) -> Boards:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._held.close()

    def line(self, number: int) -> Line:
        """Takes the progress of a job."""
        if not self._entered:
            self._held.enter_context(self._board)
            self._entered = True
        return Line(self._board, number)

    def ended(self, number: int, told: str, place: str = "") -> None:
        """Says how a job ended."""
        self._board.ended(number)
        announce(self._names[number], told, place)


class Reporter:
    """Progress that another process shows, which finds it in a file; where none can be written, nothing is shown."""

    def __init__(self, file: str) -> None:
        self._file, self._told, self._written = Path(file), {"total": 0, "step": 0, "shown": "", "note": ""}, 0.0

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def start(self, total: int) -> None:
        self._tell(total=total)

    def note(self, words: str) -> None:
        self._tell(note=words)

    def update(self, step: int, shown: str) -> None:
        if time.monotonic() - self._written >= REPORT_SECONDS:
            self._tell(step=step, shown=shown)

    def _tell(self, **news: Any) -> None:
        self._told |= news
        self._written = time.monotonic()
        partial = self._file.with_suffix(".part")
        with suppress(OSError):
            partial.write_text(json.dumps(self._told), encoding="utf-8")
            partial.replace(self._file)


class Reports:
    """Follows the reports of a board's stacks in a folder, while it is entered."""

    def __init__(self, board: Board, folder: Path, stacks: int) -> None:
        self._board, self._folder = board, folder / REPORTS
        self.files = [str(self._folder / f"{index}.json") for index in range(stacks)]
        self._seen: dict[int, Mapping[str, Any]] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Reports:
        with suppress(OSError):  # a disk that is full is told by those that need it
            self._folder.mkdir(parents=True, exist_ok=True)
            self._clear()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        with suppress(OSError):
            self._clear()
            self._folder.rmdir()

    def _clear(self) -> None:
        for file in self._folder.iterdir():
            file.unlink(missing_ok=True)

    def _follow(self) -> None:
        while not self._done.wait(REPORT_SECONDS):
            for index, file in enumerate(self.files):
                with suppress(OSError, ValueError, KeyError, TypeError):
                    self._take(index, json.loads(Path(file).read_text(encoding="utf-8")))

    def _take(self, index: int, told: Mapping[str, Any]) -> None:
        before = self._seen.get(index, {})
        if told == before:
            return
        self._seen[index] = told
        if told["total"] != before.get("total"):
            self._board.start(index, int(told["total"]))
        if told["note"] and told["note"] != before.get("note"):
            self._board.note(index, str(told["note"]))
        if told["step"]:
            self._board.update(index, int(told["step"]), str(told["shown"]))


def names_of(jobs: Sequence[tuple[str, str, int]]) -> list[str]:
    """Jobs, each by recipe, title and seed: the cell, or the variant where nothing differs, and the seed."""
    configurations = [(recipe, title) for recipe, title, _ in jobs]
    alike = len(set(configurations)) == 1
    told = [title.split(" ")[0] for _, title in configurations] if alike else cells(configurations)
    return [f"{cell} seed={seed}" for cell, (_, _, seed) in zip(told, jobs, strict=True)]


def inside(names: Sequence[str]) -> str:
    """Who is in a stack: ``6 runs: adam, sin_tanh, seeds 0-2``, ``adam and 2 more``; of one job its name."""
    if len(names) == 1:
        return names[0]
    split = [name.rpartition(" seed=") for name in names]
    cells = list(dict.fromkeys(cell for cell, _, _ in split))
    seeds = sorted({int(seed) for _, _, seed in split})
    span = f"seeds {seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    told = ", ".join(cells) if len(cells) < 3 else f"{cells[0]} and {len(cells) - 1} more"
    return f"{len(names)} runs: {told}, {span}"


def announce(name: str, told: str, place: str = "", err: bool = False) -> None:
    """Prints how a job ended, in a line."""
    say(f"{name}: {told}" + (f" (in {place})" if place else ""), err=err)
