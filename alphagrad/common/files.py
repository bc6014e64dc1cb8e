"""Files that are there whole or not at all, and paths of the user's that may be anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import squeezed

UNFINISHED = ".tmp*"
"""The names of what :func:`atomic` was writing when its process was killed."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Where to write a file that appears at ``path`` once the block ends, on the disk for good.

    Of a block that raises nothing is left, and what stood at ``path`` still does. The name it is written under ends
    as that of ``path`` does, since programs choose by it how to write.

    Raises:
        OSError: the disk does not take it.
    """
    temporary = path.with_name(f".tmp{os.getpid()}-{path.name}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)  # the new name, too


def write_whole(path: Path, text: str) -> None:
    """Writes a small file, :func:`atomic`."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def text_of(file: Path) -> str:
    """What a small file holds.

    Raises:
        ConfigError: it is no regular file, cannot be read, or holds no text.
        FileNotFoundError: it is not there.
    """
    if file.exists() and not file.is_file():  # to read a pipe would wait for ever
        raise ConfigError(f"{file}: is no regular file")
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({squeezed(error, 200)})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is damaged, it holds no text ({squeezed(error, 200)})") from error


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder at this path; what is too long, or no path at all, is none."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
