"""The update in integers as an optimizer of torch's, so that a network can be trained with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from alphagrad.fixed_point.number import Number, on_grid, quantized
from alphagrad.fixed_point.update import random_bits, update

ROUNDINGS = ("stochastic", "nearest")
NONFINITE = ("skip", "raise")


class FixedPoint(Optimizer):
    """``θ ← θ − lr·tanh(α·g/‖g‖)`` with int8 gradients and int16 weights, as a microcontroller would compute it.

    Parameters stay float tensors, but hold only multiples of ``2^-weight_bits``; the first step rounds them to those.
    Forward and backward pass are torch's. There is no state of a weight, no momentum, no weight decay, and no ε: the
    unit of the gradient cancels.

    Args:
        params: parameters, parameter groups, or pairs of name and parameter.
        lr: the learning rate.
        alpha: the steepness α of every tensor.
        k: if given, α is ``k·√d`` of a tensor of d elements, in place of ``alpha``.
        weight_bits: bits of a weight behind the point; with 12, weights lie within ±8.
        rounding: *stochastic*: a step that is not a whole number of units is rounded up with the probability of the
            rest, so that small steps count on average. *nearest*: a step below half a unit is lost.
        seed: where the random bits begin: at 32 bits that are mixed from it, so that neighbouring seeds lie far
            apart. A group's count of them moves on and is saved in its state dict.
        nonfinite: what to do with a gradient that has a NaN or an infinity: *skip* leaves the tensor as it is and
            counts that in ``state[p]["skipped"]``; *raise* raises.

    Raises:
        ValueError: a setting is out of range, or a parameter does not fit into int16.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        alpha: float = 100.0,
        k: float | None = None,
        weight_bits: int = 12,
        rounding: str = "stochastic",
        seed: int = 0,
        nonfinite: str = "skip",
    ) -> None:
        defaults = {"lr": lr, "alpha": alpha, "k": k, "weight_bits": weight_bits, "rounding": rounding}
        _check_word("seed", seed)
        super().__init__(params, {**defaults, "noise": random_bits(seed), "nonfinite": nonfinite})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; raises as the constructor does."""
        super().add_param_group(param_group)
        try:
            _check(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update from the gradients that stand now; returns what ``closure`` returns.

        Raises:
            ValueError: a gradient is not finite, under ``nonfinite="raise"``; nothing has moved then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = [(group, p, p.grad) for group in self.param_groups for p in group["params"] if p.grad is not None]
        finite = [bool(grad.isfinite().all()) for _, _, grad in moving]
        for (group, p, _), fine in zip(moving, finite, strict=True):
            if not fine and group["nonfinite"] == "raise":
                raise ValueError(f"gradient of a parameter of shape {tuple(p.shape)} is not finite")
        for (group, p, grad), fine in zip(moving, finite, strict=True):
            if fine:
                _move(group, p, grad)
            else:
                self.state[p]["skipped"] = self.state[p].get("skipped", torch.tensor(0, device=p.device)) + 1
        return loss

    def skipped(self) -> dict[str, Tensor]:
        """How often each tensor's update was skipped for a non-finite gradient, where any was: name → a number."""
        counts, before = {}, 0
        for group in self.param_groups:
            numbers = [f"parameter {before + i}" for i in range(len(group["params"]))]
            before += len(numbers)
            for name, p in zip(group.get("param_names") or numbers, group["params"], strict=True):
                if "skipped" in self.state.get(p, {}):
                    counts[name] = self.state[p]["skipped"]
        return counts


def _move(group: dict[str, Any], p: Tensor, grad: Tensor) -> None:
    bits = group["weight_bits"]
    alpha = group["alpha"] if group["k"] is None else group["k"] * math.sqrt(p.numel())
    noise = group["noise"] if group["rounding"] == "stochastic" else None
    numbers = Number.of(float(alpha), "alpha"), Number.of(float(group["lr"]), "lr")
    moved, noise = update(on_grid(p, bits), quantized(grad)[0], *numbers, bits, noise)
    if noise is not None:
        group["noise"] = noise
    p.copy_(moved.double() * 2.0**-bits)


def _check_word(setting: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
        raise ValueError(f"{setting}: must be an integer in [0, 2^32), got {value!r}")


def _check(group: Mapping[str, Any]) -> None:
    """Raises ``ValueError`` naming the first setting of a group that is out of range."""
    for setting in ("lr", "alpha", *(["k"] if group["k"] is not None else [])):
        Number.of(float(group[setting]), setting)
    bits = group["weight_bits"]
    if not isinstance(bits, int) or isinstance(bits, bool) or not 0 <= bits <= 15:
        raise ValueError(f"weight_bits: must be an integer from 0 to 15, got {bits!r}")
    if group["rounding"] not in ROUNDINGS:
        raise ValueError(f"rounding: must be one of {', '.join(ROUNDINGS)}, got {group['rounding']!r}")
    if group["nonfinite"] not in NONFINITE:
        raise ValueError(f"nonfinite: must be one of {', '.join(NONFINITE)}, got {group['nonfinite']!r}")
    _check_word("noise", group["noise"])
    for p in group["params"]:
        if not p.is_floating_point() or p.dtype in (torch.float16, torch.bfloat16):
            raise ValueError(f"params: int16 weights are kept in float32 or float64, got {p.dtype}")
        largest = float(p.detach().abs().max()) if p.numel() else 0.0
        if not largest < 2.0 ** (15 - bits):
            raise ValueError(
                f"weight_bits: with {bits} weights lie within ±{2.0 ** (15 - bits):g}, and one is {largest:g}"
            )
