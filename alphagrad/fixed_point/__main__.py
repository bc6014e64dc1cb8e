"""``python -m alphagrad.fixed_point``: writes the C header. Needs the optimizer alone, not the laboratory."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NoReturn

from alphagrad.fixed_point.header import header


class Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line, and leaves with 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def numbers(words: Iterable[str]) -> dict[str, float]:
    """``NAME=VALUE`` as name → number.

    Raises:
        ValueError: a word is none of these, a name comes twice, or a number is too small for a float.
    """
    found: dict[str, float] = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            value, exact = float(text), Decimal(text)
        except (ValueError, InvalidOperation):
            raise ValueError(f"--number {word}: expected NAME=VALUE, such as RATE=1e-3") from None
        if name in found:
            raise ValueError(f"--number {word}: {name} is given twice")
        if value == 0 and exact != 0:
            raise ValueError(f"--number {word}: must be 0 or at least 5e-324, for it would become 0")
        found[name] = value
    return found


def main(arguments: list[str] | None = None) -> int:
    """Writes the header to a file or to standard output; returns 0, or 2 for a wrong argument."""
    parser = Parser(
        prog="python -m alphagrad.fixed_point",
        description="Writes AlphaGrad's update in integers as a C header.",
    )
    parser.add_argument("--to", type=Path, metavar="FILE", help="the file; without it, standard output")
    parser.add_argument(
        "--number",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a constant for alpha or a rate, as often as needed",
    )
    asked = parser.parse_args(arguments)
    try:
        text = header(numbers(asked.number))
        if asked.to is None:
            sys.stdout.write(text)
        else:
            asked.to.write_text(text, encoding="utf-8")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
