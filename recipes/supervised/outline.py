"""How large a model is: its parameters, and what its layers give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

MODEL_BYTES = 16
"""For each parameter: itself, its gradient, and what an optimizer or an average keeps."""


@dataclass(frozen=True)
class Outline:
    """A model, which may be without numbers (on the device *meta*), and its size."""

    model: nn.Module
    parameters: int
    """Numbers in it."""
    activations: int
    """Numbers that its layers give for one example."""
    widest: int
    """Numbers that the largest of them gives."""


def outlined(net: nn.Module, inputs: Tensor) -> tuple[Any, Outline]:
    """What a model gives for inputs [B, ...], and its outline; raises whatever the model does."""
    given: list[int] = []

    def count(*called: Any) -> None:
        given.append(called[2].numel() if isinstance(called[2], Tensor) else 0)

    hooks = [layer.register_forward_hook(count) for layer in net.modules() if not [*layer.children()]]
    try:
        outputs = net(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    batch = len(inputs)
    numbers = sum(p.numel() for p in net.parameters())
    return outputs, Outline(net, numbers, sum(given) // batch, max(given, default=0) // batch)
