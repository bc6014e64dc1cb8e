"""From float32, in which everything is computed, to the type in which it is kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

HALVES = (torch.bfloat16, torch.float16)
ROUNDINGS = ("nearest", "stochastic", "kahan")


def wide(tensor: Tensor) -> Tensor:
    """A half-precision tensor as float32, another as it is."""
    return tensor.float() if tensor.dtype in HALVES else tensor


def narrow_(
    stored: Sequence[Tensor], wides: Sequence[Tensor], rounding: str = "nearest", lost: Sequence[Tensor] = ()
) -> None:
    """Writes what :func:`wide` gave, changed since, back to where it is kept.

    *nearest* loses an update below half the distance to the next number. *stochastic* rounds up with the probability
    of the remainder, so that it is kept on average (bfloat16). *kahan* keeps the remainder in ``lost`` and adds it
    to the next update: the caller's ``wides`` do not hold it yet.
    """
    for i, (s, w) in enumerate(zip(stored, wides, strict=True)):
        if s is w:
            continue
        if s.dtype not in HALVES or rounding == "nearest":
            s.copy_(w)
        elif rounding == "kahan":
            exact = w + lost[i]
            s.copy_(exact)
            lost[i].copy_(exact - s)
        else:
            s.copy_(stochastic(w))


def stochastic(x: Tensor) -> Tensor:
    """float32 rounded up or down to bfloat16, up with the probability of what lies between: right on average."""
    bits = x.view(torch.int32)
    noise = torch.randint_like(bits, 1 << 16)
    # the upper half of the bits is the bfloat16; what the noise carries over into it rounds away from zero
    rounded = ((bits + noise) & -(1 << 16)).view(torch.float32)
    return torch.where(x.isfinite(), rounded, x).to(torch.bfloat16)
