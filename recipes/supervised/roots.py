"""Where data sets lie."""

from __future__ import annotations

import os
from pathlib import Path


def root_of(root: str | None) -> Path:
    """``data.root``, else $ALPHAGRAD_DATA, else ./data."""
    return Path(root or os.environ.get("ALPHAGRAD_DATA") or "data").expanduser()
