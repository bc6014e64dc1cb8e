"""Directions to look along: random ones of the filters' sizes, and those that a trajectory lies along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

BLOCK = 1 << 18
"""Weights that are taken into double precision at a time."""


def random_directions(weights: Mapping[str, Tensor], count: int, seed: int) -> list[dict[str, Tensor]]:
    """Gaussian directions, each filter scaled to the norm of the weights' own (Li et al. 2018).

    A filter is a row of a tensor's first dimension: what makes one output of a layer. As in the authors' code tensors
    of fewer than two dimensions, biases and the scales of normalisations, stay where they are; but where there are
    no others, each is one filter. The draws depend on the names' order, the shapes and the seed alone, so that
    networks of one shape are looked at along the same draws, each in units of its own filters.

    Returns:
        ``count`` mappings, name → direction of the tensor's shape.
    """
    wide = any(tensor.dim() >= 2 for tensor in weights.values())
    draws = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        direction = {}
        for name, tensor in weights.items():
            drawn = torch.randn(tensor.shape, generator=draws, dtype=torch.float64).to(tensor)
            still = wide and tensor.dim() < 2
            direction[name] = torch.zeros_like(tensor) if still else filter_normalized(drawn, tensor.detach())
        found.append(direction)
    return found


def filter_normalized(direction: Tensor, weights: Tensor) -> Tensor:
    """A direction with each row of the first dimension as long as that of the weights; a vector is one row."""
    rows = weights.shape[0] if weights.dim() >= 2 else 1
    own, wanted = (t.reshape(rows, -1).norm(dim=1, keepdim=True) for t in (direction, weights))
    scale = torch.where(own > 0, wanted / own, torch.zeros_like(own))
    return (direction.reshape(rows, -1) * scale).view_as(weights)


def principal_directions(points: Sequence[Tensor], centre: Tensor, count: int) -> tuple[Tensor, list[float]]:
    """The directions in which points [D] lie farthest from a centre [D] (Li et al. 2018).

    Returns:
        Orthonormal directions [count, D], and the share of the points' squared distances that lies along each.

    Raises:
        ValueError: the points do not span so many directions.
    """
    gram = torch.zeros(len(points), len(points), dtype=torch.float64)
    for first in range(0, len(centre), BLOCK):
        block = _moved(points, centre, first)
        gram += (block @ block.T).cpu()
    squares, mixes = torch.linalg.eigh(gram)
    squares, mixes = squares.flip(0).clamp(min=0), mixes.flip(1)
    # single precision of the weights leaves noise of 1e-7 of their size in what has no extent
    spanned = int((squares > squares[0] * 1e-12).sum()) if squares[0] > 0 else 0
    if spanned < count:
        raise ValueError(f"the {len(points)} models span {spanned} of {count} dimensions")
    strongest = mixes.abs().argmax(0)
    mixes = mixes * mixes[strongest, torch.arange(len(points))].sign()
    weights = mixes[:, :count].T / squares[:count, None].sqrt()
    found = torch.empty(count, len(centre), dtype=centre.dtype, device=centre.device)
    for first in range(0, len(centre), BLOCK):
        found[:, first : first + BLOCK] = weights.to(centre.device) @ _moved(points, centre, first)
    return found, (squares[:count] / squares.sum()).tolist()


def coordinates(points: Sequence[Tensor], centre: Tensor, directions: Tensor) -> Tensor:
    """Where points [D] lie from a centre [D] along orthonormal directions [count, D]: float64 [points, count]."""
    found = torch.zeros(len(points), len(directions), dtype=torch.float64)
    for first in range(0, len(centre), BLOCK):
        found += (_moved(points, centre, first) @ directions[:, first : first + BLOCK].double().T).cpu()
    return found


def _moved(points: Sequence[Tensor], centre: Tensor, first: int) -> Tensor:
    """A block of the points' differences from the centre, float64."""
    own = slice(first, first + BLOCK)
    return torch.stack([point[own].double() - centre[own].double() for point in points])
