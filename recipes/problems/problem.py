"""A function of all parameters, and the constants that the theory asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]
"""Of the parameters [n]; f gives a number, is differentiable, and ``torch.func.vmap`` can map it."""


@dataclass(frozen=True)
class Sampling:
    """A random function in place of f, whose expectation f is: what a step's gradient is of."""

    draw: Callable[[np.random.Generator], np.ndarray]
    """One step's random numbers, always of one shape."""
    value: Callable[[Tensor, Tensor], Tensor]
    """Parameters [n] and what was drawn → a number."""


@dataclass(frozen=True)
class Problem:
    """f on ℝⁿ with its constants; all numbers are float64.

    Attributes:
        sizes: tensor → how many of the n parameters it holds, in order.
        value: f.
        start: x₁ [n].
        L: ‖∇f(x) − ∇f(y)‖ ≤ L·‖x − y‖ wherever ``box`` allows.
        f_inf: f ≥ f_inf everywhere.
        f_star: the least value of f, where it is known.
        x_star: where f is least, the nearest such point to ``start``; None where it is not known.
        convex: whether f is.
        D: ‖x_t − x*‖ ≤ D is what Theorem 1 asks of the iterates; None where x* is not known.
        box: L holds where every |x_j| ≤ box; None where it holds everywhere.
        sampling: what gradients are taken of; None for f itself.
    """

    sizes: Mapping[str, int]
    value: Function
    start: Tensor
    L: float
    f_inf: float
    f_star: float | None = None
    x_star: Tensor | None = None
    convex: bool = False
    D: float | None = None
    box: float | None = None
    sampling: Sampling | None = None

    @property
    def n(self) -> int:
        """The number of parameters."""
        return sum(self.sizes.values())

    @property
    def least(self) -> float:
        """f*, or f_inf where f* is not known."""
        return self.f_inf if self.f_star is None else self.f_star

    def inside(self, x: np.ndarray) -> bool:
        """Whether L holds at x [n]."""
        return self.box is None or bool(np.abs(x).max() <= self.box)

    def scaled(self, by: float) -> Problem:
        """The problem of by·f: the same minimum, gradients ``by`` times as large."""
        if by == 1:
            return self
        sampling = self.sampling
        if sampling is not None:
            drawn = sampling.value
            sampling = replace(sampling, value=lambda x, draw: by * drawn(x, draw))
        value, star = self.value, self.f_star
        return replace(
            self,
            value=lambda x: by * value(x),
            L=by * self.L,
            f_inf=by * self.f_inf,
            f_star=None if star is None else by * star,
            sampling=sampling,
        )


def tensor_names(sizes: list[int]) -> dict[str, int]:
    """Names as of modules with a weight and a bias each, for tensors of these sizes."""
    return {f"layer{k // 2}.{('weight', 'bias')[k % 2]}": size for k, size in enumerate(sizes)}


class Point(nn.Module):
    """The parameters of a problem, at its start."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        parts = problem.start.split(list(problem.sizes.values()))
        for name, part in zip(problem.sizes, parts, strict=True):
            above, _, leaf = name.rpartition(".")
            if above not in self._modules:
                self.add_module(above, nn.Module())
            self.get_submodule(above).register_parameter(leaf, nn.Parameter(part.clone()))

    def forward(self) -> Tensor:
        """All parameters as one vector [n]."""
        return torch.cat([p.reshape(-1) for p in self.parameters()])
