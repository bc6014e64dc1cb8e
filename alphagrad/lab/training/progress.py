"""How far a run is, with its rate and the time left: a line that moves on a terminal, short lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import Progress as Bars
from rich.progress import Task, TaskID
from rich.text import Text

from alphagrad.common.words import plain, say

FIRST_SECONDS = 5.0
"""Until the first line where the output is no terminal; each next one takes twice as long, up to the next constant."""
PLAIN_SECONDS = 60.0
PLAIN_WIDTH = 80
"""Characters of such a line."""
SHORTEST = 12
"""Characters that are left of a title."""


def rate(steps_per_second: float) -> str:
    """As 0.63 steps/s, 1,250 steps/s."""
    return f"{steps_per_second:,.0f} steps/s" if steps_per_second >= 10 else f"{steps_per_second:.2g} steps/s"


def clock(seconds: float) -> str:
    """As 0:12:30."""
    return str(timedelta(seconds=round(seconds)))


def elided(title: str, room: int) -> str:
    """A title without its middle, in so many characters; its end, which has the seed, is kept."""
    if len(title) <= room:
        return title
    end = room // 2
    return f"{title[: room - end - 1]}…{title[len(title) - end :] if end else ''}" if room > 0 else ""


def fitted(title: str, told: str, shown: str, width: int, between: str = "  ") -> str:
    """``title  told  shown`` in a width: the title is elided first, then ``shown`` goes, and ``told`` never."""
    for tail in dict.fromkeys((shown, "")):
        after = between.join(part for part in (told, tail) if part)
        room = width - len(after) - len(between)
        if room >= min(SHORTEST, len(title)) or not tail:
            return between.join(part for part in (elided(title, max(room, 0)), after) if part)
    return told


class Progress(Protocol):
    """Shows how far a stack is; a context, within which it is called."""

    def __enter__(self) -> Progress: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def start(self, total: int) -> None:
        """Says how many steps there are."""

    def note(self, words: str) -> None:
        """Says what is done before the first step."""

    def update(self, step: int, shown: str) -> None:
        """Says how far it is, with a few words; called often."""


class Cadence:
    """When a line is due where the output is no terminal: soon after the start, then ever more rarely."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._pause = FIRST_SECONDS

    def due(self) -> bool:
        """Whether a line is; it then counts as written."""
        if time.monotonic() - self._last < min(self._pause, PLAIN_SECONDS):
            return False
        self._last, self._pause = time.monotonic(), min(2 * self._pause, PLAIN_SECONDS)
        return True


class ShortLines:
    """Progress for a file or a pipe: ``title: 450 of 3,000 (15 %), 0.63 steps/s, 1:07:28 left, loss 3.54``."""

    def __init__(self, title: str) -> None:
        self._title, self._total = title, 0
        self._last: tuple[int, float] | None = None
        self._cadence = Cadence()

    def start(self, total: int) -> None:
        """Says how many steps there are."""
        self._total, self._last = total, None
        self.note(f"begins, {total:,} steps")

    def note(self, words: str) -> None:
        """Writes a line."""
        write(fitted(f"{self._title}:", words, "", PLAIN_WIDTH, " "))

    def update(self, step: int, shown: str) -> None:
        """Writes a line if one is due."""
        now = time.monotonic()
        if self._last is None:
            self._last, self._cadence = (step, now), Cadence()
            return
        if not self._total or not self._cadence.due():
            return
        speed = (step - self._last[0]) / max(now - self._last[1], 1e-9)
        left = f", {clock((self._total - step) / speed)} left" if speed > 0 else ""
        share = f"{100 * step // self._total} %"
        told = f"{step:,} of {self._total:,} ({share}), {rate(speed)}{left}"
        if len(told) + len(shown) + min(len(self._title), 24) + 4 > PLAIN_WIDTH:
            told = f"{share}, {rate(speed)}{left}"
        write(fitted(f"{self._title}:", told + ("," if shown else ""), shown, PLAIN_WIDTH, " ").removesuffix(","))
        self._last = step, now


def write(line: str) -> None:
    """Writes a line of progress; a log whose disk is full, or that nobody reads any more, ends no run."""
    with suppress(OSError, ValueError):
        say(line, err=True)


class Lines(Bars):
    """Lines of progress on a terminal, one a task: its title, share, rate, time left and a few words."""

    def __init__(self, disable: bool) -> None:
        # what is printed to a file is none of the terminal's
        super().__init__(
            console=Console(stderr=True),
            speed_estimate_period=20,
            disable=disable,
            redirect_stdout=sys.stdout.isatty(),
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """The lines."""
        for task in self.tasks:
            if task.visible:
                yield Text(self.line(task, self.console.width - 1), no_wrap=True, overflow="crop")

    @staticmethod
    def line(task: Task, width: int) -> str:
        """One of them."""
        told = [f"{task.percentage:3.0f} %"] if task.total else []
        speed = task.finished_speed or task.speed
        if task.fields.get("steps") and speed:
            told.append(rate(speed))
        left = task.fields.get("left") or (task.time_remaining if task.total else None)
        if left is not None and not task.finished:
            told.append(f"{clock(left)} left")
        return fitted(task.description, "  ".join(told), str(task.fields.get("shown", "")), width)


class ProgressLine:
    """``with ProgressLine(title) as line: line.start(total); line.update(step, "return 35")``."""

    def __init__(self, title: str) -> None:
        self._plain = None if sys.stderr.isatty() else ShortLines(title)
        self._progress = Lines(disable=self._plain is not None)
        self._task: TaskID = self._progress.add_task(plain(title), total=None, shown="", steps=True)

    def start(self, total: int) -> None:
        """Says how many steps there are."""
        self._progress.update(self._task, total=total)
        if self._plain:
            self._plain.start(total)

    def __enter__(self) -> ProgressLine:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()

    def note(self, words: str) -> None:
        """Says what is done before the first step."""
        if self._plain:
            self._plain.note(words)
        self._progress.update(self._task, shown=plain(words))

    def update(self, step: int, shown: str) -> None:
        """Moves the line to ``step``."""
        if self._plain:
            self._plain.update(step, shown)
        else:
            self._progress.update(self._task, completed=step, shown=plain(shown))
