"""Warnings of libraries: each is shown once a command, in one line, whichever of its processes it comes from."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from alphagrad.common.words import plain, squeezed

SHOWN = "ALPHAGRAD_WARNINGS_SHOWN"
"""Variable of the environment: a folder with a file for each warning that was shown, for all processes of a command."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_here: set[tuple[str, str]] = set()
"""What this process has shown of which command, where no file can say so."""


def is_new(message: object) -> bool:
    """Whether no process of this command has shown a warning yet; it then counts as shown."""
    folder = os.environ.get(SHOWN, "")
    name = hashlib.sha256(str(message).encode("utf-8", "replace")).hexdigest()[:32]
    try:
        os.close(os.open(Path(folder or os.devnull, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        return True
    except FileExistsError:
        return False
    except OSError:  # on another machine, or the disk is full: once a process
        new = (folder, name) not in _here
        _here.add((folder, name))
        return new


def _one_line(message: Any, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    text = squeezed(plain(_COLOURS.sub("", str(message)), lines=True))
    return f"{category.__name__} of {_library(filename)}: {text.removeprefix('WARN: ')}\n"


def _library(filename: str) -> str:
    """The package that a file is of."""
    parts = Path(filename).parts
    for place in ("site-packages", "dist-packages"):
        if place in parts[:-1]:
            return parts[len(parts) - parts[::-1].index(place)].removesuffix(".py")
    return Path(filename).stem


def show_once() -> None:
    """From now on this process shows a warning only where it :func:`is_new`."""

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        if is_new(message):
            told = warnings.WarningMessage(message, category, filename, lineno, file, line)
            with suppress(OSError, ValueError):
                warnings._showwarnmsg_impl(told)  # type: ignore[attr-defined]

    warnings.showwarning = show
    warnings.formatwarning = _one_line


@contextmanager
def once() -> Iterator[None]:
    """A command: what its processes warn of is shown once, by this one and by those that it starts."""
    before = warnings.showwarning, warnings.formatwarning
    if os.environ.get(SHOWN):  # one that another command has started
        show_once()
        try:
            yield
        finally:
            warnings.showwarning, warnings.formatwarning = before
        return
    folder = ""
    with suppress(OSError):
        folder = tempfile.mkdtemp(prefix="alphagrad-")
    os.environ[SHOWN] = folder
    show_once()
    try:
        yield
    finally:
        warnings.showwarning, warnings.formatwarning = before
        os.environ.pop(SHOWN, None)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
