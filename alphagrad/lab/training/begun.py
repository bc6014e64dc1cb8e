"""What jobs' folders and the store know of runs that were begun and can go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import text_of
from alphagrad.common.words import squeezed
from alphagrad.lab.config.build import job_settings, recipe_class
from alphagrad.lab.config.compose import job_key
from alphagrad.lab.config.shape import brought_up, check_shape
from alphagrad.lab.records.folder import CONFIG, MEMBERS, STACK, STATES, members_of
from alphagrad.lab.records.lifecycle import Life, Standing, life_in, life_of
from alphagrad.lab.records.run import Tracker
from alphagrad.lab.records.search import JOB_KEY, recorded
from alphagrad.lab.records.untracked import Untracked
from alphagrad.lab.training.job import Assignment

LOST = Life(Standing.TAKEN_BACK, "is not in the store any more")


@dataclass(frozen=True)
class Begun:
    """A run that was begun by another process."""

    run_id: str
    """Empty for one that is not in the store."""
    ended: Life | None
    """How it ended; None for a run that goes on."""


def plain_config(folder: Path) -> dict[str, Any]:
    """The configuration that a run has noted in its folder.

    Raises:
        ConfigError: it cannot be read, or lacks what every job has; a line that names the file.
    """
    file = folder / CONFIG
    try:
        config = OmegaConf.load(StringIO(text_of(file)))
    except (OSError, YAMLError, OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{file}: cannot be read ({squeezed(error, 200)})") from error
    if not isinstance(config, DictConfig) or not config:
        raise ConfigError(f"{file}: holds no settings")
    with naming(folder):
        check_shape(config)
        brought_up(config, recipe_class(config.recipe._target_).Settings.model_fields)
        plain = check_shape(config)
        job_settings(config)
    return plain


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Puts the configuration's file before what is wrong with its settings, all in one line."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{folder / CONFIG}: {'; '.join(str(error).splitlines())}") from error


def begun(assignments: Sequence[Assignment], tracker: Tracker | Untracked, home: Path) -> list[Begun]:
    """What the jobs' folders hold of runs that can go on, one entry a job; nothing if they start anew.

    Raises:
        ConfigError: they are runs of other settings, or of another store, whose state would be lost.
    """
    members = members_of(home)
    if not isinstance(tracker, Tracker):
        return _by_folder(assignments, home)
    if len(members) != len(assignments):
        return _unnoted(assignments, tracker)
    known = not any(assignment.new_store for assignment in assignments)
    runs = [recorded(tracker.client, member.run_id, known) if member.run_id else None for member in members]
    if all(run is None for run in runs):
        if not known:
            return _by_folder(assignments, home)
        if any(home.glob(STATES)):
            folder = assignments[0].folder
            raise ConfigError(
                f"{folder}: holds the state of a run that is not in this store; `alphagrad resume {folder} "
                "--new-store` goes on with it here, or give another folder"
            )
        return []
    found: list[Begun] = []
    for assignment, member, run in zip(assignments, members, runs, strict=True):
        life = LOST if run is None else life_of(run)
        if run is None or life.taken_back:
            if not assignment.resume:
                return []
            found.append(Begun(member.run_id, life))
            continue
        goes_on = life.can_go_on or (assignment.resume and not life.over)
        if goes_on:
            _check_key(assignment, run.data.tags.get(JOB_KEY))
        found.append(Begun(member.run_id, None if goes_on else life))
    return [] if all(run.ended for run in found) else found


def unfinished(before: list[Begun], state: Mapping[str, Any] | None) -> list[Begun]:
    """Those that can go on; of runs that are in no store, their state says which have ended."""
    ended = {} if state is None else {row: life_in(kept) for row, kept in state["failures"].items()}
    return [
        replace(run, ended=ended[row]) if not run.run_id and row in ended else run for row, run in enumerate(before)
    ]


def going_on(folders: Sequence[Path], before: Sequence[Begun]) -> list[Path]:
    """The folders of the runs that are trained now."""
    return [folder for run, folder in enumerate(folders) if not (before and before[run].ended)]


def _check_key(assignment: Assignment, key: str | None) -> None:
    if key != job_key(OmegaConf.create(assignment.config)):
        raise ConfigError(f"{assignment.folder}: holds a run of other settings; give another folder")


def _by_folder(assignments: Sequence[Assignment], home: Path) -> list[Begun]:
    """Runs that are in no store: they go on where they have left a state."""
    if not any(home.glob(STATES)):
        return []
    for assignment in assignments:
        folder = Path(assignment.folder)
        if (folder / CONFIG).exists():
            _check_key(assignment, job_key(OmegaConf.create(plain_config(folder))))
    return [Begun("", None)] * len(assignments)


def _unnoted(assignments: Sequence[Assignment], tracker: Tracker) -> list[Begun]:
    """Runs that were killed between their creation in the store and the note that they train."""
    found: list[Begun] = []
    for assignment in assignments:
        folder = Path(assignment.folder)
        trained = (folder / STACK).exists() or (folder / MEMBERS).exists()  # in another stack
        created = (folder / CONFIG).exists() and not trained
        found.append(Begun((created and tracker.open_run(assignment.folder)) or "", None))
    return found if any(run.run_id for run in found) else []
