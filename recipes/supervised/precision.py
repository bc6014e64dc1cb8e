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
from alphagrad.harness.driver import Observation, OptimizerSpec
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
        self,
        params: Mapping[str, Tensor],
        observe: Observation | None,
        scaler: torch.amp.GradScaler,
        rests: Mapping[str, Tensor],
    ) -> Iterator[dict[str, Tensor]]:
        """What half precision loses of the step that is taken within: metric → share of the elements.

        Of all tensors as one, and of each that is observed. None under float32, or where nothing is observed. The
        gradients are those that the optimizer sees.

        Args:
            params: what is moved.
            observe: what is measured.
            scaler: of the loss.
            rests: what was rounded away of parameters and is kept for the next step, by name.
        """
        seen: dict[str, Tensor] = {}
        if observe is None or self.products == torch.float32:
            yield seen
            return
        grads = {name: p.grad.clone() for name, p in params.items() if p.grad is not None}
        before = {name: _exact(params[name], rests.get(name)) for name in grads}
        tiny = torch.finfo(self.products).smallest_normal / (scaler.get_scale() if scaler.is_enabled() else 1.0)
        yield seen
        shares: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}
        for name, grad in grads.items():
            elements = torch.tensor(grad.numel(), device=grad.device)
            wanted = grad != 0
            stood = wanted & (before[name] == _exact(params[name], rests.get(name)))
            shares[name] = {
                quantities.OVERFLOW: (count(~grad.isfinite()), elements),
                quantities.UNDERFLOW: (count(grad.abs() < tiny), elements),
                quantities.LOST: (count(stood), count(wanted)),
            }
        shown = largest({name: params[name] for name in shares}, observe.tensors)
        for quantity in quantities.LOSSES if shares else ():
            parts = {name: own[quantity] for name, own in shares.items()}
            for name in shown:
                seen[metrics.per_tensor(quantity, name)] = share(*parts[name])
            lost, of = (torch.stack(column).sum() for column in zip(*parts.values(), strict=True))
            seen[metrics.per_tensor(quantities.summary(quantity, "all"), quantities.NETWORK)] = share(lost, of)


def count(which: Tensor) -> Tensor:
    """How many of a tensor's elements are true, of all its shards."""
    return whole(which.sum())


def share(part: Tensor, of: Tensor) -> Tensor:
    """A share; 0 of nothing."""
    return part / of.clamp(min=1)


def _exact(p: Tensor, rest: Tensor | None) -> Tensor:
    """A copy of a parameter; with what was rounded away of it, in float64, which holds the sum."""
    return p.detach().clone() if rest is None else p.detach().double() + rest.double()


def check_scaled(precision: Precision, spec: OptimizerSpec) -> None:
    """Raises ``ValueError`` for an optimizer that is to raise for gradients that a scaler hides from it."""
    if precision == "amp_float16" and spec.raises:
        raise ValueError(
            "optimizer.nonfinite=raise: recipe.precision=amp_float16 drops steps whose gradients overflow, to find its "
            "scale; use optimizer.nonfinite=skip or recipe.precision=amp_float16_unscaled"
        )


def check_rounding(precision: Precision, rounding: Rounding) -> None:
    """Raises ``ValueError`` for a rounding where nothing is rounded."""
    if rounding != "nearest" and precision != "bfloat16":
        raise ValueError(f"recipe.rounding={rounding}: is for recipe.precision=bfloat16, got {precision}")
