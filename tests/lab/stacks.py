"""Parameters and gradients of stacks, and the runs alone."""

from __future__ import annotations

import torch

from alphagrad.harness.tensors import StackedTensors

SHAPES = {"0.weight": (6, 4), "0.bias": (6,), "2.weight": (5, 6), "2.bias": (5,), "4.weight": (2, 5), "4.bias": (2,)}


def parameters(runs: int, seed: int = 0) -> StackedTensors:
    g = torch.Generator().manual_seed(seed)
    return StackedTensors.of({name: torch.randn(runs, *shape, generator=g) for name, shape in SHAPES.items()})


def gradients(runs: int, steps: int) -> list[StackedTensors]:
    """Gradients of quite unequal runs."""
    g = torch.Generator().manual_seed(99)
    found = []
    for _ in range(steps):
        step = {}
        for name, shape in SHAPES.items():
            scale = torch.logspace(-2, 1, runs).view(-1, *(1 for _ in shape))
            step[name] = torch.randn(runs, *shape, generator=g) * scale
        found.append(StackedTensors.of(step))
    return found


def of_run(tensors: dict[str, torch.Tensor], run: int) -> dict[str, torch.Tensor]:
    return {name: t[run] for name, t in tensors.items()}
