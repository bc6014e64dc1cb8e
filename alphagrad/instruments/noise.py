"""The signal and the noise of a gradient, from the parts of a batch that it is accumulated over."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Noise:
    """Compares the gradients of the k equal parts of a batch: call :meth:`add` after each part's backward pass.

    Each backward pass adds h_i to the gradients, and G = Σ h_i is the batch's. Were the parts' gradients drawn from one
    distribution, N = (k·Σ‖h_i‖² − ‖G‖²)/(k − 1) is without bias the variance of G, summed over its elements, and
    S = ‖G‖² − N the squared norm of its mean (McCandlish et al. 2018, appendix A.1). S may be below 0 by chance.

    Args:
        tensors: the parameters by name, [*batch, ...], not sharded.
        batch_dims: leading dimensions that count independent runs.
    """

    def __init__(self, tensors: Mapping[str, Tensor], batch_dims: int = 0) -> None:
        self._tensors, self._batch_dims = tensors, batch_dims
        self.parts = 0
        self._before: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self) -> None:
        """Takes in the backward pass that has just ended."""
        self.parts += 1
        for name, p in self._tensors.items():
            if p.grad is None or p.grad.layout != torch.strided:
                continue
            now, before = p.grad.detach().clone(), self._before.get(name)
            square = self._square(now if before is None else now.double() - before)
            self._squares[name] = self._squares.get(name, 0.0) + square
            self._before[name] = now

    @torch.no_grad()
    def signal_and_noise(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Tensor → S and N, [runs] float64 each; nothing of fewer than two parts. Forgets the parts."""
        found, k = {}, self.parts
        if k > 1:
            for name, squares in self._squares.items():
                whole = self._square(self._before[name])
                noise = (k * squares - whole) / (k - 1)
                found[name] = whole - noise, noise
        self.parts, self._before, self._squares = 0, {}, {}
        return found

    def _square(self, x: Tensor) -> Tensor:
        """‖x‖₂² of each run: [runs]."""
        return x.double().square().unsqueeze(-1).flatten(self._batch_dims).sum(-1).flatten()
