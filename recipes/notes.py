"""What a recipe has to say about its data before it trains."""

from __future__ import annotations

import os
import sys
from functools import cache


@cache
def note(line: str) -> None:
    """A line on stderr: once a process, and under torchrun in the first one alone."""
    if os.environ.get("RANK", "0") == "0":
        print(f"alphagrad: {line}", file=sys.stderr)
