"""Stage 1: which elements share one L2 norm (paper, sections 2 and 5.3).

A normalisation turns the norms of single tensors into those that divide in ``ĝ = g / (‖g‖₂ + ε)``.
Norms are float64, one row for each tensor: ``[tensors, *batch]``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from alphagrad.values import TensorInfo, keep


class Normalization(ABC):
    """Gives each tensor the norm of the unit it belongs to."""

    needs_names = False
    """Whether the optimizer must be given ``named_parameters()``."""
    uses_eps = True
    """Whether ε is added to the norm."""
    spans_tensors = True
    """Whether a unit may hold several tensors."""
    largest = 1.0
    """The largest size that an element of ĝ can have; infinite where there is no bound."""

    @abstractmethod
    def norms(self, norms: Tensor, infos: Sequence[TensorInfo]) -> Tensor:
        """The norm that divides each tensor, from the norms of single tensors: [tensors, *batch] both.

        It must be non-finite wherever a norm that enters it is: that is how bad gradients are found.
        """


def shared(norms: Tensor, units: Sequence[Hashable]) -> Tensor:
    """√Σ‖g‖² over the tensors of each unit, handed back to each of them."""
    members: dict[Hashable, list[int]] = {}
    for row, unit in enumerate(units):
        members.setdefault(unit, []).append(row)
    squares = norms.square().unbind(0)
    unit_norm = {u: torch.stack([squares[row] for row in rows]).sum(0).sqrt() for u, rows in members.items()}
    return torch.stack([unit_norm[unit] for unit in units])


@dataclass(frozen=True)
class PerTensor(Normalization):
    """One norm over each parameter tensor: the paper's "TensorFlow-style" normalisation, the default."""

    spans_tensors = False

    def norms(self, norms: Tensor, infos: Sequence[TensorInfo]) -> Tensor:
        return norms


@dataclass(frozen=True)
class PerModule(Normalization):
    """One norm over a module's own weight and bias together: the paper's "layer-wise" normalisation.

    Tensors belong together when their names agree up to the last dot, so the optimizer must be
    constructed from ``model.named_parameters()``.
    """

    needs_names = True

    def norms(self, norms: Tensor, infos: Sequence[TensorInfo]) -> Tensor:
        return shared(norms, [info.name.rpartition(".")[0] for info in infos])


@dataclass(frozen=True)
class PerGroup(Normalization):
    """One norm over a whole torch parameter group."""

    def norms(self, norms: Tensor, infos: Sequence[TensorInfo]) -> Tensor:
        return shared(norms, [info.group for info in infos])


@dataclass(frozen=True)
class Global(Normalization):
    """One norm over all parameters: the setting of the paper's theory (section 3)."""

    def norms(self, norms: Tensor, infos: Sequence[TensorInfo]) -> Tensor:
        return shared(norms, [0] * len(infos))


@dataclass(frozen=True)
class Blend(Normalization):
    """Between tensor (ρ = 1) and group (ρ = 0): ``n_tensor^ρ · (n_group·√(d_tensor/d_group))^(1−ρ)``.

    The paper (5.3) only names the wish; this geometric mix completes it. The factor √(d_tensor/d_group)
    is the share of the group's norm that falls to a tensor when all elements are of one size.
    """

    rho: float = 0.5

    largest = math.inf

    def __post_init__(self) -> None:
        if isinstance(self.rho, bool) or not isinstance(self.rho, Real) or not 0 <= self.rho <= 1:
            raise ValueError(f"rho: must lie in [0, 1], got {self.rho!r}")
        keep(self, rho=float(self.rho))

    def norms(self, norms: Tensor, infos: Sequence[TensorInfo]) -> Tensor:
        group_d: dict[int, int] = {}
        for info in infos:
            group_d[info.group] = group_d.get(info.group, 0) + info.d
        of_group = shared(norms, [info.group for info in infos]).unbind(0)
        expected = torch.stack(
            [n * math.sqrt(i.d / max(group_d[i.group], 1)) for n, i in zip(of_group, infos, strict=True)]
        )
        return norms**self.rho * expected ** (1 - self.rho)


@dataclass(frozen=True)
class Unnormalized(Normalization):
    """``ĝ = g``: leaves stage 1 out, to isolate stage 2 (paper, section 7.6)."""

    uses_eps = False
    spans_tensors = False
    largest = math.inf

    def norms(self, norms: Tensor, infos: Sequence[TensorInfo]) -> Tensor:
        # only tells whether the gradient is finite
        return torch.where(norms.isfinite(), torch.ones_like(norms), norms)
