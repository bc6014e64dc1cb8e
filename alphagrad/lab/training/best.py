"""The best values of the metric that ``checkpoint.best`` names, one for each run of a stack."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from alphagrad.common.words import listed
from alphagrad.lab.config.build import CheckpointSettings

LOG = logging.getLogger("alphagrad")
BEST = "best.pt"
"""The model of the best evaluation, where ``checkpoint.best`` asks for it."""


class BestValues:
    """What each run has reached; None where the metric has not come up, or was never finite.

    Args:
        settings: which metric, and whether more or less is better.
        runs: of the stack.
    """

    def __init__(self, settings: CheckpointSettings, runs: int) -> None:
        self.settings = settings
        self.values: list[float | None] = [None] * runs

    def improve(self, run: int, last: Mapping[str, float]) -> bool:
        """Whether a run's last metrics are better than all before, which counts from now on."""
        name, best = self.settings.best, self.values[run]
        value = None if name is None else last.get(name)
        if value is None or not math.isfinite(value):
            return False
        if best is not None and not (value > best if self.settings.best_is == "max" else value < best):
            return False
        self.values[run] = value
        return True

    def tell(self, run: int, last: Mapping[str, float]) -> None:
        """Says at a run's end that the metric never came up, where one was asked for."""
        name = self.settings.best
        if name is not None and self.values[run] is None:
            why = "was never finite" if name in last else "never came up"
            LOG.warning(
                "checkpoint.best=%s: %s, so there is no %s; there were %s", name, why, BEST, listed(sorted(last))
            )
