"""What the reinforcement-learning recipes log of episodes as they end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

from alphagrad.harness import metrics
from alphagrad.harness.recipe import Log
from alphagrad.harness.state import Stateful

from .envs import Episode


class Episodes(Stateful):
    """Logs every finished episode of R runs and remembers their latest returns."""

    STATE = ("returns",)

    def __init__(self, runs: int, log: Log) -> None:
        self.log = log
        self.returns = [deque[float](maxlen=metrics.FINAL_EPISODES) for _ in range(runs)]

    def add(self, finished: Iterable[Episode], step: int) -> None:
        """Logs the episodes that ended at ``step``."""
        for episode in finished:
            self.returns[episode.env].append(episode.episodic_return)
            self.log.metrics(
                episode.env,
                step,
                {metrics.EPISODIC_RETURN: episode.episodic_return, metrics.EPISODIC_LENGTH: episode.length},
            )

    def shown(self) -> str:
        """The mean of the latest returns, for the progress line."""
        means = [np.mean(returns) for returns in self.returns if returns]
        return f"return {np.mean(means):.0f}" if means else ""

    def close(self, step: int) -> None:
        """Logs each run's final return: the mean over its latest episodes."""
        for run, returns in enumerate(self.returns):
            if returns:
                self.log.metrics(run, step, {metrics.FINAL_RETURN: float(np.mean(returns))})
