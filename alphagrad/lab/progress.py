"""A progress line with rate and time left; nothing at all where the output is not a terminal."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} steps/s" if speed else "", style="progress.data.speed")


class ProgressLine:
    """``with ProgressLine(title) as line: line.start(total); line.update(step, "return 35")``."""

    def __init__(self, title: str) -> None:
        self._quiet = not sys.stderr.isatty()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=Console(stderr=True),
            speed_estimate_period=20,
            disable=self._quiet,
        )
        self._task = self._progress.add_task(title, total=None, shown="")

    def start(self, total: int) -> None:
        """Says how many steps there are."""
        self._progress.update(self._task, total=total)

    def __enter__(self) -> ProgressLine:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()

    def update(self, step: int, shown: str) -> None:
        """Moves the line to ``step``."""
        if not self._quiet:
            self._progress.update(self._task, completed=step, shown=shown)
