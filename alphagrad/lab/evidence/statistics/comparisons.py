"""Whether one configuration is better than another, and how many seeds would show it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from alphagrad.lab.evidence.statistics.intervals import CONFIDENCE, interval

ALPHA, POWER = 0.05, 0.8
"""Chance of a difference seen that is none, and of one seen that is there (Cohen 1988)."""
ROUNDING = 1e-12
"""Of gaps: how far equal ones may be apart."""
MOST_SEEDS = 100_000


@dataclass(frozen=True)
class Difference:
    """The first configuration minus the second."""

    mean: float
    p: float
    """Of Student's test, before any correction; NaN where there is none."""
    seeds: int
    """Pairs, or the smaller number of seeds where none are shared."""
    paired: bool
    deviation: float
    """Standard deviation of the differences between pairs."""
    gaps: tuple[float, ...] = ()
    """The differences between pairs."""
    welch: tuple[float, float] | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """At 95 %, of the mean difference; None where there is none."""
        return interval(self.gaps) if self.paired else self.welch


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> Difference:
    """Compares two configurations by their values of each seed.

    Over the seeds that both have it is paired, since runs of one seed share their beginning; with fewer than two
    of these it is Welch's test (1947). Diverged runs have to be among the values, as infinite ones: the mean is then
    infinite and nothing is tested.
    """
    shared = sorted(first.keys() & second.keys())
    if len(shared) > 1:
        gaps = np.array([first[seed] - second[seed] for seed in shared])
        if not np.isfinite(gaps).all():
            return Difference(float(gaps.mean()), float("nan"), len(gaps), True, float("nan"))
        deviation = float(gaps.std(ddof=1))
        if deviation <= ROUNDING * np.abs(gaps).max():
            deviation = 0.0
        equal = 1.0 if gaps[0] == 0 else 2.0 ** (1 - len(gaps))  # the sign test: no spread is known for Student's
        p = float(stats.ttest_1samp(gaps, 0.0).pvalue) if deviation else equal
        return Difference(float(gaps.mean()), p, len(gaps), True, deviation, tuple(gaps.tolist()))
    one, other = np.array(list(first.values())), np.array(list(second.values()))
    count = min(len(one), len(other))
    mean = float(one.mean() - other.mean()) if count else float("nan")
    if count < 2 or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return Difference(mean, float("nan"), count, False, float("nan"))
    spread = float(np.hypot(one.std(ddof=1), other.std(ddof=1)))
    if spread == 0:
        apart = 2.0 / math.comb(len(one) + len(other), len(one))  # as a permutation test has it
        return Difference(mean, 1.0 if mean == 0 else apart, count, False, 0.0, welch=(mean, mean))
    found = stats.ttest_ind(one, other, equal_var=False)
    low, high = found.confidence_interval(CONFIDENCE)
    return Difference(mean, float(found.pvalue), count, False, spread, welch=(float(low), float(high)))


def holm(ps: Sequence[float]) -> list[float]:
    """The p-values of several tests so that 5 % is the chance of one false finding among all (Holm 1979).

    NaN stays NaN and counts as no test.
    """
    values = np.asarray(ps, dtype=float)
    told = np.flatnonzero(~np.isnan(values))
    order = told[np.argsort(values[told])]
    adjusted = np.full(len(values), np.nan)
    raised = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return [float(p) for p in adjusted]


def seeds_needed(gap: float, deviation: float, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Pairs of runs with which a paired t-test sees a difference; None if there is none to see, or no number will do.

    Args:
        gap: the difference between the means that is to be seen.
        deviation: standard deviation of the differences between pairs.
        alpha: chance of a difference seen that is none.
        power: chance of seeing it.
    """
    if not gap or not np.isfinite([gap, deviation]).all():
        return None
    if deviation == 0:
        return 2
    low, high = 2, MOST_SEEDS
    if power_of(high, gap, deviation, alpha) < power:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle, gap, deviation, alpha) >= power else (middle + 1, high)
    return low


def power_of(pairs: int, gap: float, deviation: float, alpha: float = ALPHA) -> float:
    """The chance that a paired t-test of so many pairs sees the difference, by the noncentral t distribution."""
    shift = abs(gap) / deviation * np.sqrt(pairs)
    critical = stats.t.ppf(1 - alpha / 2, pairs - 1)
    found = stats.nct.sf(critical, pairs - 1, shift)
    return 1.0 if np.isnan(found) else float(found)
