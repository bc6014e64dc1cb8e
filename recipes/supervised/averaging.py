"""The moving average of a model's weights (EMA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from alphagrad.extent import shard_of
from alphagrad.rounding import wide


class Average:
    """An exponential moving average of named tensors: ``avg ← decay·avg + (1 − decay)·tensor`` a step.

    The update is torch's (``torch.optim.swa_utils``). Tensors that are no floating-point numbers, such as
    counts of batches, are copied. It begins with the tensors as they are, and is float32 where they have
    half precision: a step's share of the average would be rounded away there.
    """

    def __init__(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        self.tensors = {name: wide(t.detach()).clone() for name, t in tensors.items()}
        self._update = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes in the tensors of one more step."""
        averaged = [name for name, t in tensors.items() if t.is_floating_point()]
        mine = [shard_of(self.tensors[n]) for n in averaged]
        self._update(mine, [wide(shard_of(tensors[n].detach())) for n in averaged], 1)
        for name, t in tensors.items():
            if not t.is_floating_point():
                self.tensors[name].copy_(t)

    def state_dict(self) -> dict[str, Any]:
        """The averages."""
        return dict(self.tensors)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes them back."""
        for name, t in self.tensors.items():
            t.copy_(state[name])
