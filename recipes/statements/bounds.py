r"""Every bound of the theory: the one place where they are computed; docs/theory.md proves them.

f is L-smooth, x_{t+1} = x_t − η·v_t with v_t = m·v_{t−1} + g'_t, and g' = φ(ĝ) element by element, where ĝ = g/D_i in
tensor i. N is a norm of ∇f or of g, d the elements of a tensor, n those of all.

Two conditions carry everything: φ is odd, and concave on [0, ∞), so that φ(x) ≥ x·φ(u)/u for 0 ≤ x ≤ u; and no divisor
is larger than the norm of the whole gradient + ε, so that the guaranteed slope c of a rule is one of the norm over all.
The paper's own statements are these with m = 0, φ(x) = tanh(α·x), one norm over everything, and exact gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from alphagrad.transform import Hybrid, Identity, ScaledTanh, Sign, SinTanh, Tanh, Transform


def h(norm: float, eps: float) -> float:
    """h(N) = N²/(N + ε); 0 at 0."""
    return norm * (norm / (norm + eps)) if norm > 0 else 0.0


class Bend(NamedTuple):
    """φ of one tensor at one step: a transform with its α and its number (β, κ or λ)."""

    transform: Transform
    alpha: float
    number: float

    def __call__(self, x: float) -> float:
        """φ(x) for x ≥ 0."""
        bent = math.tanh(self.alpha * x)
        match self.transform:
            case Tanh():
                return bent
            case ScaledTanh():
                return self.number * bent
            case SinTanh():
                return math.sin(self.number * bent)
            case Hybrid():
                return self.number * bent + (1 - self.number) * x
            case Identity():
                return x
            case Sign():
                return float(x > 0)
        raise TypeError(f"{self.transform!r}: no statement knows it")

    @property
    def steepest(self) -> float:
        """φ'(0), the steepest slope: φ(x) ≤ φ'(0)·x."""
        match self.transform:
            case Tanh():
                return self.alpha
            case ScaledTanh() | SinTanh():
                return self.number * self.alpha
            case Hybrid():
                return self.number * self.alpha + 1 - self.number
            case Identity():
                return 1.0
        return math.inf

    def slope(self, largest: float) -> float:
        """The guaranteed slope: φ(x) ≥ slope·x for 0 ≤ x ≤ ``largest``."""
        return self(largest) / largest


def largest_of(norm: float, divisor: float) -> float:
    """An upper bound of the components of ĝ, at least 1: they are at most ‖g‖/D."""
    return max(1.0, norm / divisor)


def square_bound(bend: Bend, d: int, norm: float, divisor: float) -> float:
    """Lemma 1, sharp: ‖g'‖² ≤ d·φ(N/(D·√d))² of one tensor, because u ↦ φ(√u)² is concave."""
    return d * bend(norm / (divisor * math.sqrt(d))) ** 2


def alignment_bound(bend: Bend, norm: float, divisor: float) -> float:
    """Lemma 2: ⟨g, g'⟩ ≥ slope·N²/D of one tensor; N²/D is h(N) where the tensor's own norm + ε divides it."""
    return bend.slope(largest_of(norm, divisor)) * norm * (norm / divisor)


def alignment_limit(bend: Bend, norm: float, divisor: float, norm_1: float) -> float:
    """The upper side of Lemma 2: ⟨g, g'⟩ ≤ φ'(0)·N²/D, and ≤ max φ·‖g‖₁."""
    top = bend(largest_of(norm, divisor)) * norm_1
    return min(bend.steepest * norm * (norm / divisor), top) if norm > 0 else 0.0


@dataclass(frozen=True)
class Terms:
    """What descent and theorems are made of.

    Attributes:
        L: the smoothness.
        rate: η.
        momentum: m.
        square: B², which no ‖g'_t‖² has exceeded: n in the paper.
        slope: c, the least guaranteed slope so far: tanh α in the paper.
    """

    L: float
    rate: float
    momentum: float
    square: float
    slope: float

    @property
    def eta(self) -> float:
        """η' = η/(1 − m), the step of z_t = x_t − η·m/(1 − m)·v_{t−1}."""
        return self.rate / (1 - self.momentum)

    @property
    def curved(self) -> float:
        """What curvature adds to a step over η': L·B²·η'·(1 + m)/(2·(1 − m))."""
        return self.L * self.square * self.eta * (1 + self.momentum) / (2 * (1 - self.momentum))

    def descent(self, f: float, alignment: float, noise: float) -> float:
        """f(z_{t+1}) ≤ f(z_t) − η'·(⟨g, g'⟩'s bound − B·‖ξ‖) + η'·curved; z is x without momentum."""
        return f - self.eta * (alignment - math.sqrt(self.square) * noise) + self.eta * self.curved

    def theorem1(self, D: float, gap: float, gamma: float, steps: int, noise: float) -> float:
        """(1/T)·Σ(f(x_t) − f*) ≤ (D/γ)·[Δ₀/(η'·T) + curved + (B + c)·mean‖ξ‖], γ = min c·N_t/(N_t + ε)."""
        if gamma <= 0:
            return math.inf
        return D / gamma * (gap / (self.eta * steps) + self.curved + (math.sqrt(self.square) + self.slope) * noise)

    def theorem2(self, gap: float, steps: int, noise: float) -> float:
        """min_t h(N_t) ≤ [(f(x₁) − f_inf)/(η'·T) + curved + (B + c)·mean‖ξ‖]/c."""
        told = gap / (self.eta * steps) + self.curved + (math.sqrt(self.square) + self.slope) * noise
        return told / self.slope

    def theorem1_own(self, D: float, gap: float, gamma: float, steps: int, noise: float) -> float:
        """Theorem 1 for the step of :func:`own_rate` over as many steps; see :meth:`_own`."""
        return D * self._own(gap, steps, noise) / gamma if gamma > 0 else math.inf

    def theorem2_own(self, gap: float, steps: int, noise: float) -> float:
        """Theorem 2 for that step."""
        return self._own(gap, steps, noise) / self.slope

    def _own(self, gap: float, steps: int, noise: float) -> float:
        """√(2·L·B²·Δ₀·(1+m)/((1−m)·T)) + (B + c)·mean‖ξ‖: no step size makes the noise's term smaller."""
        longer = (1 + self.momentum) / (1 - self.momentum)
        steady = math.sqrt(2 * self.L * self.square * gap * longer / steps)
        return steady + (math.sqrt(self.square) + self.slope) * noise


def own_rate(L: float, square: float, gap: float, steps: int, momentum: float) -> float:
    """The theorems' own step size: η = (1 − m)·√(2·Δ₀·(1 − m)/(L·B²·T·(1 + m))), which makes both their terms equal."""
    return (1 - momentum) * math.sqrt(2 * gap * (1 - momentum) / (L * square * steps * (1 + momentum)))


UNIT_ROUNDING = float(np.finfo(np.float64).eps)
"""Between 1 and the next number."""
RELATIVE = 1e-9
"""Of both sides: what sums of many terms may lose."""


def excess(measured: float, bound: float, rounding: float = 0.0) -> float:
    """By how much ``measured ≤ bound`` is violated; 0 where it holds, to rounding."""
    if not (math.isfinite(measured) and math.isfinite(bound)):
        return 0.0 if bound == math.inf or measured == -math.inf else math.inf
    over = measured - bound
    return over if over > RELATIVE * (abs(measured) + abs(bound)) + rounding else 0.0
