"""Trained modules as they leave the laboratory: whole weights, and quantised layers in ONNX's operations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.onnx.ops import symbolic

from .quantized import MOST, Inputs, QuantizedConv2d, QuantizedLinear, integers
from .surveyed import weights_of

BYTES, SCALES = "weight_integers", "weight_scale"


def trained(build: Callable[[], nn.Module], checkpoint: Mapping[str, Any]) -> nn.Module:
    """A checkpoint's model as it is evaluated, with the average of its weights if there is one, in float32.

    Raises:
        ValueError: the checkpoint has no model.
        RuntimeError: it is of another one.
    """
    module = build().float()
    module.load_state_dict({**weights_of(checkpoint), **checkpoint.get("average", {})})
    return module.eval().requires_grad_(False)


class RoundedInputs(nn.Module):
    """:class:`.quantized.Inputs` after training."""

    scale: Tensor
    zero: Tensor

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        scale, zero = inputs.grid()
        self.register_buffer("scale", scale)
        self.register_buffer("zero", zero.to(torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        whole = symbolic("QuantizeLinear", (x, self.scale, self.zero), dtype=torch.int8, shape=x.shape)
        return symbolic("DequantizeLinear", (whole, self.scale, self.zero), dtype=x.dtype, shape=x.shape)


def restored(layer: nn.Module) -> Tensor:
    """Weights [O, ...] of a layer's integers."""
    whole, scale = layer.get_buffer(BYTES), layer.get_buffer(SCALES)
    return symbolic("DequantizeLinear", (whole, scale), {"axis": 0}, dtype=scale.dtype, shape=whole.shape)


class IntegerLinear(nn.Linear):
    """A linear layer that keeps integers."""

    inputs: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """As the layer does it."""
        return linear(self.inputs(input), restored(self), self.bias)


class IntegerConv2d(nn.Conv2d):
    """A convolution that keeps integers."""

    inputs: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """As the layer does it."""
        return self._conv_forward(self.inputs(input), restored(self), self.bias)


def as_integers(module: nn.Module) -> tuple[nn.Module, list[str]]:
    """A copy for the exporter, and the names of its buffers of int8 whose numbers have 4 bits."""
    module, narrow = copy.deepcopy(module), []
    quantised = {QuantizedLinear: IntegerLinear, QuantizedConv2d: IntegerConv2d}
    layers: list[tuple[str, Any]] = [(name, m) for name, m in module.named_modules() if type(m) in quantised]
    for name, layer in layers:
        whole, scale = integers(layer.weight, layer.most)
        del layer.weight
        layer.register_buffer(BYTES, whole.to(torch.int8))
        layer.register_buffer(SCALES, scale.flatten())
        if isinstance(layer.inputs, Inputs):
            layer.inputs = RoundedInputs(layer.inputs)
        if layer.most <= MOST["int4_weights"]:
            narrow.append(f"{name}.{BYTES}" if name else BYTES)
        layer.__class__ = quantised[type(layer)]
    return module, narrow
