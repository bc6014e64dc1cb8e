"""Text in files: found by paths and patterns, and decoded."""

from __future__ import annotations

import codecs
from pathlib import Path

from alphagrad.harness.memory import memory, size

from ..supervised.roots import root_of

COPIES = 4
"""Of a text, in memory: bytes, characters, rows, tokens."""
MARKS = {  # the longer ones first: UTF-32's little-endian mark begins as UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Byte order marks of the encodings that are refused."""


def files_of(setting: str, pattern: str, root: str | None) -> list[Path]:
    """The file that a path names, else the files that a pattern does, sorted; relative ones lie below the root.

    What exists under its name is meant by it, a folder at the beginning of a pattern, too: ``a [1]/*.csv``.

    Raises:
        ValueError: there is none.
    """
    path = Path(pattern).expanduser()
    base = Path(path.anchor) if path.is_absolute() else root_of(root)
    rest = [*path.relative_to(path.anchor).parts]
    where = "" if path.is_absolute() else f" below {base} (data.root, else $ALPHAGRAD_DATA, else ./data)"
    try:
        while rest and (base / rest[0]).exists():
            base /= rest.pop(0)
        if not rest and base.is_file():
            return [base]
        found = sorted(f for f in base.glob("/".join(rest)) if f.is_file())
    # what pathlib raises for ., / and a**, and the system for names that are too long
    except (ValueError, IndexError, NotImplementedError, OSError) as error:
        raise ValueError(f"{setting}={pattern}: is neither a file nor a pattern of files ({error})") from error
    if not found:
        raise ValueError(f"{setting}={pattern}: no such file{where}")
    return found


def kind_of(file: Path) -> str:
    """A file's ending, in small letters."""
    return file.suffix.lower()


def read_text(asked: str, file: Path) -> str:
    """A text file whole, as it stands there but for UTF-8's byte order mark; ``asked`` is the setting that named it.

    Raises:
        ValueError: it cannot be read, or is not UTF-8.
    """
    try:
        length, most = file.stat().st_size, memory() / COPIES
        if length > most:
            raise ValueError(
                f"{asked}: {file} has {size(length)}, and this machine has memory for {size(most)} of text"
            )
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{asked}: {file} cannot be read ({error})") from error
    wanted = f"{asked}: {file} must be UTF-8, and"
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            raise ValueError(f"{wanted} is {encoding}; iconv -f {encoding} -t UTF-8 converts it")
    if (zero := content.find(0)) >= 0:
        raise ValueError(f"{wanted} byte {zero} of it is zero: it is UTF-16 or UTF-32 without a mark, or no text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(
            f"{wanted} byte {error.start} of it, {byte:#04x}, is not; iconv -f ENCODING -t UTF-8 converts it"
        ) from error
