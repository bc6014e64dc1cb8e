"""Gradients of R runs' losses, compiled or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from alphagrad.compiled import compiled
from alphagrad.harness.tensors import Layout, StackedTensors, split


def gradients_of(losses: Callable[..., tuple[Tensor, Tensor]], compile: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    """``losses(params, ...)`` → (sum of the runs' losses, measures) becomes (gradients [R, D], measures).

    The runs' losses are summed, and no operation mixes runs, so each run's gradient is its own. The function
    returned takes :class:`StackedTensors` first, the parameters before any other network, then tensors; the
    gradients are laid out as the parameters. Uncompiled, autograd costs half of what ``torch.func.grad`` does.
    """

    def total(flat: Tensor, others: Sequence[Tensor], rest: Sequence[Any], layouts: Sequence[Layout]) -> Any:
        networks = [split(f, layout) for f, layout in zip((flat, *others), layouts, strict=True)]
        return losses(*networks, *rest)

    def eager(flat: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        leaf = flat.detach().requires_grad_()
        value, measures = total(leaf, *rest)
        return torch.autograd.grad(value, leaf)[0], measures

    # the calls of the compiled kernels are compiled too: of small networks they are most of the time
    calls: dict[str, Any] = {"cpp_wrapper": True}
    derived = torch.func.grad(total, has_aux=True)
    grad = compiled(derived, calls) if compile else eager

    def gradients(*arguments: Any) -> tuple[Tensor, Tensor]:
        networks = [a for a in arguments if isinstance(a, StackedTensors)]
        layouts = tuple(network.layout for network in networks)
        others = tuple(network.flat for network in networks[1:])
        return grad(networks[0].flat, others, arguments[len(networks) :], layouts)

    return gradients
