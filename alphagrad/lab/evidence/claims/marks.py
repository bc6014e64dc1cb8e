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
BLOCK = re.compile(rf"^(<!-- ({'|'.join(BLOCKS)}) -->)$(.*?)^(<!-- end of \2 -->)$", re.MULTILINE | re.DOTALL)
CLAIM = re.compile(r"^(?:## |\| \[)(C\d+)\b", re.MULTILINE)
"""A claim's section, or its row among the verdicts."""
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
    if wrong := _unpaired(MARK.findall(page)) or _lost(page, names):
        raise ConfigError(f"--page={file}: {wrong}")
    return page


def _unpaired(marks: Sequence[tuple[str, str]]) -> str:
    """What is wrong with the marks of a page, each whether it ends and its name; nothing where they are in pairs."""
    if not marks:
        return "exists, and has no line <!-- verdicts --> or <!-- claims --> to write at; its text would be lost"
    begun = [name for ends, name in marks if not ends]
    for place, (ends, name) in enumerate(marks):
        if ends and marks[place - 1 : place] != [("", name)]:
            return f"has <!-- end of {name} -->, and no line <!-- {name} --> before it"
        if not ends and marks[place + 1 : place + 2] != [("end of ", name)]:
            return f"has <!-- {name} -->, and no line <!-- end of {name} --> after it, before another mark"
        if not ends and begun.count(name) > 1:
            return f"has <!-- {name} --> twice"
    return ""


def _lost(page: str, names: Sequence[str]) -> str:
    there = dict.fromkeys(name for block in BLOCK.finditer(page) for name in CLAIM.findall(block[3]))
    lost = [name for name in there if name not in names]
    return f"has {listed(lost)}, which would be lost; name them, too, or no claim" if lost else ""


def filled(page: str, blocks: Mapping[str, str]) -> str:
    """A page with these blocks between its marks; the rest stays."""
    return BLOCK.sub(lambda found: f"{found[1]}\n\n{blocks[found[2]]}\n\n{found[4]}", page)
