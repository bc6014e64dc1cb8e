"""How fast a device multiplies matrices, measured."""

from __future__ import annotations

import time

import torch

PRODUCTS, GPU_PRODUCTS, TRIES = (1024, 1), (8192, 8), 3
"""Side and number of the matrix products that measure a CPU and a GPU, which they must keep busy; how often they are
timed, of which the fastest counts."""


@torch.no_grad()
def peak_flops(device: torch.device, dtype: torch.dtype, products: tuple[int, int] | None = None) -> float:
    """Operations per second of square matrix products, ``products`` being their side and number."""
    side, count = products or (GPU_PRODUCTS if device.type == "cuda" else PRODUCTS)
    a = torch.ones(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(TRIES):
        begun = time.perf_counter()
        for _ in range(count):
            a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begun)
    return count * 2 * side**3 / best
