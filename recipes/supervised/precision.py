"""Number formats of training: float32, mixed precision, or bfloat16 throughout; what they lose."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from alphagrad.harness import metrics
from alphagrad.harness.driver import Observation
from alphagrad.harness.tensors import whole
from alphagrad.instruments import quantities
from alphagrad.instruments.meter import largest

from .speed import peak_flops

Precision = Literal["float32", "amp_bfloat16", "amp_float16", "amp_float16_unscaled", "bfloat16"]
Rounding = Literal["nearest", "stochastic", "kahan"]
LOG = logging.getLogger("alphagrad")
AUTOCAST: Mapping[str, torch.dtype] = {
    "amp_bfloat16": torch.bfloat16,
    "amp_float16": torch.float16,
    "amp_float16_unscaled": torch.float16,
}

SMALL = (256, 1)
"""Side and number of the products compared: 40 ms for a processor that does them one number at a time."""
NOISE = 1.2
"""The ratio from which a processor is called slower, for a timing says no more."""


@dataclass(frozen=True)
class Numbers:
    """What a :data:`Precision` means on a device.

    *amp_bfloat16*, *amp_float16*: float32 parameters, the model under ``torch.autocast``; float16 also
    scales the loss (``torch.amp.GradScaler``), but as *amp_float16_unscaled*. *bfloat16*: parameters, gradients and
    activations; ``rounding`` says how the optimizer's float32 is rounded to parameters.
    """

    precision: Precision
    device: torch.device
    rounding: Rounding = "nearest"

    def check(self) -> None:
        """Raises ``ValueError`` for numbers that the device has no units for."""
        if self.device.type == "cuda" and self.products == torch.bfloat16 and not torch.cuda.is_bf16_supported(False):
            name = torch.cuda.get_device_name(self.device)
            raise ValueError(f"recipe.precision={self.precision}: {name} has no bfloat16; use amp_float16 or float32")

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

    @contextmanager
    def counted(
        self, params: Mapping[str, Tensor], observe: Observation | None, scaler: torch.amp.GradScaler
    ) -> Iterator[dict[str, Tensor]]:
        """What half precision loses of the step that is taken within: metric of a tensor → share of its elements.

        None under float32, or where nothing is observed. The gradients are those that the optimizer sees.
        """
        seen: dict[str, Tensor] = {}
        if observe is None or self.products == torch.float32:
            yield seen
            return
        grads = {name: params[name].grad for name in largest(params, observe.tensors)}
        found = {name: grad.clone() for name, grad in grads.items() if grad is not None}
        tiny = torch.finfo(self.products).smallest_normal / (scaler.get_scale() if scaler.is_enabled() else 1.0)
        for name, grad in found.items():
            seen[metrics.per_tensor(quantities.OVERFLOW, name)] = share(~grad.isfinite())
            seen[metrics.per_tensor(quantities.UNDERFLOW, name)] = share(grad.abs() < tiny)
        before = {name: params[name].detach().clone() for name in found}
        yield seen
        for name, old in before.items():
            wanted = found[name] != 0
            stood = wanted & (old == params[name].detach())
            seen[metrics.per_tensor(quantities.LOST, name)] = share(stood) / share(wanted).clamp(min=1 / old.numel())


def share(which: Tensor) -> Tensor:
    """The share of a tensor's elements that are true, of all its shards."""
    return whole(which.float().mean())


def check_rounding(precision: Precision, rounding: Rounding) -> None:
    """Raises ``ValueError`` for a rounding where nothing is rounded."""
    if rounding != "nearest" and precision != "bfloat16":
        raise ValueError(f"recipe.rounding={rounding}: is for recipe.precision=bfloat16, got {precision}")
