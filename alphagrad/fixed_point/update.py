"""The update of AlphaGrad in integers, as the C header computes it: equal to the last bit.

Each line stands for a line of ``template.h``. Integers are 64 bits wide here, so that nothing wraps; that C's 32 bits
give the same is what the tests compare.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from alphagrad.fixed_point.number import Number

ONE = 1 << 15
"""1 in the units of the table."""
PER_UNIT = 16
"""Entries of the table between two whole numbers."""
TANH = tuple(round(ONE * math.tanh(i / PER_UNIT)) for i in range(8 * PER_UNIT + 1))
"""tanh on [0, 8], where it has become 1. Between two entries a line errs by 4e-4 at most; with the
rounding of its argument to 2^-12, by 4.8e-4."""
BLOCK = 1 << 16
"""Elements whose squares are summed before the sum is made shorter."""
HALF = 1 << 31
WORD = (1 << 32) - 1
Counts = TypeVar("Counts", Tensor, int)


@cache
def entries(device: torch.device) -> Tensor:
    """The table on a device."""
    return torch.tensor(TANH, device=device)


def rounded(value: Tensor, right: int, chance: Tensor | int, most: int) -> Tensor:
    """``value / 2^right``, at most ``most``; ``chance / 2^32`` is added before it is rounded down."""
    if right <= 0:
        return (value << min(-right, 17)).clamp(max=most)  # 17: whatever is not 0 is beyond
    if right > 30:
        value, right = value >> min(right - 30, 32), 30
    return ((value + (chance >> (32 - right))) >> right).clamp(max=most)


def random_bits(counts: Counts) -> Counts:
    """32 random bits of each count: "lowbias32" of C. Wellons, a hash."""
    x = counts & WORD
    x = ((x ^ x >> 16) * 0x7FEB352D) & WORD
    x = ((x ^ x >> 15) * 0x846CA68B) & WORD
    return x ^ x >> 16


def norm(gradient: Tensor) -> tuple[int, int]:
    """‖gradient‖₂ of int8 as ``root · 2^exponent`` with 2^14 ≤ root < 2^15; (0, 0) of a zero gradient.

    The root is rounded down, and so at most 2^-14 too small. The sum is kept below 2^30: when it grows beyond, it and
    what is added later lose their last two bits, at most 2^-28 of it each time.
    """
    total, exponent = 0, 0
    for block in gradient.flatten().split(BLOCK):
        total += int(block.long().square().sum()) >> 2 * exponent
        while total >= 1 << 30:
            total, exponent = total >> 2, exponent + 1
    if not total:
        return 0, 0
    while total < 1 << 28:
        total, exponent = total << 2, exponent - 1
    return math.isqrt(total), exponent


def update(
    weights: Tensor, gradient: Tensor, alpha: Number, rate: Number, weight_bits: int, noise: int | None = None
) -> tuple[Tensor, int | None]:
    """The weights after ``w ← w − rate·tanh(alpha·g/‖g‖)``, and the noise that follows.

    Args:
        weights: int16, in units of ``2^-weight_bits``; one that would leave int16 stays at its end.
        gradient: int8, of the same shape, in any unit: the exponent that its elements share cancels.
        alpha: the steepness.
        rate: the learning rate.
        weight_bits: bits of a weight behind the point.
        noise: the count, in 32 bits, that the random bits of stochastic rounding are drawn from; None rounds to the
            nearest.

    Raises:
        TypeError: weights are not int16, or the gradient is not int8.
        ValueError: they differ in shape.
    """
    if weights.dtype != torch.int16 or gradient.dtype != torch.int8:
        raise TypeError(f"expected int16 weights and an int8 gradient, got {weights.dtype} and {gradient.dtype}")
    if weights.shape != gradient.shape:
        raise ValueError(f"gradient: shape {tuple(gradient.shape)} is not that of the weights, {tuple(weights.shape)}")
    root, exponent = norm(gradient)
    if not root:
        return weights.clone(), noise
    steepness = (alpha.mantissa << 15) // root
    g = gradient.long()
    x = rounded(g.abs() * steepness, 3 + exponent - alpha.exponent, HALF, 32767)
    table = entries(g.device)
    low, high = table[x >> 8], table[(x >> 8) + 1]
    y = low + (((high - low) * (x & 255) + 128) >> 8)
    chance: Tensor | int = HALF
    if noise is not None:
        chance = random_bits(noise + torch.arange(g.numel(), device=g.device).view_as(g))
        noise = (noise + g.numel()) & WORD
    step = rounded(y * rate.mantissa, 15 - rate.exponent - weight_bits, chance, 65535)
    moved = torch.where(g < 0, weights + step, weights - step)
    return moved.clamp(-32768, 32767).to(torch.int16), noise
