"""Batches of R runs from token numbers that lie whole in memory: padded texts, and packed sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..supervised.orders import Orders


class Texts:
    """Texts of one split, cut at ``length`` tokens, with their classes; on the device."""

    def __init__(
        self, ids: Sequence[np.ndarray], labels: Sequence[int], length: int, pad: int, device: torch.device
    ) -> None:
        cut = [np.asarray(row[:length]) if len(row) else np.array([pad]) for row in ids]
        self.pad = pad
        self.flat = torch.from_numpy(np.concatenate(cut).astype(np.int32)).to(device)
        self.lengths = torch.tensor([len(row) for row in cut], device=device)
        self.starts = self.lengths.cumsum(0) - self.lengths
        self.labels = torch.tensor(labels, device=device)

    def __len__(self) -> int:
        return len(self.labels)

    def padded(self, chosen: Tensor, width: int | None = None) -> Tensor:
        """Tokens [..., T] of the texts chosen [...], padded to the longest or to ``width``."""
        lengths = self.lengths[chosen].unsqueeze(-1)
        place = torch.arange(width or int(lengths.max()), device=chosen.device)
        found = self.flat[(self.starts[chosen].unsqueeze(-1) + place).clamp(max=len(self.flat) - 1)]
        return torch.where(place < lengths, found, self.pad).long()


class Padded:
    """Training batches of texts."""

    def __init__(self, texts: Texts, orders: Orders, width: int | None = None) -> None:
        self.texts, self.orders, self.width = texts, orders, width

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Tokens [R, B, T] and classes [R, B] of a step."""
        chosen = torch.from_numpy(self.orders.at(step)).to(self.texts.labels.device)
        return self.texts.padded(chosen, self.width), self.texts.labels[chosen]


class Sweep:
    """A split in batches of texts of like length, for evaluation."""

    def __init__(self, texts: Texts, batch_size: int) -> None:
        self.texts = texts
        self.parts = texts.lengths.argsort(stable=True).split(batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Tokens [B, T] and classes [B]."""
        for chosen in self.parts:
            yield self.texts.padded(chosen), self.texts.labels[chosen]


class Packed:
    """One row of tokens, cut into sequences of ``length`` that follow one another; on the device.

    Sequence k is tokens k·length to (k + 1)·length, and what is to be predicted of it lies one further, so
    that every token but the first is predicted once. What is left at the end is a shorter sequence, for
    evaluation alone.
    """

    def __init__(self, tokens: np.ndarray, length: int, device: torch.device) -> None:
        self.tokens = torch.from_numpy(tokens.astype(np.int32)).to(device)
        self.length = length
        self._along = torch.arange(length + 1, device=device)

    def __len__(self) -> int:
        """How many whole sequences there are."""
        return (len(self.tokens) - 1) // self.length

    def sequences(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets [..., T] of the sequences chosen [...]."""
        found = self.tokens[chosen.unsqueeze(-1) * self.length + self._along].long()
        return found[..., :-1], found[..., 1:]

    def sweep(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All sequences in order: inputs and targets [B, T], the shorter one last."""
        for first in range(0, len(self), batch_size):
            last = min(first + batch_size, len(self))
            yield self.sequences(torch.arange(first, last, device=self.tokens.device))
        rest = self.tokens[len(self) * self.length :].long()
        if len(rest) > 1:
            yield rest[None, :-1], rest[None, 1:]


class Sequences:
    """Training batches of packed sequences."""

    def __init__(self, packed: Packed, orders: Orders) -> None:
        self.packed, self.orders = packed, orders

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [R, B, T] of a step."""
        return self.packed.sequences(torch.from_numpy(self.orders.at(step)).to(self.packed.tokens.device))
