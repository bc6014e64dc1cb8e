"""A loss on a line or in a plane of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from alphagrad.landscape.loss import FixedLoss


def axis(middle: float, half: float, points: int) -> np.ndarray:
    """Evenly spaced places; an odd number of them has one in the middle itself."""
    return middle + half * np.linspace(-1.0, 1.0, points)


def extent(coordinates: np.ndarray, margin: float = 0.3) -> list[tuple[float, float]]:
    """Middle and half-width of axes that hold points [n, dims], with a share of their extent around them.

    Each axis is at least a tenth as wide as the widest, so that what hardly moves is no hairline.
    """
    low, high = coordinates.min(0), coordinates.max(0)
    half = (high - low) / 2 * (1 + margin)
    half = np.maximum(half, half.max() / 10 if half.max() > 0 else 1.0)
    return list(zip(((low + high) / 2).tolist(), half.tolist(), strict=True))


def surface(
    loss: FixedLoss, centre: Tensor, directions: Tensor, axes: Sequence[np.ndarray], tell: Callable[[], None]
) -> np.ndarray:
    """L(centre + Σ x_k·direction_k) on a grid.

    Args:
        loss: L.
        centre: [D].
        directions: [dims, D].
        axes: the places along each direction.
        tell: is called after each point.

    Returns:
        float64 [*places of each axis]; not finite where the loss is not.
    """
    found = np.empty([len(places) for places in axes])
    for index in np.ndindex(*found.shape):
        place = torch.tensor([places[i] for places, i in zip(axes, index, strict=True)], dtype=torch.float64)
        found[index] = loss.value(centre + place.to(centre) @ directions)
        tell()
    return found
