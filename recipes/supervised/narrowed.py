"""Half-precision parameters under any optimizer: it moves float32 copies, which are rounded once a step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from alphagrad.rounding import narrow_


class Narrowed:
    """Parameters in half precision, and what an optimizer moves in their place.

    It is for comparing formats: the copies stand in memory, where AlphaGrad's own ``rounding`` needs none.

    Args:
        params: the parameters by name.
        rounding: *stochastic* or *kahan*, as in :func:`alphagrad.rounding.narrow_`.
    """

    def __init__(self, params: Mapping[str, Tensor], rounding: str) -> None:
        self.params, self.rounding = dict(params), rounding
        self.wides = {name: p.detach().float() for name, p in params.items()}
        """What the optimizer is given."""
        kept = params if rounding == "kahan" else {}
        self.lost = {name: torch.zeros_like(p, requires_grad=False) for name, p in kept.items()}

    def widen(self) -> None:
        """Brings the copies and their gradients up to date."""
        with torch.no_grad():
            for name, wide in self.wides.items():
                p = self.params[name]
                wide.copy_(p)
                wide.grad = None if p.grad is None else p.grad.float()

    @torch.no_grad()
    def narrow(self) -> None:
        """Rounds the moved copies back into the parameters."""
        stored, wides = list(self.params.values()), list(self.wides.values())
        narrow_(stored, wides, self.rounding, list(self.lost.values()))
        for wide in wides:
            wide.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """What was rounded away, by name."""
        return self.lost

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes it back."""
        for name, lost in self.lost.items():
            lost.copy_(state[name])
