"""Tables and lines for a terminal of any width, or none: no number, name or id is broken across lines."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from copy import copy
from itertools import zip_longest

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from alphagrad.common.words import cell, plain

ENDLESS = 10_000
"""The width of a file or pipe: what reads it breaks no lines."""


def width() -> int:
    """Columns of the output: ``$COLUMNS``, else the terminal's."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given[:6]) > 0:
        return int(given[:6])
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else ENDLESS


def table(*columns: str, folded: Sequence[str] = (), right: Sequence[str] = (), caption: str | None = None) -> Table:
    """An empty table.

    Args:
        columns: their headings.
        folded: of columns that may take several lines, broken between words.
        right: of columns of numbers.
        caption: a line below it.
    """
    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), caption=None if caption is None else plain(caption))
    for heading in columns:
        justify = "right" if heading in right else "left"
        made.add_column(cell(heading), no_wrap=heading not in folded, overflow="fold", justify=justify)  # type: ignore[arg-type]
    return made


class Quiet(Console):
    """A console whose reader may leave: `alphagrad status | head -3`."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError from None


def show(shown: Table) -> None:
    """Prints a table without its empty columns; what is too wide comes as several, each with the first column."""
    for part in parts(shown, width()):
        below, part.caption = part.caption, None
        _share(part, width())
        Quiet(width=max(width(), _narrowest(part))).print(part)
        if below:
            say_wrapped(f" {below}")


def parts(shown: Table, widest: int) -> list[Table]:
    """The table in as few as fit into a width each, where the columns allow it."""
    first, *others = [n for n, column in enumerate(shown.columns) if n == 0 or any(map(str, column._cells))] or [0]
    chosen, made = [first], []
    for column in others:
        if len(chosen) > 1 and _narrowest(_with(shown, [*chosen, column])) > widest:
            made.append(_with(shown, chosen))
            chosen = [first]
        chosen.append(column)
    made.append(_with(shown, chosen))
    for part in made[1:]:
        part.title = None
    for part in made[:-1]:
        part.caption = None
    return made


def _share(part: Table, widest: int) -> None:
    """Divides the room that is left among the columns that are folded; rich itself would break words."""
    console = Quiet(width=ENDLESS)
    folded = {n: console.measure(_column(column)) for n, column in enumerate(part.columns) if not column.no_wrap}
    room = max(0, widest - _narrowest(part))
    left = len(folded)
    for number, needs in sorted(folded.items(), key=lambda item: item[1].maximum - item[1].minimum):
        more = min(needs.maximum - needs.minimum, room // left)
        part.columns[number].width = needs.minimum + more
        room, left = room - more, left - 1


def _column(column: Column) -> Text:
    """All that stands in a column, a line each."""
    return Text("\n").join([Text(str(cell)) for cell in (column.header, *column._cells)])


def _with(shown: Table, columns: Sequence[int]) -> Table:
    """The table with some of its columns."""
    part = Table(
        *[_empty(shown.columns[number]) for number in columns],
        box=shown.box,
        pad_edge=shown.pad_edge,
        padding=shown.padding,
        title=shown.title,
        caption=shown.caption,
    )
    for row in zip_longest(*[shown.columns[number]._cells for number in columns], fillvalue=""):
        part.add_row(*row)
    return part


def _empty(column: Column) -> Column:
    own = copy(column)
    own._cells = []
    return own


def _narrowest(shown: Table) -> int:
    """The width at which no word is broken: that of what is folded as far as it can be, or as it was divided."""
    console = Quiet(width=ENDLESS)
    bare = _with(shown, range(len(shown.columns)))
    bare.title = bare.caption = None
    for column in bare.columns:
        if not column.no_wrap and column.width is None:
            column.width = console.measure(_column(column)).minimum
    return console.measure(bare).maximum


def say_wrapped(text: str) -> None:
    """Prints a line; in a narrow terminal it takes several, broken between words."""
    lines = textwrap.wrap(plain(text), width(), subsequent_indent="   ", break_long_words=False, break_on_hyphens=False)
    print("\n".join(lines), flush=True)
