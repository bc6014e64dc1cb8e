"""The update itself: one function over lists of tensors.

Equations of the paper, section 2, for each tensor θ with gradient g and unit norm ‖g‖₂::

    ĝ  = g / (‖g‖₂ + ε)                      (2)
    g' = transform(α·ĝ, ĝ)                   (3) when the transform is tanh
    v  ← γ·v + (1 − dampening)·g'            the form of torch.optim.SGD; first v = g'
    θ  ← (1 − η·decay)·θ − η·v               (4-6)

:func:`move_piece` is these lines, for all but ‖g‖₂ and the saturations, which ``measure.py`` measures first. A kernel
(``kernels/``) computes the same faster in place of both files: on a CPU where numba is installed, on a CUDA device
where ``fused=True`` asks for it. It runs only for the rules in ``kernels/coverage.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alphagrad.batch import Batch
from alphagrad.measure import divisors, factors, saturations
from alphagrad.pieces import Piece, pieces
from alphagrad.rounding import HALVES, narrow_, wide
from alphagrad.transform import Transform


def update(batches: Sequence[Batch], grad_scale: Tensor | None = None, found_inf: Tensor | None = None) -> None:
    """One optimizer step, in place, without a host synchronisation.

    Args:
        batches: the parameter groups.
        grad_scale: gradients are divided by it (``torch.amp.GradScaler``).
        found_inf: where it is not zero nothing changes at all (``torch.amp.GradScaler``).
    """
    if grad_scale is None:
        batches = [b for b in batches if not (b.simple and b.kernel is not None and b.kernel.step(b, found_inf))]
        if not batches:
            return
    measured = divisors(batches, grad_scale)
    alphas = [b.steepness() for b in batches]
    seen = saturations(batches, measured, alphas)
    for b, by, alpha, saturated in zip(batches, measured, alphas, seen, strict=True):
        number = b.number(saturated)
        allowed = None if found_inf is None else (found_inf == 0).reshape(()).to(by.device)
        if b.kernel is not None:
            b.kernel.update(b, by, alpha, number, allowed)
        else:
            move(b, by, alpha, number, allowed)
        if b.alphas:
            control_saturation(b, by, alpha, saturated, allowed)


def move(b: Batch, by: Tensor, alpha: Tensor | None, number: Tensor | None, allowed: Tensor | None) -> None:
    """The step from the divisors ``by``, α and the transform's number, each [tensors, *batch].

    A tensor (or run) whose divisor is not finite stays as it is if the batch skips such gradients, and so does
    everything where ``allowed`` is false.
    """
    columns = {name: numbers.unbind(0) for name, numbers in numbers_of(b, by, alpha, number, allowed).items()}
    for piece in pieces(b):
        move_piece(b, piece, {name: piece.rows(numbers) for name, numbers in columns.items()})


def numbers_of(
    b: Batch, by: Tensor, alpha: Tensor | None, number: Tensor | None, allowed: Tensor | None
) -> dict[str, Tensor]:
    """What of each tensor and run a step must know, by name, [tensors, *batch], in the type it is computed in.

    Counts the step, and the gradients that are skipped.
    """
    moves = torch.ones_like(by, dtype=torch.bool) if allowed is None else allowed.expand_as(by)
    if b.skip:
        finite = by.isfinite()
        torch._foreach_add_(b.skipped, list((moves & ~finite).to(torch.int32).unbind(0)))
        moves = moves & finite
    dtype = torch.float32 if b.params[0].dtype in HALVES else b.params[0].dtype
    before, unit = factors(by, torch.ones_like(by), dtype)
    rates = torch.as_tensor(b.lr, dtype=torch.float64, device=by.device) * moves
    numbers = {"before": before, "unit": unit, "rate": rates.to(dtype)}
    numbers["scale"] = unit if alpha is None else factors(by, alpha, dtype)[1]
    if number is not None:
        numbers["number"] = number.to(dtype)
    if b.skip or allowed is not None:
        numbers["moves"] = moves
    if b.decays:
        numbers["keep"] = (1 - b.weight_decay * rates).to(dtype)
    if b.buffers:
        begun = torch.stack(b.begun)
        numbers["momentum"] = torch.where(moves, torch.as_tensor(b.momentum, dtype=dtype, device=by.device), 1.0)
        if b.dampens:
            numbers["share"] = (1 - b.dampening * begun.double()).to(dtype)
        torch._foreach_copy_(b.begun, list((begun | moves).unbind(0)))
    if b.steps:
        torch._foreach_add_(b.steps, list(moves.to(torch.float32).unbind(0)))
    return numbers


def move_piece(b: Batch, piece: Piece, n: dict[str, list[Tensor]]) -> None:
    """The step for some tensors, or parts of tensors; ``n`` has each one's numbers by name."""
    unit, scaled = units(b.rule.transform, [wide(g) for g in piece.grads], n)
    updates = b.rule.transform(scaled, unit, n.get("number"))
    if "moves" in n:
        updates = [torch.where(m, u, 0.0) for m, u in zip(n["moves"], updates, strict=True)]
    if b.maximize:
        torch._foreach_neg_(updates)
    if piece.buffers:
        updates = accumulate(b, piece, updates, n)
    params = [wide(p) for p in piece.params]
    if b.decays:
        torch._foreach_mul_(params, n["keep"])
    torch._foreach_addcmul_(params, updates, n["rate"], value=-1)
    narrow_(piece.params, params, b.rounding, piece.compensations)


def units(transform: Transform, grads: list[Tensor], n: dict[str, list[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """ĝ and α·ĝ, which may be overwritten. Only the one that the transform uses is valid."""
    if not transform.uses_size:
        copies = [g.clone() for g in grads]
        return copies, copies
    unit = list(torch._foreach_mul(grads, n["before"]))
    scaled = list(torch._foreach_mul(unit, n["scale"])) if transform.uses_unit else unit
    alone = transform.uses_alpha and not transform.uses_unit
    torch._foreach_mul_(unit, n["scale"] if alone else n["unit"])
    return unit, scaled


def accumulate(b: Batch, piece: Piece, updates: list[Tensor], n: dict[str, list[Tensor]]) -> list[Tensor]:
    """``v ← γ·v + (1 − dampening)·g'`` in place; returns v, or g' + γ·v under Nesterov."""
    buffers = [v.to(u.dtype) for v, u in zip(piece.buffers, updates, strict=True)]
    torch._foreach_mul_(buffers, n["momentum"])
    torch._foreach_add_(buffers, torch._foreach_mul(updates, n["share"]) if "share" in n else updates)
    narrow_(piece.buffers, buffers)
    if not b.nesterov:
        return buffers
    torch._foreach_add_(updates, torch._foreach_mul(buffers, n["momentum"]))
    return updates


def control_saturation(
    b: Batch, by: Tensor, alpha: Tensor | None, saturated: Mapping[float, Tensor], allowed: Tensor | None
) -> None:
    """Keeps S(α) of this update and sets α for the next one (section 7.3); a zero gradient says nothing about α."""
    policy = b.rule.alpha
    assert policy is not None
    assert alpha is not None
    assert b.norms is not None
    saturation = saturated[policy.tau]
    moves = by.isfinite() if b.skip else torch.ones_like(by, dtype=torch.bool)
    if allowed is not None:
        moves = moves & allowed
    told = moves & (b.norms > 0)
    counts = torch.stack(b.steps).double()  # this update is counted already
    adapted = policy.adapt(alpha, saturation, counts)
    torch._foreach_copy_(b.alphas, list(torch.where(told, adapted, alpha).unbind(0)))
    kept = torch.stack(b.saturations)
    torch._foreach_copy_(b.saturations, list(torch.where(moves, saturation.to(kept.dtype), kept).unbind(0)))
