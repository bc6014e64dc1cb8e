"""How much better a rollout's actions were than the values say."""

from __future__ import annotations

import numpy as np


def generalized_advantages(
    rewards: np.ndarray, values: np.ndarray, ended: np.ndarray, gamma: float, lam: float
) -> np.ndarray:
    """GAE(γ, λ) of T steps (Schulman et al. 2016): rewards and ended [T, R], values [T + 1, R] → [T, R]."""
    alive = 1 - ended
    deltas = rewards + gamma * values[1:] * alive - values[:-1]
    decay = gamma * lam * alive
    advantages = np.empty_like(deltas)
    running = np.zeros_like(deltas[0])
    for t in reversed(range(len(deltas))):
        running = deltas[t] + decay[t] * running
        advantages[t] = running
    return advantages
