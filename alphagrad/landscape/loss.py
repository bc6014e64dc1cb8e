"""A loss on fixed data as a function of one vector of weights, with its gradient and curvature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Part = Callable[[Mapping[str, Tensor]], Tensor]
"""Named weights → a number, differentiable where :meth:`FixedLoss.gradient` is asked for, twice for the curvature."""


class FixedLoss:
    """The sum of functions of named weights, which are computed one after the other so that each fits in memory.

    Args:
        weights: where the loss is looked at first; names and shapes of what it is a function of.
        parts: what is summed; at least one.
    """

    def __init__(self, weights: Mapping[str, Tensor], parts: Sequence[Part]) -> None:
        if not weights or not parts:
            raise ValueError("a loss needs weights, and a part at least")
        self.shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        self.parts = list(parts)
        self.start = self.vector(weights)
        """The weights [D]."""

    def vector(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Named weights as one vector [D], on the device and in the dtype of :attr:`start`; more names are no matter.

        Raises:
            ValueError: one is missing, or has another shape.
        """
        for name, shape in self.shapes.items():
            tensor = weights.get(name)
            if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape:
                has = list(tensor.shape) if isinstance(tensor, Tensor) else "nothing"
                raise ValueError(f"{name}: must be a tensor {list(shape)}, and there is {has}")
        flat = torch.cat([weights[name].detach().reshape(-1) for name in self.shapes])
        return flat.to(self.start) if hasattr(self, "start") else flat

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector [D] as named views."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes.values()]
        parts = vector.split(sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    @torch.no_grad()
    def value(self, at: Tensor) -> float:
        """The loss at a vector [D]; not finite where a part is not."""
        weights = self.named(at)
        return float(sum(part(weights).double() for part in self.parts))

    def gradient(self, at: Tensor) -> Tensor:
        """∇L [D]."""
        return self._summed(at, lambda value, x: torch.autograd.grad(value, x)[0])

    def curvature(self, at: Tensor, along: Tensor) -> Tensor:
        """∇²L·v [D], by differentiating twice (Pearlmutter 1994).

        Raises:
            NotImplementedError: a function of the loss has no second derivative in torch.
        """

        def product(value: Tensor, x: Tensor) -> Tensor:
            (slope,) = torch.autograd.grad(value, x, create_graph=True)
            if not slope.requires_grad:  # a linear function
                return torch.zeros_like(x)
            (bent,) = torch.autograd.grad(slope, x, along, materialize_grads=True)
            return bent

        try:
            # fused attention has first derivatives alone
            with sdpa_kernel(SDPBackend.MATH):
                return self._summed(at, product)
        except RuntimeError as error:
            if "is not implemented" not in str(error):
                raise
            raise NotImplementedError(str(error)) from error

    def _summed(self, at: Tensor, of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        x = at.detach().clone().requires_grad_(True)
        total = torch.zeros_like(at)
        for part in self.parts:
            total += of(part(self.named(x)), x).detach()
        return total
