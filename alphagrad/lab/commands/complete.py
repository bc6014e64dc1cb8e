"""`alphagrad complete`: answers the completion script; not for people."""

from __future__ import annotations

import os
import re

from alphagrad.lab.commands import NAMES


def main(argv: list[str]) -> None:
    """Prints words for $COMP_LINE."""
    point = os.environ.get("COMP_POINT", "")
    line = os.environ.get("COMP_LINE", "")[: int(point) or None if re.fullmatch(r"[0-9]{1,9}", point) else None]
    words = line.split(" ")
    if len(words) <= 2:
        print("\n".join(c for c in NAMES if c.startswith(words[-1])))
    elif words[1] in ("run", "alpha", "tune"):
        from alphagrad.lab.commands.run import run

        # Hydra completes settings, but knows nothing of the subcommand
        os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
        os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
        run(["-sc", "query=bash"])
