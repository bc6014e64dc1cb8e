"""What an optimizer does to its gradients, tensor by tensor (paper, sections 7.3 and 7.6)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from alphagrad.batch import Batch
from alphagrad.measure import beyond, divisors, summed_over_processes
from alphagrad.optimizer import AlphaGrad


@torch.no_grad()
def signals(optimizer: AlphaGrad, tau: float = 2.5) -> dict[str, dict[str, Tensor]]:
    """Per tensor, from the gradients that stand now, each [*batch]: call it before ``step()``.

    Of sharded parameters the signals are of the whole tensors, and every process must call it.

    Returns:
        Tensor name → ``grad_norm`` ‖g‖₂ of that tensor alone; ``alpha`` and ``saturation`` S(α), the
        fraction of components with ``|α·ĝᵢ| > tau``, where the rule has an α.
    """
    try:
        return _measured([b for b, _ in optimizer.batches()], tau)
    finally:
        optimizer.release()


def _measured(batches: Sequence[Batch], tau: float) -> dict[str, dict[str, Tensor]]:
    by = divisors(batches) if batches else []
    alphas = [b.steepness() for b in batches]
    steep = [i for i, alpha in enumerate(alphas) if alpha is not None]
    counts = [beyond(batches[i], by[i], alphas[i], tau) for i in steep]
    counted = dict(zip(steep, summed_over_processes([batches[i] for i in steep], counts), strict=True))
    measured: dict[str, dict[str, Tensor]] = {}
    for i, b in enumerate(batches):
        dtype = torch.promote_types(b.grads[0].dtype, torch.float32)
        columns = {"grad_norm": b.norms}
        if i in counted:
            columns |= {"saturation": counted[i] / b.sizes, "alpha": alphas[i]}
        for row, info in enumerate(b.infos):
            # copies: α of a fixed rule is kept from step to step
            measured[info.name] = {k: v[row].to(dtype, copy=True) for k, v in columns.items() if v is not None}
    return measured
