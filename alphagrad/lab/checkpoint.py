"""The files a stopped run goes on from: written whole or not at all, loaded without running anything in them."""

from __future__ import annotations

import os
import pickle
import re
import time
from pathlib import Path
from typing import Any

import torch

from alphagrad.lab.build import CheckpointSettings
from alphagrad.lab.errors import ConfigError
from alphagrad.lab.folder import STATES, clear_states

VERSION = 1
LARGEST_SHARE = 0.05
"""Of a run's time that checkpoints by time may take."""


class Checkpoints:
    """The states of a stack of runs, in its folder.

    Args:
        home: the folder.
        settings: when they are due and how many are kept.
    """

    def __init__(self, home: Path, settings: CheckpointSettings) -> None:
        self.home, self.settings = home, settings
        self._step, self._time = 0, time.monotonic()
        self._pause = settings.every_seconds or 0.0

    def due(self, step: int) -> bool:
        """Whether a state is to be saved now that the run is at ``step``."""
        steps = self.settings.every_steps
        if steps is not None and step // steps > self._step // steps:
            return True
        return self.settings.every_seconds is not None and time.monotonic() - self._time >= self._pause

    def save(self, step: int, content: dict[str, Any]) -> None:
        """Saves a state and removes those that ``keep_last`` does not keep.

        Raises:
            OSError: it could not be written; the last one stands.
        """
        start = time.monotonic()
        save_atomically({"version": VERSION, "step": step, **content}, self.home / f"state-{step:012d}.pt")
        for old in self.files()[: -self.settings.keep_last]:
            old.unlink()
        self._step, self._time = step, time.monotonic()
        self._pause = max(self.settings.every_seconds or 0.0, (self._time - start) / LARGEST_SHARE)

    def postpone(self, seconds: float) -> None:
        """Nothing is due for so long."""
        self._time, self._pause = time.monotonic(), seconds

    def load(self) -> dict[str, Any] | None:
        """The newest state, if there is one.

        Raises:
            ConfigError: the file is damaged, or holds what is no tensor or plain value.
        """
        files = self.files()
        if not files:
            return None
        state = load_safely(files[-1])
        if state.get("version") != VERSION:
            raise ConfigError(f"{files[-1]}: of version {state.get('version')}, this alphagrad reads {VERSION}")
        if "step" not in state:
            raise ConfigError(f"{files[-1]}: is damaged, it does not say its step; delete it")
        self._step = state["step"]
        return state

    def files(self) -> list[Path]:
        """The states that are there, oldest first."""
        return sorted(self.home.glob(STATES))

    def clear(self) -> None:
        """Removes all states, and what a killed process was writing."""
        clear_states(self.home)


def save_atomically(content: Any, path: Path) -> None:
    """``torch.save`` that leaves the whole file, on the disk, or none.

    Raises:
        OSError: it could not be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch has its own for a disk that is full
        temporary.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written: {' '.join(str(error).split())}") from error
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too
    finally:
        os.close(folder)


def load_safely(path: Path) -> dict[str, Any]:
    """A file of tensors and plain values; nothing in it is run.

    Raises:
        ConfigError: it holds something else, or is damaged.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL:? (\S+)", str(error))
        what = found[1] if found else "something else"
        raise ConfigError(f"{path}: refused, it holds more than tensors and plain values ({what})") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        told = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: cannot be read ({told}); delete it to go on from what was before it") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: is no checkpoint, it holds a {type(content).__name__}")
    return content
