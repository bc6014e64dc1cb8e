"""The order in which runs see their training examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Orders:
    """In which order R runs see N examples: every one once an epoch, as the run and the epoch alone decide.

    What a batch holds depends on its run and step alone, not on what was drawn before it: a run can go on at
    any step, and processes that share a batch draw the same. An epoch's last, smaller batch is left out.

    Args:
        generators: each run's.
        count: N.
        batch_size: examples of a run in a batch.
        share: (rank, processes): which part of every batch is asked for.
    """

    def __init__(
        self, generators: Sequence[np.random.Generator], count: int, batch_size: int, share: tuple[int, int]
    ) -> None:
        self.count, self.batch_size = count, batch_size
        self.per_epoch = count // batch_size
        rank, processes = share
        each = batch_size // processes
        self.part = slice(rank * each, (rank + 1) * each)
        """The places in a batch that are this process's."""
        self._keys = [int(rng.integers(2**63)) for rng in generators]
        self._epoch, self._order = -1, np.empty((0, 0), dtype=np.int64)

    def at(self, step: int) -> np.ndarray:
        """Indices [R, B] of this process's part of a step's batch."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            rows = [np.random.default_rng([key, epoch]).permutation(self.count) for key in self._keys]
            self._epoch, self._order = epoch, np.stack(rows)
        return self._order[:, place * self.batch_size :][:, : self.batch_size][:, self.part]
