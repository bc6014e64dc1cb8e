"""What a page is made of, whatever it is written in: sections of text, commands, tables and pictures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

Cell = str | float | int | None
Rows = Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    warns: bool = False


@dataclass(frozen=True)
class Code:
    """Commands, a line each."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of words and numbers, shown as they are; words may be broken across lines, numbers are not."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    """How many of the first columns hold words."""
    best: frozenset[tuple[int, int]] = frozenset()
    """Row and column of cells to mark."""
    folded: str = ""
    """What it is called where it is shown on demand only."""


@dataclass(frozen=True)
class Picture:
    """A figure, and the numbers that it shows."""

    name: str
    """By which the figure can be asked for."""
    title: str
    svg: bytes = field(repr=False)
    headings: Sequence[str]
    rows: Rows = field(repr=False)
    command: str
    """Draws it again."""

    def csv(self) -> str:
        """Its numbers, exactly; a text that a spreadsheet would take for a formula begins with an apostrophe."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.headings)
        writer.writerows([_harmless(cell) for cell in row] for row in self.rows)
        return file.getvalue()


Block = Text | Code | Table | Picture


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; without a heading they go on with the section before."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """All of it."""

    title: str
    sections: Sequence[Section]

    def pictures(self) -> dict[str, Picture]:
        """Its figures by name."""
        found = (block for section in self.sections for block in section.blocks if isinstance(block, Picture))
        return {picture.name: picture for picture in found}


def _harmless(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@") else cell


def number(value: float | None, digits: int | None = None) -> str:
    """A number for a table: with so many decimals, or four significant digits; ``20,000`` rather than ``2e+04``."""
    if value is None or math.isnan(value):
        return "–"
    if digits is None and 1e4 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.{digits}f}" if digits is not None else f"{value:.4g}"
