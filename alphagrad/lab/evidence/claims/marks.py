"""A page that people write, with blocks between its marks that are filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import text_of
from alphagrad.common.words import listed

BLOCKS = ("verdicts", "claims")
MARK = re.compile(rf"^<!-- (end of )?({'|'.join(BLOCKS)}) -->$", re.MULTILINE)
BARE = "\n".join(f"<!-- {name} -->\n<!-- end of {name} -->\n" for name in BLOCKS)


def page_of(file: Path, names: Sequence[str]) -> str:
    """What stands in a page: its text, and its marks in pairs. The marks alone of one that is to be made.

    Args:
        file: the page.
        names: of the claims that are to stand in it.

    Raises:
        ConfigError: it cannot be read, its marks are not in pairs, or it has other claims, too. A page that has no
            marks is not to be written over.
    """
    page = text_of(file) if file.exists() else ""
    if not page.strip():
        return BARE
    seen: list[str] = []
    opened = ""
    for ends, name in MARK.findall(page):
        if opened and not (ends and name == opened):
            break
        if ends and not opened:
            raise ConfigError(f"--page={file}: has <!-- end of {name} -->, and no line <!-- {name} --> before it")
        if not ends and name in seen:
            raise ConfigError(f"--page={file}: has <!-- {name} --> twice")
        opened = "" if ends else name
        seen.append(name)
    if opened:
        after = "after it, before another mark"
        raise ConfigError(f"--page={file}: has <!-- {opened} -->, and no line <!-- end of {opened} --> {after}")
    if not seen:
        told = "exists, and has no line <!-- verdicts --> or <!-- claims --> to write at; its text would be lost"
        raise ConfigError(f"--page={file}: {told}")
    if lost := [name for name in re.findall(r"^## (C\d+)$", page, re.MULTILINE) if name not in names]:
        raise ConfigError(f"--page={file}: has {listed(lost)}, which would be lost; name them, too, or no claim")
    return page


def filled(page: str, blocks: Mapping[str, str]) -> str:
    """A page with these blocks between its marks; the rest stays."""
    for name, block in blocks.items():
        begin, end = (re.compile(rf"^<!-- {mark} -->$", re.MULTILINE) for mark in (name, f"end of {name}"))
        if (opened := begin.search(page)) and (closed := end.search(page)):
            page = f"{page[: opened.end()]}\n\n{block}\n\n{page[closed.start() :]}"
    return page
