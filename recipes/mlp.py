"""Multilayer perceptrons of R runs at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

BYTES = 16
"""For each parameter: itself, its gradient, and what an optimizer or a target network keeps."""


def mlp(sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """The network of one run: linear layers of these sizes with an activation between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def mlp_bytes(sizes: Sequence[int], batch_size: int) -> int:
    """What the network of :func:`mlp` takes while it learns from batches."""
    return BYTES * sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes)) + 8 * sum(sizes) * batch_size


ACTIVATIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "relu": (torch.relu, lambda x: np.maximum(x, 0, out=x)),
    "tanh": (torch.tanh, lambda x: np.tanh(x, out=x)),
}
"""Name → the function on tensors, and on arrays that it may overwrite."""


def stacked_mlp(params: Mapping[str, Tensor], x: Tensor, activation: str = "relu") -> Tensor:
    """What the runs' networks of :func:`mlp` give for x [R, B, inputs]: [R, B, outputs].

    ``params`` holds their stacked parameters [R, ...] in order. Batched matrix products are written out
    because ``vmap`` over ``nn.Sequential`` costs twenty times as much for a single observation.
    """
    tensors = list(params.values())
    on_tensors, _ = ACTIVATIONS[activation]
    for layer in range(0, len(tensors), 2):
        weight, bias = tensors[layer : layer + 2]
        if weight.shape[1] == 1:
            # for one output a batched product rounds differently alone than in a stack
            x = (x * weight).sum(-1, keepdim=True) + bias.unsqueeze(1)
        else:
            # not baddbmm, which copies the bias out to the whole product first
            x = torch.bmm(x, weight.mT) + bias.unsqueeze(1)
        if layer + 2 < len(tensors):
            x = on_tensors(x)
    return x


def as_stack(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One run's parameters as a stack of one, in the same memory."""
    return {name: p.unsqueeze(0) for name, p in params.items()}


class Forward:
    """The runs' networks applied to observations: arrays [R, B, inputs] → [R, B, outputs].

    On the CPU in NumPy, on memory shared with the parameters: for one observation a run torch's calls cost
    five times as much. It sees every update that is made in place.
    """

    def __init__(self, params: Mapping[str, Tensor], activation: str = "relu") -> None:
        self.params, self.activation = dict(params), activation
        self.device = next(iter(params.values())).device
        self._layers: list[tuple[np.ndarray, np.ndarray]] = []
        if self.device.type == "cpu":
            arrays = [p.numpy() for p in params.values()]
            pairs = zip(arrays[::2], arrays[1::2], strict=True)
            self._layers = [(weight.mT, bias[:, None]) for weight, bias in pairs]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if not self._layers:
            with torch.no_grad():
                return stacked_mlp(self.params, torch.from_numpy(x).to(self.device), self.activation).cpu().numpy()
        _, activate = ACTIVATIONS[self.activation]
        *hidden, (weight, bias) = self._layers
        for inner, offset in hidden:
            x = x @ inner
            x += offset
            x = activate(x)
        x = x @ weight
        x += bias
        return x
