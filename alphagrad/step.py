"""The update itself: one function over lists of tensors, for eager, foreach and compiled execution.

Equations of the paper, section 2, for each tensor θ with gradient g and unit norm ‖g‖₂::

    ĝ  = g / (‖g‖₂ + ε)                      (2)
    g' = transform(α·ĝ, ĝ)                   (3) when the transform is tanh
    v  ← γ·v + (1 − dampening)·g'            the form of torch.optim.SGD; first v = g'
    θ  ← (1 − η·decay)·θ − η·v               (4-6)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alphagrad.alpha import saturation_ratio
from alphagrad.extent import Extent
from alphagrad.rule import Rule
from alphagrad.values import TensorInfo, Value, per_run, tensor_of


@dataclass
class Batch:
    """Tensors of one parameter group, device, dtype and extent, as parallel lists, with the settings they share.

    Parameters are [*batch, ...]; every per-run quantity (``steps``, ``alphas``, ...) is [*batch]. Of sharded
    parameters these are the shards on this process.
    A list of state that the settings do not use is empty.
    """

    params: list[Tensor]
    grads: list[Tensor]
    infos: list[TensorInfo]
    rule: Rule
    lr: float | Tensor
    momentum: float | Tensor
    dampening: float
    nesterov: bool
    weight_decay: float
    eps: float
    maximize: bool
    skip: bool
    extent: Extent
    foreach: bool
    buffers: list[Tensor] = field(default_factory=list)
    steps: list[Tensor] = field(default_factory=list)
    initials: list[Value] = field(default_factory=list)
    alphas: list[Tensor] = field(default_factory=list)
    saturations: list[Tensor] = field(default_factory=list)
    skipped: list[Tensor] = field(default_factory=list)

    def split(self) -> Iterator[slice]:
        """All tensors at once for ``foreach``; else one at a time, which keeps temporaries in cache."""
        if self.foreach:
            yield slice(0, len(self.params))
        else:
            yield from (slice(i, i + 1) for i in range(len(self.params)))


def wide(tensor: Tensor) -> Tensor:
    """Half-precision tensors as float32, others as they are."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def divisors(batches: Sequence[Batch]) -> list[Tensor]:
    """‖unit‖₂ + ε for each batch's tensors: [tensors, *batch] each, float64.

    Batches of one normalisation are measured together, because a unit may span parameter groups.
    """
    norms = [b.extent.norms(b.grads) for b in batches]
    result = list(norms)
    for normalization in dict.fromkeys(b.rule.normalization for b in batches):
        rows = [i for i, b in enumerate(batches) if b.rule.normalization == normalization]
        infos = [info for i in rows for info in batches[i].infos]
        together = normalization.norms(torch.cat([norms[i].to(norms[rows[0]].device) for i in rows]), infos)
        for i, part in zip(rows, together.split([len(norms[i]) for i in rows]), strict=True):
            part = part.to(norms[i].device)
            # a zero gradient under ε = 0 is 0/1, not 0/0
            result[i] = torch.where(part == 0, 1.0, part + (batches[i].eps if normalization.uses_eps else 0.0))
    return result


def narrowed(by: Tensor, dtype: torch.dtype) -> Tensor:
    """Divisors in the gradients' dtype. One above its largest number becomes that number.

    Elements up to 1e30 stay below float32's 3.4e38 whatever the tensor's size. Beyond, ‖ĝ‖ comes out above 1,
    at most √d: such an update is too large, but finite.
    """
    return torch.where(by.isfinite(), by.clamp(max=torch.finfo(dtype).max), by).to(dtype)


def scaled_gradients(b: Batch, part: slice, by: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """α·ĝ and ĝ of a part of the batch, divided by ``by``; one list where the transform needs one only."""
    grads = b.grads[part]
    unit = list(torch._foreach_div(grads, [per_run(d, g) for d, g in zip(by, grads, strict=True)]))
    if b.rule.alpha is None:
        return unit, unit
    scaled = [u.clone() for u in unit] if b.rule.transform.uses_unit else unit
    alphas = steepness(b, part)
    numbers = [alpha for alpha in alphas if isinstance(alpha, float)]
    if len(numbers) == len(scaled):
        torch._foreach_mul_(scaled, numbers)
    else:
        torch._foreach_mul_(scaled, [per_run(tensor_of(a, u), u) for a, u in zip(alphas, scaled, strict=True)])
    return scaled, unit


def steepness(b: Batch, part: slice) -> Sequence[Value | Tensor]:
    """α of each tensor of a part, for the update that comes next."""
    policy = b.rule.alpha
    assert policy is not None
    if policy.controlled:
        return b.alphas[part]
    if policy.counts_steps:
        return [policy.at(s, info) for s, info in zip(b.steps[part], b.infos[part], strict=True)]
    return b.initials[part]


def update(batches: Sequence[Batch], grad_scale: Tensor | None = None, found_inf: Tensor | None = None) -> None:
    """One optimizer step, in place, without a host synchronisation.

    Args:
        batches: the parameter groups.
        grad_scale: gradients are divided by it (``torch.amp.GradScaler``).
        found_inf: where it is not zero nothing changes at all (``torch.amp.GradScaler``).
    """
    for b in batches:
        b.grads = [wide(g) for g in b.grads]
        if grad_scale is not None:
            b.grads = list(torch._foreach_div(b.grads, grad_scale.to(b.grads[0].device, b.grads[0].dtype)))
    for b, by in zip(batches, divisors(batches), strict=True):
        moves = by.isfinite() if b.skip else torch.ones_like(by, dtype=torch.bool)
        by = narrowed(by, b.grads[0].dtype)
        allowed = torch.ones_like(moves) if found_inf is None else (found_inf == 0).to(by.device).expand_as(moves)
        if b.skip:
            torch._foreach_add_(b.skipped, list((allowed & ~moves).to(torch.int32).unbind(0)))
        moves = moves & allowed
        rates = (tensor_of(b.lr, by) * moves).unbind(0)
        for part in b.split():
            scaled, unit = scaled_gradients(b, part, by.unbind(0)[part])
            update_part(b, part, scaled, unit, moves.unbind(0)[part], rates[part], b.skip or found_inf is not None)


def update_part(
    b: Batch,
    part: slice,
    scaled: list[Tensor],
    unit: list[Tensor],
    moves: Sequence[Tensor],
    rates: Sequence[Tensor],
    masked: bool,
) -> None:
    """The step for some tensors of a batch; a tensor (or run) where ``moves`` is false stays as it is."""
    if b.alphas:
        control_saturation(b, part, scaled, moves)
    updates = b.rule.transform(scaled, unit, b.steps[part], b.extent)
    if masked:
        updates = [torch.where(per_run(m, u), u, 0.0) for m, u in zip(moves, updates, strict=True)]
    if b.maximize:
        torch._foreach_neg_(updates)
    if b.buffers:
        updates = accumulate(b, part, updates, moves)
    if b.steps:
        torch._foreach_add_(b.steps[part], [m.to(torch.float32) for m in moves])

    params = [wide(p) for p in b.params[part]]
    rates = [per_run(r, p) for r, p in zip(rates, params, strict=True)]
    if b.weight_decay:
        torch._foreach_mul_(params, [1 - b.weight_decay * r for r in rates])
    torch._foreach_addcmul_(params, updates, rates, value=-1)
    write_back(b.params[part], params)


def accumulate(b: Batch, part: slice, updates: list[Tensor], moves: Sequence[Tensor]) -> list[Tensor]:
    """``v ← γ·v + (1 − dampening)·g'`` in place; returns v, or g' + γ·v under Nesterov."""
    buffers = [wide(v) for v in b.buffers[part]]
    decays = [torch.where(m, tensor_of(b.momentum, v), 1.0) for m, v in zip(moves, buffers, strict=True)]
    torch._foreach_mul_(buffers, [per_run(d, v) for d, v in zip(decays, buffers, strict=True)])
    if b.dampening:
        # the first v is g' itself, undamped
        first = [s == 0 for s in b.steps[part]]
        shares = [torch.where(f, 1.0, tensor_of(1.0 - b.dampening, u)) for f, u in zip(first, updates, strict=True)]
        fresh = [u * per_run(s, u) for u, s in zip(updates, shares, strict=True)]
    else:
        fresh = updates
    torch._foreach_add_(buffers, fresh)
    write_back(b.buffers[part], buffers)
    return list(torch._foreach_add(updates, torch._foreach_mul(buffers, b.momentum))) if b.nesterov else buffers


def control_saturation(b: Batch, part: slice, scaled: Sequence[Tensor], moves: Sequence[Tensor]) -> None:
    """Measures S(α) of this update and sets α for the next one (section 7.3)."""
    policy = b.rule.alpha
    assert policy is not None
    rows = zip(scaled, b.alphas[part], b.saturations[part], b.steps[part], moves, strict=True)
    for x, alpha, saturation, step, move in rows:
        measured = saturation_ratio(x, policy.tau, b.extent).to(saturation.dtype)
        saturation.copy_(torch.where(move, measured, saturation))
        alpha.copy_(torch.where(move, policy.adapt(alpha, measured, step + 1), alpha))


def write_back(stored: Sequence[Tensor], wides: Sequence[Tensor]) -> None:
    """Rounds what was computed in float32 to the half precision it is stored in."""
    for s, w in zip(stored, wides, strict=True):
        if s is not w:
            s.copy_(w)
