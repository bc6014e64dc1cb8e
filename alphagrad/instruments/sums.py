"""What of a step is summed over the elements of each tensor, and the quantities that the sums make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alphagrad.instruments.flat import Chunk, Layout
from alphagrad.instruments.observe import Steepness
from alphagrad.instruments.quantities import (
    ALPHA,
    COSINE,
    GRAD_NORM,
    KURTOSIS,
    PARAM_NORM,
    SATURATION,
    SIGN_FLIPS,
    UPDATE_NORM,
    UPDATE_RATIO,
)
from alphagrad.instruments.reading import ratio

PARAMS, UPDATES, GRADS, DOTS, FOURTHS, FLIPS = range(6)
"""What is summed, in order: θ², Δθ², g², g·Δθ, g⁴, and the elements that moved back. A measurement may take fewer."""


@dataclass(frozen=True)
class Observation:
    """What is measured: the ``tensors`` largest, saturated beyond ``tau``.

    With ``components`` also how far their gradients' components are from Gaussian. With ``details`` also the cosine of
    update and gradient, sign flips, kurtosis, signal over noise, and the histogram of α·ĝ.
    """

    tensors: int
    tau: float
    components: bool = False
    details: bool = False


@dataclass
class Begun:
    """What is kept from before a step until after it."""

    observe: Observation
    layout: Layout
    tensors: list[Tensor]
    old: list[Tensor]
    """The parameters before the step, a matrix for each chunk."""
    grads: list[Tensor] = field(default_factory=list)
    """The gradients likewise; none where the step computes its own."""
    exponents: Tensor | None = None
    """Powers of two that they were divided by: [tensors, runs]; None if by none."""
    grad_scale: Tensor | None = None
    steep: list[Steepness] = field(default_factory=list)
    columns: dict[str, Tensor] = field(default_factory=dict)
    """Quantities that are known already, [tensors, runs] each."""
    moved: list[bool] = field(default_factory=list)
    """Of each tensor whether an earlier update was measured, so that sign flips are defined."""


def summed(begun: Begun, chunk: int, last: Tensor | None) -> Tensor:
    """The sums of one chunk's tensors on all processes: [PARAMS to FLIPS, tensors, runs], float64.

    Args:
        begun: the measurement; without details, or without gradients, the later sums are not taken.
        chunk: which.
        last: the direction of each element's last measured move, int8 [runs, width], 0 without; takes this one.
    """
    own, old = begun.layout.chunks[chunk], begun.old[chunk]
    new, grads = own.matrix(begun.tensors), begun.grads[chunk] if begun.grads else None
    count = 2 + (grads is not None) + (2 * (grads is not None) + 1) * (last is not None)
    total: Tensor | None = None
    for columns, widths in own.slices():
        before = old[:, columns].double()
        update = new[:, columns].double().sub_(before)
        rows = before.new_empty(count, *before.shape)
        torch.mul(before, before, out=rows[PARAMS])
        torch.mul(update, update, out=rows[UPDATES])
        if grads is not None:
            g = grads[:, columns].double()
            torch.mul(g, g, out=rows[GRADS])
            if last is not None:
                torch.mul(g, update, out=rows[DOTS])
                torch.mul(rows[GRADS], rows[GRADS], out=rows[FOURTHS])
        if last is not None:
            kept, signs = last[:, columns], update.sign_().to(torch.int8)
            torch.lt(signs * kept, 0, out=rows[-1])
            torch.where(signs == 0, kept, signs, out=kept)
        part = segment_sums(rows, widths)
        total = part if total is None else total.add_(part)
    assert total is not None
    return own.extent.total(total)


def segment_sums(rows: Tensor, widths: Sequence[int]) -> Tensor:
    """Σ over the columns of each tensor: [K, runs, width] → [K, tensors, runs]."""
    if len(widths) == 1:
        return rows.sum(-1).unsqueeze(1)
    return torch.stack([part.sum(-1) for part in rows.split(list(widths), dim=-1)], dim=1)


def columns_of(begun: Begun, sums: Tensor) -> dict[str, Tensor]:
    """The quantities that the sums make: [tensors, runs] each."""
    roots, sizes, found = sums.sqrt(), begun.layout.sizes, dict[str, Tensor]()
    if begun.grads:
        norms = roots[GRADS]
        if begun.exponents is not None:
            norms = torch.ldexp(norms, begun.exponents)
        found[GRAD_NORM] = norms if begun.grad_scale is None else norms / begun.grad_scale.to(norms)
    found |= {PARAM_NORM: roots[PARAMS], UPDATE_NORM: roots[UPDATES]}
    found[UPDATE_RATIO] = ratio(roots[UPDATES], roots[PARAMS])
    for quantity in (SATURATION, ALPHA):
        column = column_of(begun.steep, quantity, begun.layout.names, roots[PARAMS])
        if column is not None:
            found[quantity] = column
    if begun.observe.details:
        if begun.grads:
            # 0/0, which is NaN, of a zero gradient
            found[COSINE] = (-sums[DOTS] / (roots[GRADS] * roots[UPDATES])).clamp_(-1, 1)
            found[KURTOSIS] = sizes * sums[FOURTHS] / sums[GRADS].square()
        found[SIGN_FLIPS] = sums[-1] / sizes
        if not all(begun.moved):
            moved = torch.tensor(begun.moved, device=sizes.device).unsqueeze(1)
            found[SIGN_FLIPS].masked_fill_(~moved, torch.nan)
    return {**found, **{quantity: x.to(sizes.device) for quantity, x in begun.columns.items()}}


def column_of(steep: Sequence[Steepness], attribute: str, names: Sequence[str], like: Tensor) -> Tensor | None:
    """What AlphaGrad has of the tensors called ``names``: [tensors, runs], NaN of those without; None without any."""
    values = {name: own for own in steep if getattr(own, attribute) is not None for name in own.names}
    if not any(name in values for name in names):
        return None
    if len(steep) == 1 and steep[0].names == names:
        return getattr(steep[0], attribute).reshape(like.shape).to(like.device)
    rows: dict[str, Tensor] = {}
    for own in steep:
        if getattr(own, attribute) is not None:
            rows.update(zip(own.names, getattr(own, attribute).reshape(len(own.names), -1), strict=True))
    none = torch.full_like(like[0], torch.nan)
    return torch.stack([rows[name].reshape(none.shape).to(none) if name in rows else none for name in names])


def scale_down_(matrix: Tensor, chunk: Chunk) -> Tensor:
    """Divides each tensor of a matrix [runs, width] by a power of two near its largest element, in place.

    Fourth powers of float64 gradients would leave the range of float64.

    Returns:
        The exponents [tensors, runs].
    """
    parts = matrix.split(chunk.widths, dim=1)
    peaks = torch.stack([p.abs().amax(-1) if p.shape[1] else p.new_zeros(len(p)) for p in parts])
    exponents = torch.frexp(peaks).exponent.masked_fill(~peaks.isfinite(), 0)
    half = exponents // 2  # 2^1074, what divides the smallest, is no float64
    for part in (half, exponents - half):
        matrix.copy_(torch.ldexp(matrix, -chunk.spread(part)))
    return exponents
