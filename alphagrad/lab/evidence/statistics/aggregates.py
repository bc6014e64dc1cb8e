"""One number for many tasks, as Agarwal et al. 2021 (Deep RL at the Edge of the Statistical Precipice) advise.

A matrix of scores has a row for each seed and a column for each task; of one task it has one column.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

from alphagrad.lab.evidence.statistics.intervals import CONFIDENCE, TRIMMED

RESAMPLES = 2_000
Aggregate = Callable[[np.ndarray], np.ndarray]
"""Of matrices [..., seeds, tasks]: one number each."""


def mean(scores: np.ndarray) -> np.ndarray:
    """Mean over tasks of the mean over seeds."""
    return np.asarray(scores.mean((-2, -1)))


def median(scores: np.ndarray) -> np.ndarray:
    """Median over tasks of the mean over seeds."""
    return np.asarray(np.median(scores.mean(-2), -1))


def iqm(scores: np.ndarray) -> np.ndarray:
    """Interquartile mean: of all scores of all tasks, the middle half."""
    flat = scores.reshape(*scores.shape[:-2], -1)
    return np.asarray(stats.trim_mean(flat, TRIMMED, axis=-1))


def optimality_gap(scores: np.ndarray, target: float = 1.0) -> np.ndarray:
    """By how much scores miss a target, on average; those beyond it count as it."""
    return np.asarray(target - np.minimum(scores, target).mean((-2, -1)))


def stratified(scores: np.ndarray, of: Aggregate, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Interval at 95 % of an aggregate: percentile bootstrap that draws seeds anew within each task.

    It is for several tasks. Of one task with few seeds it is too narrow: take
    :func:`alphagrad.lab.evidence.statistics.intervals.interval`.
    """
    drawn = of(_resampled(scores, resamples))
    low, high = np.quantile(drawn, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(low), float(high)


def _resampled(scores: np.ndarray, resamples: int) -> np.ndarray:
    """Matrices [resamples, seeds, tasks], the seeds of each task drawn by themselves."""
    seeds, tasks = scores.shape
    rows = np.random.default_rng(0).integers(seeds, size=(resamples, seeds, tasks))
    return scores[rows, np.arange(tasks)]


def profile(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Performance profile: for each level the share of scores above it."""
    return np.asarray((scores[None] > levels[:, None, None]).mean((1, 2)))


def profile_band(scores: np.ndarray, levels: np.ndarray, resamples: int = RESAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise interval at 95 % of the profile, by the stratified bootstrap."""
    drawn = np.array([profile(sample, levels) for sample in _resampled(scores, resamples)])
    low, high = np.quantile(drawn, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2), axis=0)
    return low, high


def improvement(first: np.ndarray, second: np.ndarray) -> float:
    """Probability that a score of the first is larger than one of the second on the same task; ties count half.

    The mean over tasks of the Mann-Whitney statistic over the product of the numbers of seeds.
    """
    tasks = range(first.shape[1])
    return float(np.mean([_larger(first[:, task], second[:, task]) for task in tasks]))


def _larger(first: np.ndarray, second: np.ndarray) -> float:
    differences = np.subtract.outer(first, second)
    return float((differences > 0).mean() + 0.5 * (differences == 0).mean())


def improvement_interval(first: np.ndarray, second: np.ndarray, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Interval at 95 % of the probability of improvement, both matrices drawn anew."""
    pairs = zip(_resampled(first, resamples), _resampled(second[::-1], resamples), strict=True)
    drawn = np.array([improvement(one, other) for one, other in pairs])
    low, high = np.quantile(drawn, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(low), float(high)
