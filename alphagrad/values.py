"""What a hyperparameter may be: a number, one number a run, or a ramp over the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import NamedTuple

import torch
from torch import Tensor

Value = float | tuple[float, ...]
"""A number, or one number for each run of a stack (``batch_dims=1``)."""


LARGEST = 3.4e38
"""α stays below float32's largest number, in which the update is computed."""


class PerRun(tuple[float, ...]):
    """One number for each run, as :func:`as_value` marks it."""


class TensorInfo(NamedTuple):
    """What a rule may know of a parameter tensor before it sees a gradient."""

    name: str
    """Its name, or its number where the optimizer was not given named parameters."""
    shape: tuple[int, ...]
    """Its shape in one run: the batch dimensions of a stack are left out."""
    group: int
    """Index of its parameter group."""
    total: int
    """d_network: the number of parameters of the whole optimizer, one run."""

    @property
    def d(self) -> int:
        """The number of elements, one run."""
        return math.prod(self.shape)


def as_value(
    setting: str,
    value: float | Sequence[float] | Tensor,
    *,
    above: float,
    strict: bool = True,
    at_most: float = math.inf,
) -> Value:
    """Checks a hyperparameter and makes it hashable; raises ``ValueError`` naming ``setting``."""
    items = value.tolist() if isinstance(value, Tensor) else value
    given = items if isinstance(items, Sequence) else (items,)
    try:
        numbers = tuple(float(v) for v in given)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{setting}: must be a number or one number for each run, got {value!r}") from None
    if not numbers or any(isinstance(v, (str, bool)) for v in given):
        raise ValueError(f"{setting}: must be a number or one number for each run, got {value!r}")
    for number in numbers:
        if not math.isfinite(number) or not above <= number <= at_most or (strict and number == above):
            if at_most == LARGEST:
                allowed = f"be {'>' if strict else '≥'} {above:g} and at most {at_most:g}"
            elif at_most < math.inf:
                allowed = f"lie in {'(' if strict else '['}{above:g}, {at_most:g}]"
            else:
                allowed = f"be finite and {'>' if strict else '≥'} {above:g}"
            raise ValueError(f"{setting}: must {allowed}, got {value!r}")
    return PerRun(numbers) if isinstance(items, Sequence) else numbers[0]


def check_range(setting: str, value: float, low: float, high: float) -> float:
    """The value as a Python float; raises ``ValueError`` unless ``low < value < high``."""
    if isinstance(value, bool) or not isinstance(value, Real) or not low < value < high:
        raise ValueError(f"{setting}: must lie between {low:g} and {high:g}, got {value!r}")
    return float(value)


def check_count(setting: str, value: int) -> int:
    """The value as a Python int; raises ``ValueError`` unless it is a whole number ≥ 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{setting}: must be a whole number ≥ 1, got {value!r}")
    return int(value)


def keep(part: object, **values: object) -> None:
    """Sets fields of a frozen dataclass, from its ``__post_init__``."""
    for name, value in values.items():
        object.__setattr__(part, name, value)


def scale(value: Value, factor: float) -> Value:
    """``value · factor``, for a number or one number for each run."""
    return tuple(v * factor for v in value) if isinstance(value, tuple) else value * factor


def tensor_of(value: Value | Tensor, like: Tensor) -> Tensor:
    """``value`` as a tensor with the dtype and device of ``like``."""
    if isinstance(value, (int, float)):
        # a fill on the device, where as_tensor copies from the host and waits for it
        return torch.full((), value, dtype=like.dtype, device=like.device)
    return torch.as_tensor(list(value) if isinstance(value, tuple) else value, dtype=like.dtype, device=like.device)


def per_run(values: Tensor, like: Tensor) -> Tensor:
    """``values`` [*batch], one number a run, shaped to multiply ``like`` [*batch, ...]."""
    return values.view(values.shape + (1,) * (like.dim() - values.dim())) if values.dim() else values


@dataclass(frozen=True)
class Ramp:
    """A value that goes from ``start`` to ``end`` in ``steps`` updates and stays there (paper, sections 7.3 and 7.5).

    With ``x = min(t / steps, 1)`` at update ``t``: *linear* ``start + (end − start)·x``; *cosine* the same
    with ``x → (1 − cos πx)/2``; *exponential* ``start·(end/start)^x``.
    """

    start: float
    end: float
    steps: int
    kind: str = "linear"

    KINDS = ("linear", "cosine", "exponential")

    def __post_init__(self) -> None:
        if self.kind not in self.KINDS:
            raise ValueError(f"kind: must be one of {', '.join(self.KINDS)}, got {self.kind!r}")
        keep(self, steps=check_count("steps", self.steps))
        for setting in ("start", "end"):
            value = check_range(setting, getattr(self, setting), -math.inf, math.inf)
            keep(self, **{setting: value})
            if self.kind == "exponential" and value <= 0:
                raise ValueError(f"{setting}: an exponential ramp needs values > 0, got {value!r}")

    def at(self, step: Tensor) -> Tensor:
        """The value at update ``step`` (counted from 0), elementwise."""
        # float64: the first cosine steps drown in float32's rounding where end ≫ start
        x = (step.double() / self.steps).clamp(max=1)
        if self.kind == "exponential":
            return self.start * (self.end / self.start) ** x
        if self.kind == "cosine":
            x = (1 - torch.cos(math.pi * x)) / 2
        return self.start + (self.end - self.start) * x
