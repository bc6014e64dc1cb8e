"""How much arithmetic a language model's training does, and what the device could do: the MFU."""

from __future__ import annotations

import time

import torch
from torch import nn

PRODUCTS, GPU_PRODUCTS, TRIES = (1024, 1), (8192, 8), 3
"""Side and number of the matrix products that measure a CPU and a GPU, which they must keep busy; how often they are
timed, of which the fastest counts."""


def flops_per_token(model: nn.Module, layers: int, width: int, length: int) -> float:
    """Floating-point operations of training on one token: 6·N + 12·layers·width·length.

    As in PaLM (Chowdhery et al. 2022, appendix B): N counts the weights of matrix products, which embeddings
    are not unless they are the output layer as well; attention is counted whole, though half is masked.
    """
    from transformers.pytorch_utils import Conv1D

    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, (nn.Linear, Conv1D)))
    return 6 * weights + 12 * layers * width * length


@torch.no_grad()
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a matrix product, measured: what MFU is a share of unless a number is given."""
    side, products = GPU_PRODUCTS if device.type == "cuda" else PRODUCTS
    a = torch.ones(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(TRIES):
        begun = time.perf_counter()
        for _ in range(products):
            a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begun)
    return products * 2 * side**3 / best
