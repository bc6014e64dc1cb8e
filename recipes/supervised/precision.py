"""Number formats of training: float32, mixed precision, or bfloat16 throughout."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

Precision = Literal["float32", "amp_bfloat16", "amp_float16", "bfloat16"]
AUTOCAST: Mapping[str, torch.dtype] = {"amp_bfloat16": torch.bfloat16, "amp_float16": torch.float16}


@dataclass(frozen=True)
class Numbers:
    """What a :data:`Precision` means on a device.

    *amp_bfloat16*, *amp_float16*: float32 parameters, the model under ``torch.autocast``; float16 also
    scales the loss (``torch.amp.GradScaler``). *bfloat16*: parameters, gradients and activations.
    """

    precision: Precision
    device: torch.device

    @property
    def inputs(self) -> torch.dtype:
        """The dtype of what the model is given."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def convert(self, module: nn.Module) -> nn.Module:
        """The module with parameters of the right dtype, on the device."""
        return module.to(self.device, self.inputs)

    def autocast(self) -> AbstractContextManager[None]:
        """The context of a forward pass."""
        dtype = AUTOCAST.get(self.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """Scales losses under float16, and does nothing otherwise."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "amp_float16")
