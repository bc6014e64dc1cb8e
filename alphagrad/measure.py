"""What a step measures before it moves anything: the norms that divide, and how much of a tensor saturates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alphagrad.batch import Batch
from alphagrad.normalization import PerTensor
from alphagrad.pieces import pieces
from alphagrad.rounding import HALVES, wide


def divisors(batches: Sequence[Batch], grad_scale: Tensor | None = None) -> list[Tensor]:
    """What divides each batch's gradients, ‖unit‖₂ + ε: [tensors, *batch] each, float64.

    Batches of one normalisation are measured together, because a unit may span parameter groups. Gradients that
    carry ``grad_scale`` are divided by it too.
    """
    squares = summed_over_processes(batches, [b.kernel.norms(b) if b.kernel else square_sums(b) for b in batches])
    for b, square in zip(batches, squares, strict=True):
        b.norms = square.sqrt()
        if grad_scale is not None:
            b.norms = b.norms / scale_for(b, grad_scale)
    result = []
    for b, unit in zip(batches, unit_norms(batches), strict=True):
        # a zero gradient under ε = 0 is 0/1, not 0/0
        by = (unit + b.eps if b.rule.normalization.uses_eps else unit).masked_fill(unit == 0, 1.0)
        result.append(by if grad_scale is None else by * scale_for(b, grad_scale))
    return result


def unit_norms(batches: Sequence[Batch]) -> list[Tensor]:
    """‖unit‖₂ of the unit that each tensor belongs to, from the norms of the tensors: [tensors, *batch] each."""
    result: list[Tensor] = [b.norms for b in batches]  # type: ignore[misc]
    spanning = [i for i, b in enumerate(batches) if not isinstance(b.rule.normalization, PerTensor)]
    for normalization in dict.fromkeys(batches[i].rule.normalization for i in spanning):
        rows = [i for i in spanning if batches[i].rule.normalization == normalization]
        infos = [info for i in rows for info in batches[i].infos]
        home = result[rows[0]].device
        own = torch.cat([result[i].to(home) for i in rows])
        together = normalization.norms(own, infos).double().expand_as(own)  # kernels read it by address
        for i, part in zip(rows, together.split([len(batches[i].infos) for i in rows]), strict=True):
            result[i] = part.to(result[i].device)
    return result


def scale_for(b: Batch, grad_scale: Tensor) -> Tensor:
    """The loss scale as a number on the batch's device, float64."""
    return grad_scale.reshape(()).to(b.params[0].device, torch.float64)


def square_sums(b: Batch) -> Tensor:
    """Σg² of every tensor and run on this process: [tensors, *batch], float64.

    Squares of float32 from 1e-38 to 1e38 neither underflow nor overflow there, and sums over millions of
    elements keep their digits. Non-finite exactly where the tensor is.
    """
    if b.params[0].device.type == "cpu" and not torch.compiler.is_compiling():
        return over_pieces(b, lambda x, _: dot(x.double()))
    if b.extent.batch_dims == 0:
        return torch.stack(list(torch._foreach_norm(b.grads, 2, torch.float64))).square()
    flat = [x.unsqueeze(-1).flatten(b.extent.batch_dims) for x in b.grads]
    return torch.stack([torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64) for x in flat]).square()


def dot(x: Tensor) -> Tensor:
    """Σx² over the last dimension."""
    return torch.dot(x, x) if x.dim() == 1 else x.square().sum(-1)


def over_pieces(b: Batch, measure: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Sums ``measure`` of gradients [*batch, d] and their index over the pieces of each tensor: [tensors, *batch]."""
    dims = b.extent.batch_dims
    sums: list[Tensor | None] = [None] * len(b.grads)
    for piece in pieces(b):
        for i, g in zip(piece.index, piece.grads, strict=True):
            part = measure(g.reshape(*g.shape[:dims], -1), i)
            before = sums[i]
            sums[i] = part if before is None else before + part
    return torch.stack([s for s in sums if s is not None])


def factors(by: Tensor, alpha: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """α/``by`` as two factors, so that neither leaves the range of ``dtype`` where the product does not."""
    before = torch.ones_like(by).masked_fill(by > 2.0**64, 2.0**-100).masked_fill(by < 2.0**-64, 2.0**100)
    scale = (alpha / (by * before)).clamp(max=torch.finfo(dtype).max)
    return before.to(dtype), scale.to(dtype)


def saturations(
    batches: Sequence[Batch], divisors: Sequence[Tensor], alphas: Sequence[Tensor | None]
) -> list[dict[float, Tensor]]:
    """For each batch τ → S(α) = (1/d) Σ 1{|α·ĝᵢ| > τ}, [tensors, *batch], float64, of the τ its rule asks for."""
    wanted = [(i, tau) for i, b in enumerate(batches) for tau in b.rule.taus]
    counts = [beyond(batches[i], divisors[i], alphas[i], tau) for i, tau in wanted]
    found: list[dict[float, Tensor]] = [{} for _ in batches]
    for (i, tau), count in zip(wanted, summed_over_processes([batches[i] for i, _ in wanted], counts), strict=True):
        found[i][tau] = count / batches[i].sizes
    return found


def beyond(b: Batch, by: Tensor, alpha: Tensor | None, tau: float) -> Tensor:
    """How many elements of each tensor have |α·ĝᵢ| > τ, on this process: [tensors, *batch], float64."""
    assert alpha is not None
    if b.kernel is not None:
        return b.kernel.beyond(b, by, alpha, tau)
    dtype = torch.float32 if b.grads[0].dtype in HALVES else b.grads[0].dtype
    before, scale = (x.unsqueeze(-1).unbind(0) for x in factors(by, alpha, dtype))
    return over_pieces(b, lambda x, i: ((wide(x) * before[i] * scale[i]).abs() > tau).sum(-1, dtype=torch.float64))


def summed_over_processes(batches: Sequence[Batch], sums: Sequence[Tensor]) -> list[Tensor]:
    """Each batch's sums over the processes that share its tensors: one reduction for all that share alike."""
    result = list(sums)
    if not any(b.extent.groups for b in batches):
        return result
    for groups, device in dict.fromkeys((b.extent.groups, s.device) for b, s in zip(batches, sums, strict=True)):
        if not groups:
            continue
        rows = [i for i, b in enumerate(batches) if b.extent.groups == groups and sums[i].device == device]
        together = batches[rows[0]].extent.total(torch.cat([result[i] for i in rows]))
        for i, part in zip(rows, together.split([len(result[i]) for i in rows]), strict=True):
            result[i] = part
    return result
