"""Optimizers half way through a training, for what torch asks of them."""

import pytest
import torch
from cases import (
    as_parameters,
    in_groups,
    make_values,
    rule_of,
)

from alphagrad import AlphaGrad

# one setting for each kind of state: none, buffer, buffer and step, step, controller
STATEFUL = {
    "stateless": {},
    "momentum": {"momentum": 0.9, "nesterov": True},
    "dampening": {"momentum": 0.9, "dampening": 0.3},
    "schedule": {"rule": rule_of("tensor", "schedule_cosine", "hybrid_ramp")},
    "saturation": {"rule": rule_of("blend", "saturation", "tanh"), "momentum": 0.9},
}
stateful = pytest.mark.parametrize("settings", STATEFUL.values(), ids=STATEFUL)


def give(params, grads):
    for n, p in params.items():
        p.grad = torch.tensor(grads[n], dtype=torch.float64).to(p.dtype)


def go(optimizer, params, steps):
    for grads in steps:
        give(params, grads)
        optimizer.step()


def half_way(settings, dtype=torch.float32):
    """An optimizer after two of four steps, its parameters, and the gradients that remain."""
    initial, grads = make_values(seed=9)
    params = as_parameters(initial, dtype)
    optimizer = AlphaGrad(in_groups(params), lr=0.1, **settings)
    go(optimizer, params, grads[:2])
    return optimizer, params, grads[2:]


def twin_of(params):
    return {n: torch.nn.Parameter(p.detach().clone()) for n, p in params.items()}
