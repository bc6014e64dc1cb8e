"""PPO's networks: a Gaussian policy whose mean is a tanh network, and a value network, of R runs at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from .mlp import Forward, mlp, stacked_mlp

Params = Mapping[str, Tensor]


class ActorCritic(nn.Module):
    """Separate tanh networks for mean action and value, orthogonal; the log-std depends on nothing."""

    def __init__(self, observations: int, actions: int, hidden: list[int]) -> None:
        super().__init__()
        self.critic = orthogonal(mlp([observations, *hidden, 1], nn.Tanh), last=1.0)
        self.actor_mean = orthogonal(mlp([observations, *hidden, actions], nn.Tanh), last=0.01)
        self.actor_logstd = nn.Parameter(torch.zeros(actions))


def orthogonal(network: nn.Sequential, last: float) -> nn.Sequential:
    """Orthogonal weights of gain √2, ``last`` in the last layer; biases 0."""
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    for layer in layers:
        nn.init.orthogonal_(layer.weight, last if layer is layers[-1] else 2**0.5)
        nn.init.zeros_(layer.bias)
    return network


def part(params: Params, prefix: str) -> Params:
    """The parameters whose names begin with ``prefix``."""
    return {name: p for name, p in params.items() if name.startswith(prefix)}


def mean_actions(params: Params) -> Forward:
    """The policy's mean: observations [R, B, n] → [R, B, actions]."""
    return Forward(part(params, "actor_mean."), "tanh")


def values_of(params: Params, x: Tensor) -> Tensor:
    """V of observations [R, B, n]: [R, B]."""
    return stacked_mlp(part(params, "critic."), x, "tanh").squeeze(-1)


def log_probability(params: Params, observation: Tensor, action: Tensor) -> Tensor:
    """log π(action | observation) of a diagonal Gaussian, [R, B]."""
    mean = stacked_mlp(part(params, "actor_mean."), observation, "tanh")
    logstd = params["actor_logstd"].unsqueeze(1)
    squares = ((action - mean) * (-logstd).exp()).square()
    return (-0.5 * squares - logstd - 0.5 * np.log(2 * np.pi)).sum(-1)
