"""Files that are there whole or not at all, and paths of the user's that may be anything."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import cut, squeezed

LARGEST = 1 << 26
"""Bytes of a file of text; a list of a hundred thousand jobs has fewer."""
LONGEST_NAME = 255 - len(".tmp4194304-")
"""Bytes of a file's name that :func:`atomic` can write, on Linux and macOS."""
UNFINISHED = ".tmp*"
"""The names of what :func:`atomic` was writing when its process was killed."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Where to write a file that appears at ``path`` once the block ends, on the disk for good.

    Of a block that raises nothing is left, and what stood at ``path`` still does. The name it is written under ends
    as that of ``path`` does, since programs choose by it how to write.

    Raises:
        ConfigError: what stands there is no file, but a device or a pipe, say, which would be lost.
        OSError: the disk does not take it.
    """
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: is no regular file; give another")
    temporary = path.with_name(f".tmp{os.getpid()}-{path.name}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)  # the new name, too


def write_by(path: Path, write: Callable[[Path], None]) -> None:
    """Makes a file, :func:`atomic`: ``write`` makes it at the path it is given."""
    with atomic(path) as temporary:
        write(temporary)


def write_whole(path: Path, text: str) -> None:
    """Writes a small file, :func:`atomic`; :class:`ConfigError` where a folder has its name."""
    check_files(path.parent, path.name)
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def text_of(file: Path, largest: int = LARGEST) -> str:
    """What a file of text holds.

    Raises:
        ConfigError: it is no regular file, cannot be read, is larger than ``largest`` bytes, or holds no text.
        FileNotFoundError: it is not there.
    """
    if file.exists() and not file.is_file():  # to read a pipe would wait for ever
        raise ConfigError(f"{file}: is no regular file")
    try:
        if file.stat().st_size > largest:
            raise ConfigError(f"{file}: is damaged, it holds {file.stat().st_size:,} bytes, more than {largest:,}")
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({squeezed(error, 200)})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is damaged, it holds no text ({squeezed(error, 200)})") from error


def check_target(option: str, file: Path) -> None:
    """Raises :class:`ConfigError` for what cannot become a file: it is a folder or a device, or in no folder."""
    if len(file.name.encode()) > LONGEST_NAME:
        raise ConfigError(f"{option}={cut(file)}: is longer than a file's name may be")
    if not is_folder(file.absolute().parent) or (file.exists() and not file.is_file()):
        raise ConfigError(f"{option}={file}: has to be a file in a folder that exists")


def check_files(folder: Path, *names: str) -> None:
    """Raises :class:`ConfigError` where a folder has the name of a file that is to be written."""
    for name in names:
        if (folder / name).is_dir():
            raise ConfigError(f"{folder / name}: is a folder, and is to be a file; remove it")


def check_lock(path: Path) -> None:
    """Raises :class:`ConfigError` for what stands where a lock file is to be and is none: nobody could hold it."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ConfigError(f"{path}: is to be a lock file and is no regular file; remove it")


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
