"""The update of a block of elements, compiled by numba.

Blocks stay in the cache: float32 is worked on in place, bfloat16 is widened into a scratch block.
"""

# mypy: disallow-untyped-defs=false, check-untyped-defs=false, disallow-untyped-decorators=false
from __future__ import annotations

import math

import numpy as np
from numba import carray

from alphagrad.kernels.coverage import HYBRID, IDENTITY, SIN_TANH, TANH
from alphagrad.kernels.memory import (
    bits_to_float,
    float32_at,
    float_to_bits,
    fused,
    plain,
    summing,
    uint16_at,
)

BLOCK = 2048
"""Elements in a block: four blocks of float32 fill a first-level cache of 32 kB."""

f32 = np.float32
# tanh(x) ≈ x·P(x²)/Q(x²): a minimax fit of the relative error over [0, 8.7], degrees 4 and 4, refined after rounding to
# float32. All coefficients are positive, so nothing cancels. Measured over every float32: at most 2.8e-7.
P1, P2, P3, P4 = map(f32, (0.13403182, 0.0035218948, 2.1042883e-05, 1.3960557e-08))
Q1, Q2, Q3, Q4 = map(f32, (0.46736506, 0.02597707, 0.00033286784, 8.023333e-07))
LIMIT, ONE = f32(8.7), f32(1)  # tanh(8.7) rounds to 1 in float32 but for its last bit
# sin(r) on [−π/2, π/2], Taylor to degree 15: at most 7e-12, in float64
S3, S5, S7, S9, S11, S13, S15 = ((-1) ** (k // 2) / math.factorial(k) for k in range(3, 16, 2))
PI_HIGH, PI_LOW = math.pi, 1.2246467991473532e-16
F3, F5, F7, F9, F11, F13 = map(f32, (S3, S5, S7, S9, S11, S13))  # the same in float32: its rounding is the larger error
F_PI, F_PI_REST, F_HALF_PI = f32(math.pi), f32(math.pi - float(f32(math.pi))), f32(math.pi / 2)


@plain
def read(address, start, n, bfloat16, scratch):
    """n elements as float32: the memory itself, or bfloat16 widened into ``scratch``."""
    if not bfloat16:
        return carray(float32_at(address + 4 * start), (n,))
    half = carray(uint16_at(address + 2 * start), (n,))
    for i in range(n):
        scratch[i] = bits_to_float(np.uint32(half[i]) << np.uint32(16))
    return scratch[:n]


@plain
def write(address, start, n, bfloat16, values):
    """Rounds what :func:`read` has widened to the nearest bfloat16, ties to even."""
    if bfloat16:
        half = carray(uint16_at(address + 2 * start), (n,))
        for i in range(n):
            bits = float_to_bits(values[i])
            rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
            half[i] = np.uint16(0x7FC0) if nan else np.uint16(rounded)


@summing
def sum_of_squares(x):
    """Σx² in float64."""
    total = 0.0
    for i in range(x.size):
        total += np.float64(x[i]) * np.float64(x[i])
    return total


@plain
def factors(divisor, alpha):
    """α/divisor as two float32 factors, so that neither leaves float32's range where the product does not."""
    before = 1.0
    if divisor > 2.0**64:
        before = 2.0**-100
    elif divisor < 2.0**-64:
        before = 2.0**100
    return f32(before), f32(min(alpha / (divisor * before), 3.4e38))


@fused
def count_beyond(x, before, scale, tau):
    """How many |α·ĝᵢ| are above τ."""
    count = 0
    for i in range(x.size):
        count += abs(x[i] * before * scale) > tau
    return count


@fused
def tanh(x):
    """tanh of a float32, to 3e-7 relative. NaN stays NaN: both comparisons are false."""
    x = LIMIT if x > LIMIT else x
    x = -LIMIT if x < -LIMIT else x
    y = x * x
    ratio = ((((P4 * y + P3) * y + P2) * y + P1) * y + ONE) / ((((Q4 * y + Q3) * y + Q2) * y + Q1) * y + ONE)
    t = x * ratio  # x last: a subnormal x would lose digits in between
    t = ONE if t > ONE else t
    return -ONE if t < -ONE else t


@fused
def sine(y):
    """sin of a float64 of at most 1e6."""
    turns = math.floor(y / PI_HIGH + 0.5)
    r = (y - turns * PI_HIGH) - turns * PI_LOW
    z = r * r
    s = r + r * z * (S3 + z * (S5 + z * (S7 + z * (S9 + z * (S11 + z * (S13 + z * S15))))))
    return s * (1.0 - 2.0 * (turns - 2.0 * math.floor(turns * 0.5)))


@fused
def short_sine(y):
    """sin of a float32 of at most π, to 2e-7: what κ ≤ π needs, in a quarter of the time of :func:`sine`."""
    size = abs(y)
    r = (F_PI - size) + F_PI_REST if size > F_HALF_PI else size
    z = r * r
    s = r + r * z * (F3 + z * (F5 + z * (F7 + z * (F9 + z * (F11 + z * F13)))))
    return -s if y < f32(0) else s


@fused
def bend(transform, g, u, before, scale, unit, number):
    """u = g' of a block. ``before·scale`` is α over the divisor, ``before·unit`` 1 over it; β, κ or λ is ``number``."""
    if transform == TANH:
        beta = f32(number)
        for i in range(g.size):
            u[i] = beta * tanh(g[i] * before * scale)
    elif transform == SIN_TANH and number <= PI_HIGH:
        kappa = f32(number)
        for i in range(g.size):
            u[i] = short_sine(kappa * tanh(g[i] * before * scale))
    elif transform == SIN_TANH:
        for i in range(g.size):
            u[i] = f32(sine(number * np.float64(tanh(g[i] * before * scale))))
    elif transform == HYBRID:
        lam, rest = f32(number), f32(1.0 - number)
        for i in range(g.size):
            x = g[i] * before
            u[i] = lam * tanh(x * scale) + rest * (x * unit)
    elif transform == IDENTITY:
        for i in range(g.size):
            u[i] = g[i] * before * unit
    else:
        for i in range(g.size):
            u[i] = ONE if g[i] > f32(0) else (-ONE if g[i] < f32(0) else f32(0))


@fused
def descend(p, u, keep, rate):
    """θ ← keep·θ − rate·u."""
    for i in range(p.size):
        p[i] = keep * p[i] - rate * u[i]


@fused
def tanh_descend(p, g, scale, keep, rate):
    """θ ← keep·θ − rate·tanh(scale·g): the paper's step in one pass, which saves a third of the time."""
    for i in range(p.size):
        p[i] = keep * p[i] - rate * tanh(g[i] * scale)


@fused
def tanh_accumulate(p, g, v, scale, momentum, gain, keep, rate):
    """v ← γ·v + gain·tanh(scale·g); θ ← keep·θ − rate·v: the same with momentum."""
    for i in range(p.size):
        v[i] = momentum * v[i] + gain * tanh(g[i] * scale)
        p[i] = keep * p[i] - rate * v[i]


@fused
def accumulate(v, u, momentum, share, sign, nesterov):
    """v ← γ·v + share·u; u becomes what θ moves along."""
    gain = share * sign
    if nesterov:
        for i in range(v.size):
            v[i] = momentum * v[i] + gain * u[i]
            u[i] = sign * u[i] + momentum * v[i]
    else:
        for i in range(v.size):
            v[i] = momentum * v[i] + gain * u[i]
            u[i] = v[i]
