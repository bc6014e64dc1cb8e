"""What an optimizer does to its gradients, tensor by tensor (paper, sections 7.3 and 8)."""

from __future__ import annotations

import torch
from torch import Tensor

from alphagrad.alpha import saturation_ratio
from alphagrad.optimizer import AlphaGrad
from alphagrad.step import divisors, narrowed, scaled_gradients, steepness, wide
from alphagrad.values import tensor_of


@torch.no_grad()
def signals(optimizer: AlphaGrad, tau: float = 2.5) -> dict[str, dict[str, Tensor]]:
    """Per tensor, from the gradients that stand now, each [*batch]: call it before ``step()``.

    Of sharded parameters the signals are of the whole tensors, and every process must call it.

    Returns:
        Tensor name → ``grad_norm`` ‖g‖₂ of that tensor alone; ``alpha`` and ``saturation`` S(α), the
        fraction of components with ``|α·ĝᵢ| > tau``, where the rule has an α.
    """
    batches = [b for b, _ in optimizer.batches()]
    for b in batches:
        b.grads = [wide(g) for g in b.grads]
    measured: dict[str, dict[str, Tensor]] = {}
    for b, by in zip(batches, divisors(batches) if batches else [], strict=True):
        norms = b.extent.norms(b.grads).to(by.device, b.grads[0].dtype)
        for i, (grad, info) in enumerate(zip(b.grads, b.infos, strict=True)):
            part = slice(i, i + 1)
            (scaled,), (unit,) = scaled_gradients(b, part, list(narrowed(by, grad.dtype).unbind(0))[part])
            row = {"grad_norm": norms[i]}
            if b.rule.alpha is not None:
                row["saturation"] = saturation_ratio(scaled, tau, b.extent)
                (alpha,) = steepness(b, part)
                # a copy: a controlled α is state, which the next step overwrites
                row["alpha"] = tensor_of(alpha, unit).expand(row["saturation"].shape).clone()
            measured[info.name] = row
    return measured
