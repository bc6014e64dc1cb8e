"""Multilayer perceptrons of R runs at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """The network of one run: linear layers of these sizes with an activation between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def stacked_mlp(params: Mapping[str, Tensor], x: Tensor, activation: Callable[[Tensor], Tensor] = torch.relu) -> Tensor:
    """What the runs' networks of :func:`mlp` give for x [R, B, inputs]: [R, B, outputs].

    ``params`` holds their stacked parameters [R, ...] in order. Batched matrix products are written out
    because ``vmap`` over ``nn.Sequential`` costs twenty times as much for a single observation.
    """
    tensors = list(params.values())
    for layer in range(0, len(tensors), 2):
        weight, bias = tensors[layer : layer + 2]
        if weight.shape[1] == 1:
            # for one output a batched product rounds differently alone than in a stack
            x = (x * weight).sum(-1, keepdim=True) + bias.unsqueeze(1)
        else:
            x = torch.baddbmm(bias.unsqueeze(1), x, weight.mT)
        if layer + 2 < len(tensors):
            x = activation(x)
    return x
