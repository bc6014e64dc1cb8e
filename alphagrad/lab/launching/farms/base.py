"""What all farms share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import PositiveInt

from alphagrad.harness.recipe import Settings

Train = Callable[[Any], Any]
Done = Callable[[int, Any], None]

CLOSING_SECONDS = 60.0
"""How long interrupted workers get to close their runs."""
POLL_SECONDS = 0.3


class FarmOptions(Settings):
    """What every farm has."""

    choice: str
    """The name under ``hydra/launcher``."""
    runs_per_job: PositiveInt

    def check_here(self) -> None:
        """Raises :class:`ConfigError` if the farm lacks what it needs on this machine."""
