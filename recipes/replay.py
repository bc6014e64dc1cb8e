"""The replay memories of R runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alphagrad.harness.state import pack, unpack

BLOCK = 64
"""Minibatches whose draws are made at a time."""


def replay_bytes(capacity: int, width: int, batch_size: int) -> int:
    """What a run's memory of rows of ``width`` floats takes, and its minibatches."""
    return 4 * width * capacity + (8 * BLOCK + 8 + 2 * 4 * width) * batch_size


class Replay:
    """For each run the last ``capacity`` transitions, rows of floats: one copy in, one gather out.

    Runs advance in lockstep, so they share the write position. Minibatches are drawn with replacement
    from each run's own generator, a block of :data:`BLOCK` minibatches at a time.
    """

    def __init__(
        self,
        capacity: int,
        width: int,
        batch_size: int,
        generators: Sequence[np.random.Generator],
        device: torch.device,
    ) -> None:
        self.capacity = capacity
        self.batch_size = batch_size
        self.generators = list(generators)
        self.device = device
        runs = len(self.generators)
        self.rows = np.zeros((runs, capacity, width), dtype=np.float32)
        self._flat = torch.from_numpy(self.rows.reshape(runs * capacity, width))
        self._offsets = torch.arange(runs).unsqueeze(1) * capacity
        self.written = 0
        self._draws = np.empty((runs, 0, batch_size))
        self._next = 0

    def add(self, *columns: np.ndarray) -> None:
        """Writes one transition of each run: columns [R, n] whose n add up to ``width``."""
        np.concatenate(columns, axis=1, out=self.rows[:, self.written % self.capacity])
        self.written += 1

    def sample(self) -> Tensor:
        """A minibatch of each run, [R, batch_size, width]."""
        if self._next == self._draws.shape[1]:
            self._draws = np.stack([rng.random((BLOCK, self.batch_size)) for rng in self.generators])
            self._next = 0
        filled = min(self.written, self.capacity)
        # a uniform number times the number of rows: the draw does not depend on how full the memory is
        rows = torch.from_numpy((self._draws[:, self._next] * filled).astype(np.int64))
        self._next += 1
        flat = (rows + self._offsets).flatten()
        return self._flat.index_select(0, flat).view(*rows.shape, -1).to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """The filled rows, and the draws that are still to be used."""
        rows = self.rows[:, : min(self.written, self.capacity)]
        return {
            "rows": torch.from_numpy(rows).contiguous(),
            "written": self.written,
            "draws": pack(self._draws[:, self._next :]),
            "generators": pack(self.generators),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them back."""
        self.rows[:, : state["rows"].shape[1]] = state["rows"].numpy()
        self.written = state["written"]
        self._draws, self._next = unpack(self._draws, state["draws"]), 0
        unpack(self.generators, state["generators"])
