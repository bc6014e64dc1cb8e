"""Quantisation-aware training: layers that compute with the numbers which their integers will stand for.

torch's own ``fake_quantize_*`` give the same numbers; they turn a NaN into the lowest of them, though, so that a
network that has diverged would look sound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

Quantization = Literal["none", "int8", "int4_weights"]
MOST = {"int8": 127, "int4_weights": 7}
"""The largest integer of a weight; the smallest is its negative."""
LOWEST, HIGHEST = -128, 127
"""Of an input's integers."""
SHARE = 0.01
"""Of a batch in the running range of inputs, as torch's observers have it."""
SMALLEST = torch.finfo(torch.float32).eps
"""Of a scale."""


class Inputs(nn.Module):
    """Inputs of a layer as 8 bits: ``(q − zero)·scale`` with one scale and zero for all of them.

    Both come of the running range of what was seen in training, which always holds 0. What lies outside is cut off,
    and has no gradient; through the rounding gradients go straight. A batch that is not finite leaves the range as it
    is, and is not finite afterwards.
    """

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def grid(self) -> tuple[Tensor, Tensor]:
        """Scale and zero, a whole number between :data:`LOWEST` and :data:`HIGHEST`."""
        scale = ((self.high - self.low) / (HIGHEST - LOWEST)).clamp(min=SMALLEST)
        return scale, (LOWEST - self.low / scale).round().clamp(LOWEST, HIGHEST)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        if self.training:
            self._see(x.detach())
        scale, zero = self.grid()
        # as QuantizeLinear and DequantizeLinear of ONNX are defined, to the bit
        wanted = (x.detach() / scale).round() + zero
        cut = (wanted < LOWEST) | (wanted > HIGHEST)  # a NaN is not, and is in the gradient too
        return straight((wanted.clamp(LOWEST, HIGHEST) - zero) * scale, x.masked_fill(cut, 0.0))

    @torch.no_grad()
    def _see(self, x: Tensor) -> None:
        low, high = x.aminmax()
        low, high = low.clamp(max=0.0), high.clamp(min=0.0)
        share = torch.where(self.low == self.high, 1.0, SHARE)  # nothing was seen yet
        share = torch.where(low.isfinite() & high.isfinite(), share, 0.0)
        self.low.lerp_(low.nan_to_num(), share)
        self.high.lerp_(high.nan_to_num(), share)


def straight(value: Tensor, like: Tensor) -> Tensor:
    """``value`` to the bit, with the gradient of ``like``."""
    return value.detach() + (like - like.detach())


def integers(weight: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Weights [O, ...] as whole numbers between ``−most`` and ``most``, and the scale of each row [O, 1, ...]."""
    weight = weight.detach()
    scale = (weight.abs().amax(tuple(range(1, weight.dim())), keepdim=True) / most).clamp(min=SMALLEST)
    return (weight / scale).round().clamp(-most, most), scale


def rounded(weight: Tensor, most: int) -> Tensor:
    """Weights as their integers stand for them; their gradient goes straight through."""
    whole, scale = integers(weight, most)
    return straight(whole * scale, weight)


class QuantizedLinear(nn.Linear):
    """A linear layer with rounded weights and ``inputs``; the bias stays as it is."""

    inputs: nn.Module
    most: int

    def forward(self, input: Tensor) -> Tensor:
        """As the layer does it."""
        return linear(self.inputs(input), rounded(self.weight, self.most), self.bias)


class QuantizedConv2d(nn.Conv2d):
    """A convolution with rounded weights and ``inputs``; the bias stays as it is."""

    inputs: nn.Module
    most: int

    def forward(self, input: Tensor) -> Tensor:
        """As the layer does it."""
        return self._conv_forward(self.inputs(input), rounded(self.weight, self.most), self.bias)


KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: QuantizedLinear, nn.Conv2d: QuantizedConv2d}
"""Layer → the same, quantised."""


def quantized(module: nn.Module, quantization: Quantization) -> nn.Module:
    """The module with its linear layers and convolutions quantised in place; names and values of parameters stay."""
    if quantization == "none":
        return module
    inputs: Callable[[], nn.Module] = Inputs if quantization == "int8" else nn.Identity
    layers: list[Any] = [layer for layer in module.modules() if type(layer) in KINDS]
    for layer in layers:
        layer.__class__ = KINDS[type(layer)]
        layer.inputs, layer.most = inputs(), MOST[quantization]
    return module


def check_quantizes(
    module: nn.Module, name: str, quantization: Quantization, precision: str, ema: float | None
) -> None:
    """Raises ``ValueError`` for a model, a precision or an average that cannot be quantised in training.

    Args:
        module: the model as it was built.
        name: of the model, for the message.
        quantization: what is asked for.
        precision: of the run.
        ema: decay of the average that is evaluated.
    """
    if quantization == "none":
        return
    told = f"recipe.quantization={quantization}"
    others = [m for m in module.modules() if type(m) not in KINDS and any(p.dim() > 1 for p in m.parameters(False))]
    if others:
        kinds = ", ".join(sorted({type(m).__name__ for m in others}))
        raise ValueError(
            f"{told}: model.name={name} has {kinds}, and only the weights of Linear and Conv2d are quantised; "
            "use mlp, cnn, resnet18, resnet50 or recipe.quantization=none"
        )
    if not any(type(m) in KINDS for m in module.modules()):
        raise ValueError(f"{told}: model.name={name} has no Linear or Conv2d to be quantised")
    if precision != "float32":
        raise ValueError(f"{told}: is for recipe.precision=float32, got {precision}")
    if ema is not None and quantization == "int8":
        raise ValueError(f"{told}: has ranges of its weights, not of their average; use recipe.ema=null, got {ema}")
