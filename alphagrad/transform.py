"""Stage 2: what bends the normalised gradient (paper, sections 2, 7.1 and 7.5).

A transform sees lists: ``scaled`` = α·ĝ, which it may overwrite, and ``unit`` = ĝ, which it may
overwrite too. It returns the list of updates g'.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alphagrad.alpha import saturation_ratio
from alphagrad.extent import Extent
from alphagrad.values import Ramp, Value, as_value, check_range, per_run, tensor_of

Tensors = list[Tensor]


class Transform(ABC):
    """g' as a function of α·ĝ and ĝ."""

    uses_alpha = True
    """Whether ``scaled`` matters; where not, a rule has no α and ``scaled`` is ``unit``."""
    uses_unit = False
    """Whether ``unit`` matters; where not, ``scaled`` may share its memory."""
    counts_steps = False
    """Whether it depends on how many updates a tensor has had."""

    @abstractmethod
    def __call__(self, scaled: Tensors, unit: Tensors, steps: Sequence[Tensor], extent: Extent) -> Tensors:
        """The updates, one for each tensor [*batch, ...].

        ``steps`` holds each tensor's number of earlier updates [*batch] where :attr:`counts_steps`
        holds, else nothing. What is measured of a tensor is measured over ``extent``: elsewhere than here
        it may have further elements.
        """


def multiply_(tensors: Tensors, value: Value) -> Tensors:
    """Multiplies in place by a number, or by one number for each run."""
    if isinstance(value, tuple):
        torch._foreach_mul_(tensors, [per_run(tensor_of(value, t), t) for t in tensors])
    else:
        torch._foreach_mul_(tensors, value)
    return tensors


@dataclass(frozen=True)
class Tanh(Transform):
    """g' = tanh(α·ĝ): equation (3)."""

    def __call__(self, scaled: Tensors, unit: Tensors, steps: Sequence[Tensor], extent: Extent) -> Tensors:
        torch._foreach_tanh_(scaled)
        return scaled


@dataclass(frozen=True)
class ScaledTanh(Transform):
    """g' = β·tanh(α·ĝ) (section 7.5). β takes the place of a learning rate where α sets the shape."""

    beta: Value = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", as_value("transform.beta", self.beta, above=0))

    def __call__(self, scaled: Tensors, unit: Tensors, steps: Sequence[Tensor], extent: Extent) -> Tensors:
        torch._foreach_tanh_(scaled)
        return multiply_(scaled, self.beta)


@dataclass(frozen=True)
class SinTanh(Transform):
    """g' = sin(κ·tanh(α·ĝ)) (section 7.5). Not monotonic in ĝ once κ > π/2."""

    kappa: Value = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kappa", as_value("transform.kappa", self.kappa, above=0))

    def __call__(self, scaled: Tensors, unit: Tensors, steps: Sequence[Tensor], extent: Extent) -> Tensors:
        torch._foreach_tanh_(scaled)
        multiply_(scaled, self.kappa)
        torch._foreach_sin_(scaled)
        return scaled


@dataclass(frozen=True)
class FromSaturation:
    """λ = 1 − S(α): the more of a tensor saturates, the more of plain ĝ comes back in.

    The paper wishes for a λ that adapts, for example from S, and gives no law; this one is ours. S is
    measured on the same gradient, so it needs no state.
    """

    tau: float = 2.5

    def __post_init__(self) -> None:
        check_range("transform.lam.tau", self.tau, 0, float("inf"))


@dataclass(frozen=True)
class Hybrid(Transform):
    """g' = λ·tanh(α·ĝ) + (1−λ)·ĝ (section 7.1).

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
            object.__setattr__(self, "lam", as_value("transform.lam", self.lam, above=0, strict=False, at_most=1))

    @property
    def counts_steps(self) -> bool:  # type: ignore[override]
        return isinstance(self.lam, Ramp)

    def __call__(self, scaled: Tensors, unit: Tensors, steps: Sequence[Tensor], extent: Extent) -> Tensors:
        lams = [self._lam(i, s, steps, extent) for i, s in enumerate(scaled)]
        torch._foreach_tanh_(scaled)
        # ĝ + λ·(tanh − ĝ), one pass less than the sum of two products
        return [u.lerp_(s, lam) for u, s, lam in zip(unit, scaled, lams, strict=True)]

    def _lam(self, index: int, scaled: Tensor, steps: Sequence[Tensor], extent: Extent) -> Tensor:
        if isinstance(self.lam, FromSaturation):
            lam = 1 - saturation_ratio(scaled, self.lam.tau, extent)
        elif isinstance(self.lam, Ramp):
            lam = self.lam.at(steps[index]).to(scaled.dtype)
        else:
            lam = tensor_of(self.lam, scaled)
        return per_run(lam, scaled)


@dataclass(frozen=True)
class Identity(Transform):
    """g' = ĝ: stage 1 alone (section 7.6), normalised gradient descent."""

    uses_alpha = False

    def __call__(self, scaled: Tensors, unit: Tensors, steps: Sequence[Tensor], extent: Extent) -> Tensors:
        return unit


@dataclass(frozen=True)
class Sign(Transform):
    """g' = sign(ĝ): the limit α → ∞, signSGD."""

    uses_alpha = False

    def __call__(self, scaled: Tensors, unit: Tensors, steps: Sequence[Tensor], extent: Extent) -> Tensors:
        torch._foreach_sign_(unit)
        return unit
