"""Baseline optimizers that need more than a constructor call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def muon(
    params: Iterable[tuple[str, Tensor]],
    lr: float = 0.02,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    weight_decay: float = 0.0,
    adamw_lr: float = 3e-4,
    adamw_betas: tuple[float, float] = (0.9, 0.95),
    adamw_eps: float = 1e-10,
    adamw_wd: float = 0.0,
) -> Optimizer:
    """Muon on hidden 2-D weights, AdamW on the rest, as its authors use it (Jordan et al. 2024).

    The rest is every tensor that is not 2-D and the output layer: the last 2-D weight.

    Args:
        params: named parameters, in the order of the network.
        lr: and the rest: as ``pytorch_optimizer.Muon`` has them.
    """
    from pytorch_optimizer import Muon

    named = list(params)
    matrices = [name for name, p in named if p.dim() == 2]
    hidden = set(matrices[:-1])
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in named if name in hidden], "use_muon": True},
        {"params": [p for name, p in named if name not in hidden], "use_muon": False},
    ]
    return Muon(
        [group for group in groups if group["params"]],
        lr=lr,
        momentum=momentum,
        nesterov=nesterov,
        ns_steps=ns_steps,
        weight_decay=weight_decay,
        adamw_lr=adamw_lr,
        adamw_betas=adamw_betas,
        adamw_eps=adamw_eps,
        adamw_wd=adamw_wd,
    )
