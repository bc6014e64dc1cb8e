"""How far the components of a gradient are from N(0, σ²): kurtosis, tails, zeros, quantiles (paper, section 2.1).

The paper takes the components of ĝ, a unit vector of d elements, for draws from N(0, 1/d). So σ is 1/√d of ĝ, which
is ‖g‖/√d of g itself: nothing here depends on the gradient's size.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor

from alphagrad.instruments.quantities import KURTOSIS, ZEROS, quantile, tail

TAILS = (2, 3, 4)
"""In units of σ."""
LEVELS = tuple(z / 4 for z in range(-14, 15))
"""Quantiles of N(0, 1) at which the components' own are taken."""
MOST = 1 << 20
"""Elements that quantiles are taken of; of larger tensors, one from each stretch of equal length."""


@torch.no_grad()
def components(grad: Tensor, runs: int | None) -> dict[str, Tensor]:
    """What the components of one tensor's gradient are like, of each run [R] where it is [R, ...].

    Quantity → value: kurtosis about 0 (3 for a Gaussian), the share of components beyond 2, 3 and 4 σ, the share of
    exact zeros, and the quantiles in units of σ at the levels of :data:`LEVELS`. NaN for a gradient of zeros.
    """
    flat = grad.detach().reshape(1 if runs is None else runs, -1)
    d = flat.shape[1]
    wide = flat.double()
    sigma = torch.linalg.vector_norm(wide, dim=1, keepdim=True) / math.sqrt(d)
    scaled = wide / sigma
    size = scaled.abs()
    found = {KURTOSIS: scaled.pow(4).mean(1), ZEROS: (flat == 0).double().mean(1)}
    for sigmas in TAILS:
        found[tail(sigmas)] = (size > sigmas).double().mean(1).masked_fill(sigma[:, 0] == 0, math.nan)
    thinned = scaled[:, kept(d).to(scaled.device)].sort(dim=1).values
    cut = NormalDist()
    for level in LEVELS:
        # the place of a quantile among n sorted numbers, as in a Q-Q plot: (k + 1/2)/n
        place = min(max(cut.cdf(level) * thinned.shape[1] - 0.5, 0.0), thinned.shape[1] - 1.0)
        low = int(place)
        high = min(low + 1, thinned.shape[1] - 1)
        found[quantile(level)] = thinned[:, low].lerp(thinned[:, high], place - low)
    return found if runs is not None else {name: value[0] for name, value in found.items()}


def kept(d: int) -> Tensor:
    """Which of d components quantiles are taken of: one of each stretch, drawn the same way each time.

    A fixed distance between them would pick whole columns of a matrix where it divides the row.
    """
    stretch = -(-d // MOST)
    starts = torch.arange(0, d, stretch)
    drawn = torch.randint(stretch, starts.shape, generator=torch.Generator().manual_seed(0))
    return (starts + drawn).clamp_(max=d - 1)


def expected(quantity: str) -> float | None:
    """What a Gaussian would have; None for other quantities."""
    normal = {tail(sigmas): 2 * NormalDist().cdf(-sigmas) for sigmas in TAILS}
    return {KURTOSIS: 3.0, ZEROS: 0.0, **normal}.get(quantity)
