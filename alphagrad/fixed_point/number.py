"""Numbers of a processor without floating point: an integer and a power of two."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

MANTISSA_BITS = 15
GRADIENT_BITS = 8


class Number(NamedTuple):
    """``mantissa · 2^exponent``, in C a ``uint16_t`` and an ``int16_t``."""

    mantissa: int
    exponent: int

    @classmethod
    def of(cls, value: float, name: str = "value") -> Number:
        """The nearest to a value ≥ 0, off by 2^-15 of it at most: 2^14 ≤ mantissa < 2^15, or 0.

        Raises:
            ValueError: the value is negative or not finite.
        """
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{name}: must be finite and ≥ 0, got {value!r}")
        share, exponent = math.frexp(value)
        mantissa = round(math.ldexp(share, MANTISSA_BITS))
        if mantissa == 1 << MANTISSA_BITS:  # rounded up to the next power of two
            mantissa, exponent = mantissa >> 1, exponent + 1
        return cls(mantissa, exponent - MANTISSA_BITS if mantissa else 0)

    def __float__(self) -> float:
        return math.ldexp(self.mantissa, self.exponent)


def quantized(gradient: Tensor) -> tuple[Tensor, int]:
    """A finite gradient as int8 and the exponent that its elements share: ``gradient ≈ int8 · 2^exponent``.

    The largest element lies between 64 and 127; each is off by at most half a unit, but one that would be 128, by one.
    """
    largest = float(gradient.abs().max()) if gradient.numel() else 0.0
    if largest == 0:
        return torch.zeros_like(gradient, dtype=torch.int8), 0
    exponent = math.frexp(largest)[1] - (GRADIENT_BITS - 1)
    units = torch.ldexp(gradient.double(), torch.tensor(-exponent, device=gradient.device))
    return units.round().clamp(-127, 127).to(torch.int8), exponent


def on_grid(values: Tensor, weight_bits: int) -> Tensor:
    """Values as int16 in units of ``2^-weight_bits``, the nearest; beyond int16, its ends."""
    return (values.double() * 2.0**weight_bits).round().clamp(-32768, 32767).to(torch.int16)
