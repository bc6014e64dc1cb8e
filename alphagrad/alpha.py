"""The steepness α of each tensor (paper, sections 2.1, 5.2, 7.2 and 7.3).

A unit vector in d dimensions has components ≈ N(0, 1/d), so α·ĝ has standard deviation α/√d: the
rules that follow √d aim at one saturation for tensors of every size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import torch
from torch import Tensor

from alphagrad.values import LARGEST, Ramp, TensorInfo, Value, as_value, check_count, check_range, keep, scale


class Alpha(ABC):
    """Gives a tensor its α. Static policies define :meth:`initial` alone."""

    counts_steps = False
    """Whether α depends on how many updates a tensor has had."""
    controlled = False
    """Whether α follows the saturation, and so lives in the optimizer's state."""
    tau = 2.5
    """Threshold of the saturation that a controlled policy follows."""
    spans_tensors = False
    """Whether a tensor's α depends on the others'."""

    @abstractmethod
    def initial(self, info: TensorInfo) -> Value:
        """α for the first update of a tensor."""

    def at(self, steps: Tensor, infos: Sequence[TensorInfo]) -> Tensor:
        """α of every tensor for its update number ``steps`` (from 0), [tensors, *batch] both.

        Only where :attr:`counts_steps` holds and α is not controlled.
        """
        raise TypeError(f"{self!r} does not depend on the step")

    def adapt(self, alpha: Tensor, saturation: Tensor, step: Tensor) -> Tensor:
        """The next α of a controlled policy, from this update's α, S(α) and number (from 1): [tensors, *batch]."""
        raise TypeError(f"{self!r} does not follow the saturation")


@dataclass(frozen=True)
class Constant(Alpha):
    """One α for all tensors, as in every published run (they span 93 to 457).

    ``value`` may hold one number for each run of a stack.
    """

    value: Value = 100.0

    def __post_init__(self) -> None:
        keep(self, value=as_value("alpha.value", self.value, above=0, at_most=LARGEST))

    def initial(self, info: TensorInfo) -> Value:
        return self.value


@dataclass(frozen=True)
class SqrtDim(Alpha):
    """α = k·√d_tensor, equation (7), the paper's guideline with k in [1, 3]."""

    k: Value = 1.0

    def __post_init__(self) -> None:
        keep(self, k=as_value("alpha.k", self.k, above=0, at_most=LARGEST))

    def initial(self, info: TensorInfo) -> Value:
        return scale(self.k, math.sqrt(info.d))


@dataclass(frozen=True)
class SqrtTotal(Alpha):
    """α = k·√d_network: one α from the total parameter count, what the paper's Table 2 applies.

    d_network counts the parameters of the optimizer; ``total`` gives another number, for a network
    that is split over several optimizers.
    """

    k: Value = 1.0
    total: int | None = None

    def __post_init__(self) -> None:
        keep(self, k=as_value("alpha.k", self.k, above=0, at_most=LARGEST))
        if self.total is not None:
            keep(self, total=check_count("alpha.total", self.total))

    @property
    def spans_tensors(self) -> bool:  # type: ignore[override]
        return self.total is None

    def initial(self, info: TensorInfo) -> Value:
        return scale(self.k, math.sqrt(self.total or info.total))


@dataclass(frozen=True)
class Quantile(Alpha):
    """α = (τ/z)·√d with z = Φ⁻¹(1 − f/2): a fraction f of Gaussian components lies beyond ±τ."""

    fraction: float = 0.05
    tau: float = 2.5

    def __post_init__(self) -> None:
        keep(self, fraction=check_range("alpha.fraction", self.fraction, 0, 1))
        keep(self, tau=check_range("alpha.tau", self.tau, 0, math.inf))

    def initial(self, info: TensorInfo) -> Value:
        return -self.tau / NormalDist().inv_cdf(self.fraction / 2) * math.sqrt(info.d)


def fan_in(shape: Sequence[int]) -> int:
    """Inputs to one output unit: ``in · kernel`` for a weight [out, in, *kernel].

    Tensors of fewer than two dimensions (biases, norm scales) have no fan-in; their size stands in.
    """
    return math.prod(shape[1:] if len(shape) > 1 else shape)


@dataclass(frozen=True)
class FanIn(Alpha):
    """α = k·√fan_in, the alternative of section 2.1; see :func:`fan_in` for biases."""

    k: Value = 1.0

    def __post_init__(self) -> None:
        keep(self, k=as_value("alpha.k", self.k, above=0, at_most=LARGEST))

    def initial(self, info: TensorInfo) -> Value:
        return scale(self.k, math.sqrt(fan_in(info.shape)))


@dataclass(frozen=True)
class Schedule(Alpha):
    """α(t) from ``start`` to ``end`` in ``steps`` updates: section 7.3's "low early, high late".

    See :class:`alphagrad.values.Ramp` for the kinds (linear, cosine, exponential).
    """

    start: float = 10.0
    end: float = 100.0
    steps: int = 10_000
    kind: str = "linear"

    counts_steps = True

    def __post_init__(self) -> None:
        keep(self, start=check_range("alpha.start", self.start, 0, LARGEST))
        keep(self, end=check_range("alpha.end", self.end, 0, LARGEST))
        keep(self, steps=self.ramp.steps)  # checks the rest

    @property
    def ramp(self) -> Ramp:
        return Ramp(self.start, self.end, self.steps, self.kind)

    def initial(self, info: TensorInfo) -> Value:
        return self.start

    def at(self, steps: Tensor, infos: Sequence[TensorInfo]) -> Tensor:
        return self.ramp.at(steps)


@dataclass(frozen=True)
class Saturation(Alpha):
    """α follows the saturation ratio S(α), per tensor (section 7.3).

    The paper asks that S stay within a band and gives no control law. Completed here: every ``every``
    updates, ``α ← min(α·factor, max_alpha)`` where S < ``low``, ``α ← max(α/factor, min_alpha)`` where
    S > ``high``, else unchanged. α starts from the policy ``start``; α and the last S are in the
    optimizer's state.

    ``factor`` 1.05 moves α by one decade in 47 corrections; the band and τ are the paper's examples.
    """

    start: Alpha = field(default_factory=SqrtDim)
    low: float = 0.05
    high: float = 0.25
    tau: float = 2.5
    factor: float = 1.05
    every: int = 1
    min_alpha: float = 1e-3
    max_alpha: float = 1e6

    counts_steps = True
    controlled = True

    def __post_init__(self) -> None:
        if not isinstance(self.start, Alpha) or self.start.counts_steps:
            raise ValueError(f"alpha.start: must be a policy that does not change by itself, got {self.start!r}")
        keep(self, low=check_range("alpha.low", self.low, -math.inf, math.inf))
        keep(self, high=check_range("alpha.high", self.high, -math.inf, math.inf))
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"alpha.low, alpha.high: need 0 ≤ low < high ≤ 1, got {self.low!r}, {self.high!r}")
        keep(self, tau=check_range("alpha.tau", self.tau, 0, math.inf))
        keep(self, factor=check_range("alpha.factor", self.factor, 1, math.inf))
        keep(self, every=check_count("alpha.every", self.every))
        keep(self, min_alpha=check_range("alpha.min_alpha", self.min_alpha, 0, math.inf))
        keep(self, max_alpha=check_range("alpha.max_alpha", self.max_alpha, 0, LARGEST))
        if not 0 < self.min_alpha < self.max_alpha:
            raise ValueError(
                "alpha.min_alpha, alpha.max_alpha: need 0 < min_alpha < max_alpha, "
                f"got {self.min_alpha!r}, {self.max_alpha!r}"
            )

    @property
    def spans_tensors(self) -> bool:  # type: ignore[override]
        return self.start.spans_tensors

    def initial(self, info: TensorInfo) -> Value:
        return self.start.initial(info)

    def adapt(self, alpha: Tensor, saturation: Tensor, step: Tensor) -> Tensor:
        raised = (alpha * self.factor).clamp(max=self.max_alpha)
        lowered = (alpha / self.factor).clamp(min=self.min_alpha)
        corrected = torch.where(saturation < self.low, raised, torch.where(saturation > self.high, lowered, alpha))
        return torch.where(step % self.every == 0, corrected, alpha)
