"""Number formats of training: float32, mixed precision, or bfloat16 throughout."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from .speed import peak_flops

Precision = Literal["float32", "amp_bfloat16", "amp_float16", "bfloat16"]
LOG = logging.getLogger("alphagrad")
AUTOCAST: Mapping[str, torch.dtype] = {"amp_bfloat16": torch.bfloat16, "amp_float16": torch.float16}

SMALL = (256, 1)
"""Side and number of the products compared: 40 ms for a processor that does them one number at a time."""
NOISE = 1.2
"""The ratio from which a processor is called slower, for a timing says no more."""


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

    @property
    def products(self) -> torch.dtype:
        """The dtype of the model's matrix products."""
        return AUTOCAST.get(self.precision, self.inputs)

    def warn_if_slow(self) -> None:
        """Warns of half precision on a processor that computes it slower than float32, by up to a hundred times.

        GPUs are not asked: those that AMP is for have units for it.
        """
        if self.device.type != "cpu" or self.products == torch.float32:
            return
        times = peak_flops(self.device, torch.float32, SMALL) / peak_flops(self.device, self.products, SMALL)
        if times > NOISE:
            LOG.warning(
                "recipe.precision=%s: this processor multiplies matrices %.1f times slower in it than in float32",
                self.precision,
                times,
            )

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
