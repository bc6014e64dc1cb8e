"""How steep AlphaGrad is, and how much of each tensor saturates (paper, sections 7.3 and 7.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alphagrad.batch import Batch
from alphagrad.measure import beyond, divisors, summed_over_processes
from alphagrad.optimizer import AlphaGrad


@dataclass(frozen=True)
class Steepness:
    """What AlphaGrad makes of the gradients of some tensors: each [tensors, *batch], float64."""

    names: list[str]
    norms: Tensor
    """‖g‖₂ of each tensor alone, unscaled."""
    alpha: Tensor | None
    """None where the rule has no α."""
    saturation: Tensor | None
    factor: Tensor | None
    """What a component of the gradient, scaled or not, is multiplied by to become one of α·ĝ."""


@torch.no_grad()
def signals(optimizer: AlphaGrad, tau: float = 2.5) -> dict[str, dict[str, Tensor]]:
    """Per tensor, from the gradients that stand now, each [*batch]: call it before ``step()``.

    Of sharded parameters the signals are of the whole tensors, and every process must call it.

    Returns:
        Tensor name → ``grad_norm`` ‖g‖₂ of that tensor alone; ``alpha`` and ``saturation`` S(α), the
        fraction of components with ``|α·ĝᵢ| > tau``, where the rule has an α.
    """
    try:
        batches = [b for b, _ in optimizer.batches()]
        found: dict[str, dict[str, Tensor]] = {}
        for b, steep in zip(batches, _measured(batches, tau, None), strict=True):
            dtype = torch.promote_types(b.grads[0].dtype, torch.float32)
            columns = {"grad_norm": steep.norms, "saturation": steep.saturation, "alpha": steep.alpha}
            for row, name in enumerate(steep.names):
                # copies: α of a fixed rule is kept from step to step
                found[name] = {k: v[row].to(dtype, copy=True) for k, v in columns.items() if v is not None}
        return found
    finally:
        optimizer.release()


@torch.no_grad()
def steepness(optimizer: AlphaGrad, tau: float) -> list[Steepness]:
    """As :func:`signals`, of many tensors together; gradients may still carry ``optimizer.grad_scale``."""
    try:
        return _measured([b for b, _ in optimizer.batches()], tau, getattr(optimizer, "grad_scale", None))
    finally:
        optimizer.release()


def _measured(batches: Sequence[Batch], tau: float, grad_scale: Tensor | None) -> list[Steepness]:
    by = divisors(batches, grad_scale) if batches else []
    alphas = [b.steepness() for b in batches]
    steep = [i for i, alpha in enumerate(alphas) if alpha is not None]
    counts = [beyond(batches[i], by[i], alphas[i], tau) for i in steep]
    counted = dict(zip(steep, summed_over_processes([batches[i] for i in steep], counts), strict=True))
    found = []
    for i, (b, alpha) in enumerate(zip(batches, alphas, strict=True)):
        assert b.norms is not None
        share = counted[i] / b.sizes if i in counted else None
        factor = None if alpha is None else alpha / by[i]
        found.append(Steepness([info.name for info in b.infos], b.norms, alpha, share, factor))
    return found
