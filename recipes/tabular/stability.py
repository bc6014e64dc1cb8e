"""How stable training is, by definition: of one run, and of runs over a range of learning rates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

WINDOW = 11
"""Evaluations that the trend is averaged over."""
SETTLED = 0.25
"""Share of a run that is left out at its beginning."""
LAST = 0.1
"""Share of a run whose mean loss is its final one."""
NEAR = 1.1
"""A learning rate is among the best whose final loss is within 10 % of the least."""


def roughness(curve: Sequence[float]) -> float:
    """The variance of log₁₀ of a loss curve about its trend, a centred moving average over :data:`WINDOW` points.

    The first quarter is left out; ∞ for a curve that is not finite, 0 for one too short to have a trend.
    """
    values = np.asarray(curve, dtype=np.float64)
    if not (np.isfinite(values).all() and (values > 0).all()):
        return math.inf
    logs = np.log10(values[int(SETTLED * len(values)) :])
    if len(logs) <= WINDOW:
        return 0.0
    half = WINDOW // 2
    trend = np.convolve(logs, np.full(WINDOW, 1 / WINDOW), mode="valid")
    return float(np.var(logs[half:-half] - trend))


def final_loss(curve: Sequence[float]) -> float:
    """The mean of the last tenth of a loss curve."""
    return float(np.mean(curve[-max(1, round(LAST * len(curve))) :]))


def diverged(final: float) -> bool:
    """Whether a run has not learnt at all: its final loss is no number, or no less than 1, what the mean target has."""
    return not final < 1.0


def share_diverged(finals: Sequence[float]) -> float:
    """Of runs over learning rates, from their final losses."""
    return float(np.mean([diverged(final) for final in finals]))


def decades_near_best(finals: Mapping[float, float]) -> float:
    """Width, in decades, of the range of learning rates whose final loss is within 10 % of the least.

    Args:
        finals: learning rate → final loss; the rates are spaced evenly on a logarithmic scale. Each counts for one
            spacing, and only those that are connected with the best without a gap. 0 where every run diverged.
    """
    rates = sorted(finals)
    losses = [finals[rate] if not diverged(finals[rate]) else math.inf for rate in rates]
    best = int(np.argmin(losses))
    if not math.isfinite(losses[best]) or len(rates) < 2:
        return 0.0
    spacing = math.log10(rates[-1] / rates[0]) / (len(rates) - 1)
    low = high = best
    while low > 0 and losses[low - 1] <= NEAR * losses[best]:
        low -= 1
    while high + 1 < len(rates) and losses[high + 1] <= NEAR * losses[best]:
        high += 1
    return spacing * (high - low + 1)
