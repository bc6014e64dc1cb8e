"""Stage 2: what bends the normalised gradient (paper, sections 2, 7.1 and 7.5).

A transform sees lists: ``scaled`` = α·ĝ, which it may overwrite, and ``unit`` = ĝ, which it may
overwrite too. It returns the list of updates g'.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from alphagrad.values import LARGEST, Ramp, Value, as_value, check_range, keep

Tensors = list[Tensor]


class Transform(ABC):
    """g' as a function of α·ĝ and ĝ, element by element, and of at most one number a tensor: β, κ or λ."""

    uses_alpha = True
    """Whether ``scaled`` matters; where not, a rule has no α and ``scaled`` is ``unit``."""
    uses_unit = False
    """Whether ``unit`` matters; where not, ``scaled`` shares its memory."""
    uses_size = True
    """Whether the size of ``unit`` matters; where not, it is g itself, which is in no danger of underflow."""
    fixed: Value | None = None
    """The number, or one for each run, where it never changes; None where there is none."""
    counts_steps = False
    """Whether the number depends on how many updates a tensor has had: :meth:`at`."""
    tau: float | None = None
    """The threshold of the saturation that the number follows: :meth:`from_saturation`."""

    def largest(self, unit: float) -> float:
        """The largest size that an element of g' can have, where those of ĝ are at most ``unit``."""
        return 1.0

    @abstractmethod
    def __call__(self, scaled: Tensors, unit: Tensors, numbers: Tensors | None) -> Tensors:
        """The updates, one for each tensor [*batch, ...], or for each part of one: elements do not know of others.

        ``numbers`` holds each one's number, shaped to multiply it, where the transform has one.
        """

    def at(self, steps: Tensor) -> Tensor:
        """The number of every tensor for its update number ``steps`` (from 0), [tensors, *batch] both."""
        raise TypeError(f"{self!r} does not depend on the step")

    def from_saturation(self, saturation: Tensor) -> Tensor:
        """The number of every tensor from its S(α), [tensors, *batch] both."""
        raise TypeError(f"{self!r} does not follow the saturation")


@dataclass(frozen=True)
class Tanh(Transform):
    """g' = tanh(α·ĝ): equation (3)."""

    def __call__(self, scaled: Tensors, unit: Tensors, numbers: Tensors | None) -> Tensors:
        torch._foreach_tanh_(scaled)
        return scaled


@dataclass(frozen=True)
class ScaledTanh(Transform):
    """g' = β·tanh(α·ĝ) (section 7.1). β takes the place of a learning rate where α sets the shape."""

    beta: Value = 1.0

    def __post_init__(self) -> None:
        keep(self, beta=as_value("transform.beta", self.beta, above=0, at_most=LARGEST))

    def __call__(self, scaled: Tensors, unit: Tensors, numbers: Tensors | None) -> Tensors:
        assert numbers is not None
        torch._foreach_tanh_(scaled)
        torch._foreach_mul_(scaled, numbers)
        return scaled

    @property
    def fixed(self) -> Value:  # type: ignore[override]
        return self.beta

    def largest(self, unit: float) -> float:
        return max(self.beta) if isinstance(self.beta, tuple) else self.beta


@dataclass(frozen=True)
class SinTanh(Transform):
    """g' = sin(κ·tanh(α·ĝ)) (section 7.1). Not monotonic in ĝ once κ > π/2."""

    kappa: Value = 1.0

    def __post_init__(self) -> None:
        keep(self, kappa=as_value("transform.kappa", self.kappa, above=0, at_most=LARGEST))

    def __call__(self, scaled: Tensors, unit: Tensors, numbers: Tensors | None) -> Tensors:
        assert numbers is not None
        torch._foreach_tanh_(scaled)
        torch._foreach_mul_(scaled, numbers)
        torch._foreach_sin_(scaled)
        return scaled

    @property
    def fixed(self) -> Value:  # type: ignore[override]
        return self.kappa


@dataclass(frozen=True)
class FromSaturation:
    """λ = 1 − S(α): the more of a tensor saturates, the more of plain ĝ comes back in.

    The paper (7.5) wishes for a λ that adapts, for example from S, and gives no law; this one is ours. S is
    measured on the same gradient, so it needs no state.
    """

    tau: float = 2.5

    def __post_init__(self) -> None:
        keep(self, tau=check_range("transform.lam.tau", self.tau, 0, float("inf")))


@dataclass(frozen=True)
class Hybrid(Transform):
    """g' = λ·tanh(α·ĝ) + (1−λ)·ĝ (section 7.5).

    The two terms are of unequal size: where α/√d is about 1, tanh's components are O(1) and ĝ's are
    O(1/√d), so λ = 0.5 is tanh at half size with next to nothing added. Only λ near 0 mixes them.

    ``lam`` is a number in [0, 1], one for each run, a :class:`~alphagrad.values.Ramp` over the
    updates, or :class:`FromSaturation`.
    """

    lam: Value | Ramp | FromSaturation = 0.5

    uses_unit = True

    def __post_init__(self) -> None:
        if isinstance(self.lam, FromSaturation):
            return
        if isinstance(self.lam, Ramp):
            for end in ("start", "end"):
                as_value(f"transform.lam.{end}", getattr(self.lam, end), above=0, strict=False, at_most=1)
        else:
            keep(self, lam=as_value("transform.lam", self.lam, above=0, strict=False, at_most=1))

    @property
    def fixed(self) -> Value | None:  # type: ignore[override]
        return None if isinstance(self.lam, (Ramp, FromSaturation)) else self.lam

    @property
    def counts_steps(self) -> bool:  # type: ignore[override]
        return isinstance(self.lam, Ramp)

    @property
    def tau(self) -> float | None:  # type: ignore[override]
        return self.lam.tau if isinstance(self.lam, FromSaturation) else None

    def at(self, steps: Tensor) -> Tensor:
        return self.lam.at(steps) if isinstance(self.lam, Ramp) else super().at(steps)

    def from_saturation(self, saturation: Tensor) -> Tensor:
        return 1 - saturation

    def largest(self, unit: float) -> float:
        return max(1.0, unit)

    def __call__(self, scaled: Tensors, unit: Tensors, numbers: Tensors | None) -> Tensors:
        assert numbers is not None
        torch._foreach_tanh_(scaled)
        # ĝ + λ·(tanh − ĝ), one pass less than the sum of two products
        return [u.lerp_(s, lam) for u, s, lam in zip(unit, scaled, numbers, strict=True)]


@dataclass(frozen=True)
class Identity(Transform):
    """g' = ĝ: stage 1 alone (section 7.6), normalised gradient descent."""

    uses_alpha = False

    def largest(self, unit: float) -> float:
        return unit

    def __call__(self, scaled: Tensors, unit: Tensors, numbers: Tensors | None) -> Tensors:
        return unit


@dataclass(frozen=True)
class Sign(Transform):
    """g' = sign(ĝ): the limit α → ∞, signSGD."""

    uses_alpha = False
    uses_size = False

    def __call__(self, scaled: Tensors, unit: Tensors, numbers: Tensors | None) -> Tensors:
        torch._foreach_sign_(unit)
        return unit
