"""This process's place among those that torchrun has started."""

from __future__ import annotations

import os

from alphagrad.common.errors import ConfigError, Terminated


def count() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that records, as one alone is."""
    return os.environ.get("RANK", "0") == "0"


def local() -> int:
    """This process's number on its machine, and its GPU's."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def alone(command: str) -> None:
    """Ends a command that is not for torchrun; :class:`ConfigError` in the first process, quietly in the others."""
    if count() > 1 and not is_first():
        raise Terminated(0)
    if count() > 1:
        raise ConfigError(f"{command}: not under torchrun, which trains a single run")
