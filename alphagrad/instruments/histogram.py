"""Histograms of α·ĝ, in bins that never change: they add up over time, tensors, runs and processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from alphagrad.instruments.flat import Chunk

REACH = 5.0
"""Bins divide [−5, 5), where tanh bends and ends; what is beyond is counted in two more."""
PER_UNIT = 8
"""Bins in an interval of length 1."""
INNER = int(2 * REACH * PER_UNIT)
BINS = INNER + 2
"""The first is of all below −5, the last of all from 5 on."""
EDGES = tuple(i / PER_UNIT - REACH for i in range(INNER + 1))
"""Between the bins; exact in binary."""
SLOTS = 64
"""Stretches of time that are kept apart, at most: beyond, each two become one."""


def counts_of(scaled: Tensor, chunk: Chunk) -> Tensor:
    """How many of each tensor's α·ĝ [runs, width] are in each bin: [tensors, runs, BINS], int64.

    A bin holds its lower edge. NaN is counted in the bin of 0: the caller leaves such tensors out. ``scaled`` is
    overwritten; it may be some columns of a chunk that holds a single tensor.
    """
    runs, tensors = len(scaled), len(chunk.widths)
    bins = scaled.mul_(PER_UNIT).floor_().clamp_(-INNER // 2 - 1, INNER // 2).nan_to_num_(0.0).to(torch.int64)
    places = torch.arange(tensors * runs, device=scaled.device).view(tensors, runs).mul_(BINS).add_(INNER // 2 + 1)
    bins += chunk.spread(places)
    return torch.bincount(bins.flatten(), minlength=tensors * runs * BINS).view(tensors, runs, BINS)


class Histogram:
    """Counts of α·ĝ by time, tensor, run and bin. Time is counted in measurements.

    The memory that it takes is bounded: it keeps :data:`SLOTS` stretches of time, which grow twice as long when
    they are full.
    """

    def __init__(self) -> None:
        self.measurements = 0
        """How many were taken in."""
        self.stretch = 1
        """How many measurements a slot holds."""
        self.names: list[str] = []
        self.counts = torch.zeros(SLOTS, 0, 0, BINS, dtype=torch.int64)
        """[SLOTS, tensors, runs, BINS], on the CPU; later slots are 0."""

    @property
    def slots(self) -> int:
        """How many slots have begun."""
        return -(-self.measurements // self.stretch)

    def add(self, names: Sequence[str], counts: Tensor) -> None:
        """Takes in a measurement of some tensors: [tensors, runs, BINS]; another may have been of others."""
        if self.measurements == SLOTS * self.stretch:
            self._merge()
        slot = self.measurements // self.stretch
        self.measurements += 1
        if list(names) == self.names:
            self.counts[slot] += counts
            return
        new = [name for name in names if name not in self.names]
        self.names += new
        wider = torch.zeros(SLOTS, len(self.names), *counts.shape[1:], dtype=torch.int64)
        if len(new) < len(self.names):
            wider[:, : len(self.names) - len(new)] = self.counts
        self.counts = wider
        self.counts[slot, [self.names.index(name) for name in names]] += counts

    def _merge(self) -> None:
        """Makes one of each two slots."""
        self.stretch *= 2
        pairs = self.counts.view(SLOTS // 2, 2, *self.counts.shape[1:]).sum(1)
        self.counts = torch.cat([pairs, torch.zeros_like(pairs)])

    def of_run(self, run: int) -> dict[str, Tensor]:
        """Tensor → counts [slots, BINS] of one run."""
        return {name: self.counts[: self.slots, i, run].clone() for i, name in enumerate(self.names)}

    def starts(self) -> list[int]:
        """The first measurement of each slot, and the end of the last."""
        return [*range(0, self.measurements, self.stretch), self.measurements]

    def state_dict(self) -> dict[str, Any]:
        """All there is, as tensors and plain values."""
        kept = {"measurements": self.measurements, "stretch": self.stretch, "names": list(self.names)}
        return {**kept, "counts": self.counts[: self.slots].clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes it back."""
        self.measurements, self.stretch, self.names = state["measurements"], state["stretch"], list(state["names"])
        kept = state["counts"]
        self.counts = torch.cat([kept, kept.new_zeros(SLOTS - len(kept), *kept.shape[1:])])
