"""The files a stopped run goes on from: written whole or not at all, loaded without running anything in them."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import re
import time
from pathlib import Path
from typing import Any, BinaryIO

import torch

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import atomic
from alphagrad.lab.records.folder import DAMAGED, STATES, TRAJECTORY, clear_states

LOG = logging.getLogger("alphagrad")
VERSION = 2
READABLE = (1, VERSION)
"""Version 1 had no digests."""
LEAST = 2
"""States that are kept while a run goes on, so that one is left if the newest is damaged."""
DIGEST = b"alphagrad sha256 "
"""Stands before the digest at the end of a file, which is a ZIP archive's comment."""
ARCHIVE_END = b"PK\x05\x06"
LARGEST_SHARE = 0.05
"""Of a run's time that checkpoints by time may take."""


class Checkpoints:
    """The states of a stack of runs, in its folder.

    Args:
        home: the folder.
        every_seconds: between two of them; None: not by time.
        every_steps: likewise in steps.
        keep_last: how many are kept of a run that goes on.
    """

    def __init__(
        self, home: Path, every_seconds: float | None = None, every_steps: int | None = None, keep_last: int = LEAST
    ) -> None:
        self.home, self.every_seconds, self.every_steps, self.keep_last = home, every_seconds, every_steps, keep_last
        self._step, self._time = 0, time.monotonic()
        self._pause = every_seconds or 0.0

    def due(self, step: int) -> bool:
        """Whether a state is to be saved now that the run is at ``step``."""
        steps = self.every_steps
        if steps is not None and step // steps > self._step // steps:
            return True
        return self.every_seconds is not None and time.monotonic() - self._time >= self._pause

    def save(self, step: int, content: dict[str, Any]) -> None:
        """Saves a state and removes those that ``keep_last`` does not keep.

        Raises:
            OSError: it could not be written; the last one stands.
        """
        start = time.monotonic()
        save_atomically({"version": VERSION, "step": step, **content}, self.home / f"state-{step:012d}.pt")
        for old in self.files()[: -max(LEAST, self.keep_last)]:
            if not old.is_dir():
                old.unlink(missing_ok=True)
        self._step, self._time = step, time.monotonic()
        self._pause = max(self.every_seconds or 0.0, (self._time - start) / LARGEST_SHARE)

    def postpone(self, seconds: float) -> None:
        """Nothing is due for so long."""
        self._time, self._pause = time.monotonic(), seconds

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole, if there is one; one that is damaged is said, and put aside.

        Raises:
            ConfigError: all are damaged, or one holds what is no tensor or plain value.
        """
        files = self.files()
        damaged: list[tuple[Path, Damaged]] = []
        for file in reversed(files):
            try:
                state = _whole_state(file)
            except Damaged as error:
                damaged.append((file, error))
                continue
            for other, why in damaged:
                LOG.warning("%s; the state before it is used, of step %d", why, state["step"])
                other.replace(other.with_name(other.name + DAMAGED))
            self._step = state["step"]
            return state
        if damaged:
            raise ConfigError(f"{damaged[0][1]}; no other is left, delete it to train from the beginning")
        return None

    def told(self, folder: Path) -> str:
        """What is kept, in words; where, unless that is ``folder``."""
        files = self.files()
        if not files:
            return "no state kept"
        where = "" if files[-1].parent == folder else f" in {files[-1].parent}"
        return f"step {int(files[-1].stem.rpartition('-')[2])} is kept{where}"

    def files(self) -> list[Path]:
        """The states that are there, oldest first."""
        return sorted(self.home.glob(STATES))

    def clear(self) -> None:
        """Removes all states, and what a killed process was writing."""
        clear_states(self.home)


def trajectory_of(folder: Path) -> list[Path]:
    """The models that a run has kept on its way, in their order."""
    return sorted((folder / TRAJECTORY).glob("step-*.pt"))


def save_atomically(content: Any, path: Path) -> None:
    """``torch.save`` that leaves the whole file, on the disk, or none.

    Raises:
        OSError: it could not be written.
    """
    try:
        with atomic(path) as temporary, temporary.open("wb+") as file:
            torch.save(content, file)
            _sign(file)
    except (OSError, RuntimeError) as error:  # torch has its own for a disk that is full
        raise OSError(f"{path} cannot be written: {' '.join(str(error).split())}") from error


class Damaged(ConfigError):
    """A file is not what was written."""


def _sign(file: BinaryIO) -> None:
    """Ends an archive with the digest of all before it, as its comment, which those who read it pass over."""
    file.seek(-22, io.SEEK_END)  # the end record of an archive without a comment
    if file.read(4) != ARCHIVE_END:
        raise RuntimeError("torch.save wrote no archive that can be signed")
    file.seek(-2, io.SEEK_END)
    file.write((len(DIGEST) + 64).to_bytes(2, "little"))
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.seek(0, io.SEEK_END)
    file.write(DIGEST + digest.encode())


def _check_digest(path: Path) -> bool:
    """Whether a file has a digest; :class:`Damaged` if it is not that of its content."""
    size = len(DIGEST) + 64
    with path.open("rb") as file:
        length = file.seek(0, io.SEEK_END)
        if length < size:
            return False
        file.seek(-size, io.SEEK_END)
        comment = file.read()
        if not comment.startswith(DIGEST):
            return False
        file.seek(0)
        found, left = hashlib.sha256(), length - size
        while left and (block := file.read(min(left, 1 << 20))):
            found.update(block)
            left -= len(block)
    if found.hexdigest().encode() != comment[len(DIGEST) :]:
        raise Damaged(f"{path}: is damaged, its content is not what was written")
    return True


def _whole_state(path: Path) -> dict[str, Any]:
    """A state, whole; :class:`Damaged` if it is not."""
    state = load_safely(path)
    if state.get("version") not in READABLE:
        raise ConfigError(f"{path}: of version {state.get('version')}, this alphagrad reads {VERSION}")
    if "step" not in state:
        raise Damaged(f"{path}: is damaged, it does not say its step")
    if state["version"] != 1 and not _check_digest(path):
        raise Damaged(f"{path}: is damaged, it has lost its digest")
    return state


def load_safely(path: Path) -> dict[str, Any]:
    """A file of tensors and plain values; nothing in it is run.

    Raises:
        Damaged: it cannot be read, or its digest is not that of its content.
        ConfigError: it holds something else.
    """
    if not path.is_file():  # to read a pipe would wait for ever
        raise Damaged(f"{path}: is damaged, it is no regular file")
    try:
        _check_digest(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):
            raise Damaged(f"{path}: is damaged, it is no archive") from error
        found = re.search(r"GLOBAL:? (\S+)", str(error))
        what = found[1] if found else "something else"
        raise ConfigError(f"{path}: refused, it holds more than tensors and plain values ({what})") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        told = " ".join(str(error).split())[:200]
        raise Damaged(f"{path}: is damaged, it cannot be read ({told})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: is no checkpoint, it holds a {type(content).__name__}")
    return content
