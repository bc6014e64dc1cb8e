"""Running normalisation of observations and rewards, for R runs at once, each with its own statistics."""

from __future__ import annotations

import numpy as np

from alphagrad.harness.state import Stateful

EPSILON = 1e-8
CLIP = 10.0
FIRST_COUNT = 1e-4
"""Weight of the initial mean 0 and variance 1; this and the rest as in Gymnasium's NormalizeObservation."""


class RunningMoments(Stateful):
    """Mean and variance of everything each run has seen; ``shape`` is [R, ...], float64."""

    STATE = ("mean", "var", "count")

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.mean = np.zeros(shape)
        self.var = np.ones(shape)
        self.count = np.full((shape[0],) + (1,) * (len(shape) - 1), FIRST_COUNT)

    def add_each(self, x: np.ndarray) -> np.ndarray:
        """Takes in T samples of each run, x [T, R, ...], one after the other; the variance after each, as x."""
        counts = self.count + np.arange(len(x) + 1).reshape(-1, *(1,) * self.count.ndim)
        means = np.concatenate([self.mean[None], (self.mean * self.count + np.cumsum(x, axis=0)) / counts[1:]])
        squares = np.square(x - means[:-1]) * (counts[:-1] / counts[1:])
        variances = (self.var * self.count + np.cumsum(squares, axis=0)) / counts[1:]
        self.mean, self.var, self.count = means[-1], variances[-1], counts[-1]
        return variances

    def add(self, x: np.ndarray, rows: slice | np.ndarray = slice(None)) -> None:
        """Takes in one sample of each run, or of those in ``rows`` (Welford's update)."""
        mean, var, count = self.mean[rows], self.var[rows], self.count[rows]
        total = count + 1
        delta = x - mean
        moved = delta / total
        mean += moved
        var += delta * moved
        var *= count / total
        if not isinstance(rows, slice):  # these are copies
            self.mean[rows], self.var[rows] = mean, var
        self.count[rows] = total


def clipped(x: np.ndarray) -> np.ndarray:
    """``x`` within ±10, float32; np.clip costs three times as much."""
    return np.minimum(np.maximum(x, -CLIP), CLIP).astype(np.float32)


class ObservationNormalizer(Stateful):
    """``clip((x − mean)/√(var + 1e-8), ±10)``, the moments including x."""

    STATE = ("moments",)

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.moments = RunningMoments(shape)

    def __call__(self, x: np.ndarray, rows: slice | np.ndarray = slice(None), learn: bool = True) -> np.ndarray:
        """Observations [R, ...] (or of ``rows``) normalised, float32; ``learn`` takes them in first."""
        if learn:
            self.moments.add(x, rows)
        scaled = (x - self.moments.mean[rows]) / np.sqrt(self.moments.var[rows] + EPSILON)
        return clipped(scaled)


class RewardNormalizer(Stateful):
    """``clip(r/√(var(G) + 1e-8), ±10)`` with G the discounted return so far, which a termination ends.

    As in Gymnasium's NormalizeReward, a truncation does not end it.
    """

    STATE = ("returns", "moments")

    def __init__(self, runs: int, gamma: float) -> None:
        self.gamma = gamma
        self.returns = np.zeros(runs)
        self.moments = RunningMoments((runs,))

    def __call__(self, rewards: np.ndarray, terminations: np.ndarray) -> np.ndarray:
        """Rewards of T steps [T, R] normalised, float32; each by the moments up to its own step."""
        decay = self.gamma * (1 - terminations)
        returns = np.empty(rewards.shape)
        for t, reward in enumerate(rewards):
            self.returns = self.returns * decay[t] + reward
            returns[t] = self.returns
        return clipped(rewards / np.sqrt(self.moments.add_each(returns) + EPSILON))
