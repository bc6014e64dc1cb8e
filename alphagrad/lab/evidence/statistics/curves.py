"""What a learning curve amounts to: its area, when it reached a target, how stable it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Curve = tuple[np.ndarray, np.ndarray]
"""Steps, rising, and the values there."""


def lined_up(curves: Sequence[Curve], points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and a row of values for each curve, from measured points alone: nothing is interpolated.

    Curves that share at least half of their steps have the values there. Of others the steps are divided into the
    shortest stretches that hold a point of every curve; a stretch has the mean of each curve's points in it, at their
    mean step. Of more than ``10 * points`` shared steps, or ``points`` stretches, neighbours are put together.
    """
    shared = curves[0][0]
    for steps, _ in curves[1:]:
        shared = np.intersect1d(shared, steps)
    least = min(len(steps) for steps, _ in curves)
    if len(shared) and len(shared) >= least / 2 and len(shared) <= 10 * points:
        return shared, np.array([values[np.searchsorted(steps, shared)] for steps, values in curves])
    ends = _stretches([steps for steps, _ in curves])
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, min(points, len(ends))).astype(int))]
    grid = np.zeros((len(curves), len(ends)))
    rows = np.zeros_like(grid)
    for number, (steps, values) in enumerate(curves):
        inside = steps <= ends[-1]
        where = np.searchsorted(ends, steps[inside])
        count = np.bincount(where, minlength=len(ends))
        grid[number] = np.bincount(where, steps[inside], len(ends)) / count
        rows[number] = np.bincount(where, values[inside], len(ends)) / count
    return grid.mean(0), rows


def _stretches(all_steps: Sequence[np.ndarray]) -> np.ndarray:
    """The last step of each stretch: as soon as every curve has a point in it, it ends."""
    ends: list[float] = []
    places = [0] * len(all_steps)
    while all(place < len(steps) for place, steps in zip(places, all_steps, strict=True)):
        end = max(steps[place] for place, steps in zip(places, all_steps, strict=True))
        ends.append(end)
        places = [int(np.searchsorted(steps, end, "right")) for steps in all_steps]
    return np.array(ends)


def area(curve: Curve) -> float:
    """Area under the curve over the steps it spans: its mean height, by the trapezoidal rule."""
    steps, values = curve
    if len(steps) < 2 or steps[-1] == steps[0]:
        return float(values[-1]) if len(values) else math.nan
    return float(np.trapezoid(values, steps) / (steps[-1] - steps[0]))


def reached(curve: Curve, target: float, better: str = "max") -> float:
    """The first step at which the curve is at the target or beyond; infinite for a miss.

    Args:
        curve: as measured; nothing is interpolated.
        target: to reach.
        better: *max* or *min*: where beyond is.
    """
    steps, values = curve
    there = values >= target if better == "max" else values <= target
    return float(steps[np.argmax(there)]) if there.any() else math.inf


def drawdown(values: np.ndarray, better: str = "max") -> float:
    """The largest fall from the best value so far; 0 for a curve that only improves."""
    signed = values if better == "max" else -values
    return float((np.maximum.accumulate(signed) - signed).max()) if len(values) else math.nan


def detrended_variance(values: np.ndarray) -> float:
    """Variance around the trend, from second differences: their mean square over 6.

    For white noise of variance σ² around any straight trend it is σ² (Gasser, Sroka and Jennen-Steinmetz 1986).
    """
    if len(values) < 3:
        return math.nan
    bends = values[:-2] - 2 * values[1:-1] + values[2:]
    return float((bends**2).mean() / 6)


MEASURES: Mapping[str, Callable[[Curve], float]] = {
    "drawdown": lambda curve: drawdown(curve[1]),
    "rise": lambda curve: drawdown(curve[1], "min"),
    "area": area,
    "peak": lambda curve: float(curve[1].max()),
    "roughness": lambda curve: float(np.log10(max(detrended_variance(curve[1]), 1e-300))),
}
"""What is measured of a curve, as in ``drawdown of eval/return``."""
OF = " of "
