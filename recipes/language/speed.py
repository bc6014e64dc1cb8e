"""How much arithmetic a language model's training does, for the MFU."""

from __future__ import annotations

from torch import nn


def flops_per_token(model: nn.Module, layers: int, width: int, length: int) -> float:
    """Floating-point operations of training on one token: 6·N + 12·layers·width·length.

    As in PaLM (Chowdhery et al. 2022, appendix B): N counts the weights of matrix products, which embeddings
    are not unless they are the output layer as well; attention is counted whole, though half is masked.
    """
    from transformers.pytorch_utils import Conv1D

    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, (nn.Linear, Conv1D)))
    return 6 * weights + 12 * layers * width * length
