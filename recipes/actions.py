"""The actions that R environments have taken since their last resets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Actions:
    """Rows [R, *action], back to the oldest episode that goes on; memory grows with the longest episode alone."""

    FIRST_CAPACITY = 1024

    def __init__(self, runs: int) -> None:
        self._starts = np.zeros(runs, dtype=np.int64)
        self._rows = np.empty((0, runs))
        self._count = 0

    def add(self, actions: np.ndarray) -> None:
        """One action of each environment, [R, *action]."""
        kept = self._rows.dtype
        if self._count == len(self._rows) or (actions.dtype != kept and not np.can_cast(actions.dtype, kept)):
            self._make_room(actions)
        self._rows[self._count] = actions
        self._count += 1

    def reset(self, env: int) -> None:
        """This environment begins an episode."""
        self._starts[env] = self._count

    def of(self, env: int) -> np.ndarray:
        """What this environment has done since it was reset, [n, *action]."""
        return self._rows[self._starts[env] : self._count, env].copy()

    def load(self, taken: Sequence[np.ndarray]) -> None:
        """Takes back what :meth:`of` gave for every environment."""
        longest = max(taken, key=len)
        self._count = len(longest)
        self._rows = np.zeros((self._count, len(taken), *longest.shape[1:]), dtype=longest.dtype)
        for env, own in enumerate(taken):
            self._starts[env] = self._count - len(own)
            self._rows[self._starts[env] :, env] = own

    def _make_room(self, actions: np.ndarray) -> None:
        first = int(self._starts.min())
        kept = self._rows[first : self._count]
        capacity = max(self.FIRST_CAPACITY, 2 * len(kept))
        dtype = np.result_type(kept, actions) if len(kept) else actions.dtype
        rows = np.empty((capacity, *actions.shape), dtype=dtype)
        if len(kept):
            rows[: len(kept)] = kept
        self._rows, self._count = rows, len(kept)
        self._starts -= first
