"""A run's folder: whose it is, whether its process lives, and what it goes on from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import UNFINISHED, check_lock, text_of, write_whole
from alphagrad.common.words import cut, is_plain, plain, squeezed

LOG = logging.getLogger("alphagrad")
CONFIG = "config.yaml"
RUN_ID = "run_id"
LOCK = "lock"
"""Held by the process that trains the run, and so free once it is gone, however it went."""
STACK = "stack"
"""Names the folder of the stack that the run is a member of, relative to its own."""
MEMBERS = "members.json"
"""The runs of a stack in their order; in the run's own folder if it trains alone."""
STATES = "state-*.pt"
TRAJECTORY = "trajectory"
"""The folder of the models that a run keeps on its way, in its own."""
DAMAGED = ".damaged"
"""What the name of a state ends with that was put aside."""
LOCK_SECONDS = 2.0
"""How long a lock that another process may only be looking at is waited for."""


@dataclass(frozen=True)
class Member:
    """A run of a stack, as :data:`MEMBERS` has it."""

    folder: str
    """Relative to the stack's."""
    title: str
    run_id: str


def run_id_of(folder: Path) -> str | None:
    """The run that has this folder, if any."""
    file = folder / RUN_ID
    if not file.exists():
        return None
    text = text_of(file).strip()
    if text and not re.fullmatch(r"[0-9a-zA-Z_-]{1,64}", text):
        raise ConfigError(f"{file}: is damaged, it holds no run id; the store's tags say whose folder it is")
    return text or None


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """A lock file held for as long as the context lasts.

    Raises:
        ConfigError: another process holds it, or it cannot be one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    check_lock(path)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        owner = ""
        with suppress(OSError):
            owner = cut(plain(path.read_text(encoding="utf-8", errors="replace").strip()))
        owner = owner or "another process"
        raise ConfigError(f"{path.parent}: is in use by {owner}; wait until it has ended, or end it") from error
    try:
        with suppress(OSError):  # a disk that is full: the lock holds all the same
            path.write_text(f"process {os.getpid()} on {platform.node()}\n")
        yield
    finally:
        with suppress(OSError):  # a disk that cannot be written any more: what is left is held by nobody
            path.unlink(missing_ok=True)
        lock.release()


def is_held(lock: Path) -> bool:
    """Whether a living process holds a lock file; nobody holds one that does not exist, or is none."""
    if lock.is_symlink() or not lock.is_file():
        return False
    probe = FileLock(lock)
    try:
        probe.acquire(timeout=0)
    except Timeout:
        return True
    probe.release()
    return False


def is_training(folder: Path, run_id: str, host: str) -> bool:
    """Whether a run that its store calls RUNNING is: a process holds its folder, or it cannot be seen from here."""
    if not folder.exists() and host != platform.node():
        return True
    return is_held(folder / LOCK) and run_id_of(folder) in (None, run_id)


def home_of(folders: Sequence[Path]) -> Path:
    """Where a stack of runs keeps its state: a run alone in its own folder, several beside the first."""
    if len(folders) == 1:
        return folders[0]
    names = " ".join(folder.name for folder in folders)
    return folders[0].parent / f"stack-{hashlib.sha256(names.encode()).hexdigest()[:8]}"


def write_members(home: Path, members: Sequence[tuple[Path, str, str]], going_on: Sequence[Path]) -> None:
    """Notes the runs of a stack, (folder, title, run id) each, so that each that goes on leads to all."""
    listed = [asdict(Member(os.path.relpath(folder, home), title, run_id)) for folder, title, run_id in members]
    write_whole(home / MEMBERS, json.dumps(listed, indent=1, ensure_ascii=False))
    for folder in going_on:
        if folder != home:
            write_whole(folder / STACK, os.path.relpath(home, folder))


def members_of(home: Path) -> list[Member]:
    """The runs of the stack that has this folder; none if it had not begun to train."""
    file = home / MEMBERS
    try:
        members = [Member(**entry) for entry in json.loads(text_of(file))]
        if not all(isinstance(value, str) and is_plain(value) for m in members for value in asdict(m).values()):
            raise ValueError("holds what is no text")
        return members
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{file}: is damaged ({squeezed(error, 200)}); delete {home} to train its runs anew"
        ) from error


def folders_of(home: Path, members: Sequence[Member]) -> list[Path]:
    """The folders of a stack's runs, in their order."""
    return [Path(os.path.normpath(home / member.folder)) for member in members]


def stack_of(folder: Path) -> tuple[Path, list[Member]]:
    """The home of the stack that a run belongs to, and its members; none if the run had not begun to train."""
    home = folder
    with suppress(FileNotFoundError):
        named = text_of(folder / STACK).strip()
        if not re.fullmatch(rf"{STACK}-[0-9a-f]{{8}}", os.path.basename(named)):  # as home_of has them
            raise ConfigError(f"{folder / STACK}: is damaged, it names no stack; remove it to train the run anew")
        home = Path(os.path.normpath(folder / named))
    members = members_of(home)
    return (home, members) if members else (folder, [])


def disband(home: Path, folders: Sequence[Path]) -> None:
    """Removes what held a stack together, which has ended; a run that has meanwhile joined another stays there."""
    for folder in folders:
        if stack_of(folder)[0] == home:
            (folder / STACK).unlink(missing_ok=True)
    (home / MEMBERS).unlink(missing_ok=True)
    if home not in folders:
        with suppress(OSError):  # removed by another process already, or somebody keeps something there
            home.rmdir()


def clear_trajectory(folder: Path) -> None:
    """Removes the models that a run has kept on its way."""
    for file in (folder / TRAJECTORY).glob("step-*.pt"):
        file.unlink(missing_ok=True)


def clear_states(home: Path) -> None:
    """Removes all states of a stack, and what a killed process was writing."""
    for file in [*home.glob(STATES), *home.glob(STATES + DAMAGED), *home.glob(UNFINISHED), *home.glob("*.tmp")]:
        if not file.is_dir():  # nobody's state
            file.unlink(missing_ok=True)


def tidy(over: Set[Path]) -> None:
    """Removes what a process killed at its very end has left to go on from, of stacks whose runs are over all.

    Args:
        over: the folders of runs that can never go on.
    """
    stacks = {home for parent in {folder.parent for folder in over} for home in parent.glob(f"{STACK}-*")}
    for home in {*over, *stacks}:
        try:
            folders = folders_of(home, members_of(home))
        except ConfigError:
            LOG.warning("%s: is damaged, and left alone", home / MEMBERS)
            continue
        if all(folder in over for folder in folders or [home]):
            clear_states(home)
            disband(home, folders or [home])


def forget(folder: Path) -> None:
    """Removes what a run would go on from: the next one in this folder starts anew."""
    for name in (RUN_ID, STACK, MEMBERS):
        (folder / name).unlink(missing_ok=True)
    clear_states(folder)
    clear_trajectory(folder)
