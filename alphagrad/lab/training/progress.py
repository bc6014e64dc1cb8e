"""How far a run is, with its rate and the time left: a line that moves on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from alphagrad.common.words import plain, say

PLAIN_SECONDS = 60.0
"""Between two lines where the output is no terminal; what is over sooner writes none."""


def rate(steps_per_second: float) -> str:
    """As 0.63 steps/s, 1,250 steps/s."""
    return f"{steps_per_second:,.0f} steps/s" if steps_per_second >= 10 else f"{steps_per_second:.2g} steps/s"


class Progress(Protocol):
    """Shows how far a stack is; a context, within which it is called."""

    def __enter__(self) -> Progress: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def start(self, total: int) -> None:
        """Says how many steps there are."""

    def update(self, step: int, shown: str) -> None:
        """Says how far it is, with a few words; called often."""


class Silent:
    """Shows nothing: many workers share one terminal, or have none."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def start(self, total: int) -> None:
        pass

    def update(self, step: int, shown: str) -> None:
        pass


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(rate(speed) if speed else "", style="progress.data.speed")


class LineAMinute:
    """Progress for a file or a pipe: ``title: step 450 of 3,000 (15 %), 0.63 steps/s, 1:07:28 left, loss 3.54``."""

    def __init__(self, title: str) -> None:
        self._title, self._total = title, 0
        self._last: tuple[int, float] | None = None

    def start(self, total: int) -> None:
        """Says how many steps there are."""
        self._total, self._last = total, None

    def update(self, step: int, shown: str) -> None:
        """Writes a line if the last one is :data:`PLAIN_SECONDS` old, or the first call of this."""
        now = time.monotonic()
        if self._last is None:
            self._last = step, now
            return
        passed = now - self._last[1]
        if passed < PLAIN_SECONDS or not self._total:
            return
        speed = (step - self._last[0]) / passed
        left = f", {timedelta(seconds=round((self._total - step) / speed))} left" if speed > 0 else ""
        share = f"{100 * step // self._total} %"
        words = f"step {step:,} of {self._total:,} ({share}), {rate(speed)}{left}, {shown}".removesuffix(", ")
        # a log whose disk is full, or that nobody reads any more, is no reason to end the run
        with suppress(OSError, ValueError):
            say(f"{self._title}: {words}", err=True)
        self._last = step, now


class ProgressLine:
    """``with ProgressLine(title) as line: line.start(total); line.update(step, "return 35")``."""

    def __init__(self, title: str) -> None:
        self._plain = None if sys.stderr.isatty() else LineAMinute(title)
        self._progress = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}", markup=False),
            console=Console(stderr=True),
            speed_estimate_period=20,
            disable=self._plain is not None,
        )
        self._task = self._progress.add_task(plain(title), total=None, shown="")

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

    def update(self, step: int, shown: str) -> None:
        """Moves the line to ``step``."""
        if self._plain:
            self._plain.update(step, shown)
        else:
            self._progress.update(self._task, completed=step, shown=plain(shown))
