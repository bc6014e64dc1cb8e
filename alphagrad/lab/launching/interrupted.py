"""Stacks that were interrupted, found again among the jobs of a study that is started again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alphagrad.lab.config.compose import BOOKKEEPING
from alphagrad.lab.records.folder import STATES, Member, folders_of, stack_of
from alphagrad.lab.records.lifecycle import life_of
from alphagrad.lab.records.search import recorded
from alphagrad.lab.store.address import NONE, store_uri
from alphagrad.lab.store.connection import open_store
from alphagrad.lab.store.patience import Patience
from alphagrad.lab.training.begun import plain_config
from alphagrad.lab.training.job import Assignment, Outcome


@dataclass(frozen=True)
class PlannedStack:
    """Jobs that train together."""

    assignments: list[Assignment]
    """Its rows, in their order."""
    jobs: dict[int, int]
    """Row → number of the job; a row that is missing here belongs to a run that has ended before."""

    def outcomes(self, results: Sequence[Outcome] | str) -> dict[int, Outcome]:
        """Number of the job → its outcome, from those of all rows or the failure of all."""
        if isinstance(results, str):
            results = [Outcome.failed(results)] * len(self.assignments)
        return {number: results[row] for row, number in self.jobs.items()}


def interrupted(assignments: Sequence[Assignment]) -> list[PlannedStack]:
    """The stacks that some of the jobs were in when they were stopped, where all that is left of a stack is wanted.

    They keep their shape: runs that have ended meanwhile keep their rows, which their state needs.
    """
    numbers = {Path(assignment.folder): number for number, assignment in enumerate(assignments)}
    homes = dict(stack_of(folder) for folder in numbers)
    found: list[PlannedStack] = []
    for home, members in homes.items():
        folders = folders_of(home, members)
        here = [folder for folder in folders if folder in numbers]
        if not here:
            continue
        like = assignments[numbers[here[0]]]
        rows = _unfinished(home, members, folders, like)
        if rows and all(folders[row] in numbers for row in rows):
            all_rows = [
                assignments[numbers[folder]] if row in rows else _ended(folder, member, like)
                for row, (folder, member) in enumerate(zip(folders, members, strict=True))
            ]
            found.append(PlannedStack(all_rows, {row: numbers[folders[row]] for row in rows}))
    return found


def _unfinished(home: Path, members: Sequence[Member], folders: Sequence[Path], like: Assignment) -> list[int]:
    """The rows whose runs can go on in their stack; none if it was being broken up."""
    uri = store_uri(like.config["tracking"]["uri"], str(like.config["output_root"]))
    if uri == NONE:  # those that have ended are rows of the state
        return list(range(len(members))) if any(home.glob(STATES)) else []
    client = open_store(uri, Patience.with_store(uri, float(like.config["tracking"]["retry_seconds"])))
    runs = [recorded(client, member.run_id) for member in members]
    lives = [None if run is None else life_of(run) for run in runs]
    if any(life is None or life.taken_back for life in lives):
        return []
    return [row for row, life in enumerate(lives) if stack_of(folders[row])[0] == home and life and life.can_go_on]


def _ended(folder: Path, member: Member, like: Assignment) -> Assignment:
    """What stands for a run that has ended; followed as its neighbours are."""
    config = plain_config(folder)
    same = {key: like.config[key] for key in BOOKKEEPING if key in like.config and key != "seed"}
    return Assignment({**config, **same}, member.title, str(folder))
