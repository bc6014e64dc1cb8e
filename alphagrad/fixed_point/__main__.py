"""``python -m alphagrad.fixed_point``: writes the C header. Needs the optimizer alone, not the laboratory."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from alphagrad.fixed_point.header import header


def named(text: str) -> tuple[str, float]:
    """``NAME=VALUE`` as a name and a number."""
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=VALUE, such as RATE=1e-3") from None


def main(arguments: list[str] | None = None) -> int:
    """Writes the header to a file or to standard output; returns 0, or 2 for a wrong argument."""
    parser = argparse.ArgumentParser(
        prog="python -m alphagrad.fixed_point",
        description="Writes AlphaGrad's update in integers as a C header.",
    )
    parser.add_argument("--to", type=Path, metavar="FILE", help="the file; without it, standard output")
    parser.add_argument(
        "--number",
        type=named,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a constant for alpha or a rate, as often as needed",
    )
    asked = parser.parse_args(arguments)
    try:
        text = header(dict(asked.number))
        if asked.to is None:
            sys.stdout.write(text)
        else:
            asked.to.write_text(text, encoding="utf-8")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
