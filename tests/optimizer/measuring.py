"""Optimizers that are measured, and the same quantities in NumPy."""

import torch

from alphagrad import variants
from alphagrad.instruments.quantities import NETWORK
from alphagrad.instruments.sums import Observation

ALL = Observation(99, 0.6, details=True)
SHAPES = {"a.weight": (5, 4), "a.bias": (5,), "b.weight": (3, 5), "b.bias": (), "long": (9000,)}
VARIANTS = sorted(name for name in variants.__all__)


def drawn(seed, runs=(), dtype=torch.float32, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    return {n: (torch.randn((*runs, *s), generator=generator) * size).to(dtype) for n, s in SHAPES.items()}


def made(build, runs=(), dtype=torch.float32, size=1.0):
    """Named parameters and the optimizer that ``build`` makes of them."""
    params = {n: torch.nn.Parameter(p) for n, p in drawn(0, runs, dtype, size).items()}
    return params, build(list(params.items()))


def give(params, seed, size=1.0):
    for n, g in drawn(seed, size=size).items():
        params[n].grad = g.to(params[n].dtype)


def measured(meter, observe=ALL, network=NETWORK):
    meter.before(observe)
    meter.optimizer.step()
    return meter.after().rows(network)


def network():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
