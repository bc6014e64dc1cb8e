"""Which examples a batch holds: every one once an epoch, in an order that the run and the epoch alone decide."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Order:
    """The examples of R runs' batches.

    What a batch holds depends on its run and step alone, not on what was drawn before it: a run can go on at
    any step, and processes that share a batch draw the same.

    Args:
        generators: each run's.
        size: how many examples there are.
        batch_size: examples of a run in a batch; an epoch's last, smaller batch is left out.
        share: (rank, processes): which part of every batch is asked for.
    """

    def __init__(
        self, generators: Sequence[np.random.Generator], size: int, batch_size: int, share: tuple[int, int] = (0, 1)
    ) -> None:
        self.size, self.batch_size, self.share = size, batch_size, share
        self.per_epoch = size // batch_size
        self._keys = [int(rng.integers(2**63)) for rng in generators]
        self._epoch, self._rows = -1, np.empty(0, dtype=np.int64)

    def at(self, step: int) -> np.ndarray:
        """Numbers of the examples [R, B] of a step, this process's part."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._rows = np.stack([np.random.default_rng([key, epoch]).permutation(self.size) for key in self._keys])
            self._epoch = epoch
        rank, processes = self.share
        each = self.batch_size // processes
        first = place * self.batch_size + rank * each
        return self._rows[:, first : first + each]
