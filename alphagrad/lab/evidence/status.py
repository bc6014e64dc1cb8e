"""How far a study is: what `alphagrad status` and the end of a multirun show."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from rich.table import Table

from alphagrad.common.words import cell, cut
from alphagrad.lab.evidence.results import Results
from alphagrad.lab.evidence.tables import show, table
from alphagrad.lab.records.lifecycle import DEAD, SHOWN, STATUSES, life_of
from alphagrad.lab.records.search import FOLDER, PARENT, search
from alphagrad.lab.records.study import KIND, JobState, is_dead, job_states, titles_of


def summary(states: Iterable[JobState]) -> str:
    """``40 jobs: 30 finished, 4 running, 6 not begun; about 0:12:30 left``."""
    listed = list(states)
    counts = Counter(state.life.status for state in listed)
    order = (*STATUSES[-1:], *STATUSES[:-1])
    told = [f"{counts[s]} {SHOWN.get(s, s.lower())}" for s in order if counts[s]]
    left = left_of_all(listed)
    after = "" if left is None else f"; about {clock(left)} left"
    return f"{len(listed)} job{'s' if len(listed) != 1 else ''}: {', '.join(told) or 'none'}{after}"


def left_of_all(states: Sequence[JobState]) -> float | None:
    """Seconds until the jobs that train and those that wait are finished, about; None while nothing tells."""
    training = [state for state in states if state.life.running]
    left = [state.left for state in training if state.left is not None]
    whole = [s.seconds / s.done for s in states if s.done and (s.life.finished or s.life.running)]
    if not left or not whole:
        return None
    each, waiting = sum(whole) / len(whole), sum(not state.life.begun for state in states)
    return (sum(left) + each * (len(training) - len(left) + waiting)) / len(training)


def clock(seconds: float) -> str:
    """As 0:12:30."""
    return str(timedelta(seconds=round(seconds)))


def jobs_table(states: Iterable[JobState], under: str) -> Table:
    """A row for each job, in their order; folders are told relative to ``under``."""
    listed = list(states)
    names = list(dict.fromkeys(state.metric for state in listed if state.value)) or [""]
    metric = names[0] if len(names) == 1 else "judged by"
    headings = ("job", "state", "step", "time", "left", metric, "where", "why")
    shown = table(*headings, folded=("job", "why"), right=("step", "time", "left", metric))
    for state in listed:
        minutes, seconds = divmod(int(state.seconds), 60)
        time = f"{minutes}:{seconds:02d}" if state.run_id else ""
        left = "" if state.left is None else clock(state.left)
        value = f"{state.metric} {state.value}" if state.value and len(names) > 1 else state.value
        where = os.path.relpath(state.folder, under) if state.folder else ""
        job = state.title.removeprefix("optimizer=")
        row = (job, state.life.shown, state.step, time, left, value, where, cut(state.life.reason, 500))
        shown.add_row(*map(cell, row))
    return shown


def show_jobs(states: Iterable[JobState], under: str) -> None:
    """Prints the table."""
    show(jobs_table(states, under))


def near(folder: str) -> str:
    """A folder as it is named from here, where it lies below."""
    here = os.path.relpath(folder)
    return folder if here.startswith(os.pardir) else here


def common_folder(states: Iterable[JobState]) -> str:
    """The folder that holds those of all jobs; the root where they have none in common."""
    parents = [os.path.dirname(state.folder) for state in states if state.folder]
    return os.path.commonpath(parents) if parents else os.sep


def progress(results: Results, named: str | None) -> tuple[str, list[JobState], str]:
    """A study's title, the states of its jobs and its folder; or that of a single run, or of the newest single ones.

    Args:
        results: of the store.
        named: the id of a study or run, or its beginning; None for the newest.
    """
    client = results.client
    asked = results.newest() if named is None else results.named(named)
    if asked is None or KIND not in asked.data.tags:
        runs = _newest_single(results) if named is None else [asked]
        states = list(job_states(client, runs, {}).values())[::-1]
        return "Single runs" if named is None else f"Run {asked.info.run_id[:8]}", states, common_folder(states)
    dead = [asked] if is_dead(client, asked) else []
    life, folder = DEAD if dead else life_of(asked), asked.data.tags.get(FOLDER, "")
    runs = results.runs(asked)
    titles = titles_of(client, asked.info.run_id, folder)
    heading = f"Study {asked.info.run_id[:8]}, {life.shown}: {asked.info.run_name}"
    states = list(job_states(client, runs, titles, dead).values())
    return heading, states, folder or common_folder(states)


def _newest_single(results: Results) -> list[Any]:
    """The single runs since the newest study, the newest first."""
    found = []
    for run in search(results.client, experiments=results.experiments):
        if KIND in run.data.tags:
            break
        if PARENT not in run.data.tags:
            found.append(run)
    return found
