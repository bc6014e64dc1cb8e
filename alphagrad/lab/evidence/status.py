"""How far a study is: what `alphagrad status` and the end of a multirun show."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from alphagrad.common.words import cell, cut
from alphagrad.lab.evidence.results import Results
from alphagrad.lab.records.lifecycle import DEAD, STATUSES, life_of
from alphagrad.lab.records.search import FOLDER
from alphagrad.lab.records.study import JobState, is_dead, job_states, titles_of


def summary(states: Iterable[JobState]) -> str:
    """``40 jobs: 35 finished, 5 failed``."""
    listed = list(states)
    counts = Counter(state.life.status for state in listed)
    told = [f"{counts[s]} {s.lower()}" for s in (*STATUSES[-1:], *STATUSES[:-1]) if counts[s]]
    return f"{len(listed)} job{'s' if len(listed) != 1 else ''}: {', '.join(told) or 'none'}"


def jobs_table(states: Iterable[JobState], under: str) -> Table:
    """A row for each job, those that need a look first; folders are told relative to ``under``."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("job", "state", "step", "time", "why", "where"):
        right = column in ("step", "time")
        whole = column not in ("job", "why")
        shown.add_column(column, overflow="fold", no_wrap=whole, justify="right" if right else "left")
    for state in sorted(states, key=lambda s: STATUSES.index(s.life.status)):
        minutes, seconds = divmod(int(state.seconds), 60)
        time = f"{minutes}:{seconds:02d}" if state.run_id else ""
        where = os.path.relpath(state.folder, under) if state.folder else ""
        row = (state.title, state.life.status.lower(), state.step, time, cut(state.life.reason, 500), where)
        shown.add_row(*map(cell, row))
    return shown


def show_jobs(states: Iterable[JobState], under: str) -> None:
    """Prints the table; steps and folders are never broken, even if that is wider than the terminal."""
    shown, console = jobs_table(states, under), Console()
    needed = Measurement.get(console, console.options.update(width=1000), shown).minimum
    Console(width=max(console.width, needed)).print(shown)


def common_folder(states: Iterable[JobState]) -> str:
    """The folder that holds those of all jobs; the root where they have none in common."""
    parents = [os.path.dirname(state.folder) for state in states if state.folder]
    return os.path.commonpath(parents) if parents else os.sep


def progress(results: Results, study: str | None) -> tuple[str, list[JobState], str]:
    """A study's title, the states of its jobs and its folder; the newest study by default, else all runs there are."""
    client, parent = results.client, results.parent(study)
    runs = results.runs(parent)
    if parent is None:
        found = list(job_states(client, runs, {}).values())
        return "All runs", found, common_folder(found)
    dead = [parent] if is_dead(client, parent) else []
    status = (DEAD if dead else life_of(parent)).status
    folder = parent.data.tags.get(FOLDER, "")
    titles = titles_of(client, parent.info.run_id, folder)
    heading = f"Study {parent.info.run_name} ({parent.info.run_id[:8]}), {status.lower()}"
    states = list(job_states(client, runs, titles, dead).values())
    return heading, states, folder or common_folder(states)
