"""Fast executions of the update, equal to ``step.py``, to which they leave what their tables do not cover."""

from __future__ import annotations

import importlib.util
from functools import cache

import torch

from alphagrad.batch import Kernel
from alphagrad.rule import Rule


@cache
def has_numba() -> bool:
    """Whether numba can be imported; it is, at the first step that uses it."""
    return importlib.util.find_spec("numba") is not None


def kernel_for(device: torch.device, dtype: torch.dtype, rule: Rule, rounding: str) -> Kernel | None:
    """The kernel that covers such a batch; None if there is none."""
    if device.type == "cpu" and has_numba():
        from alphagrad.kernels import cpu

        return cpu.KERNEL if cpu.covers(dtype, rule, rounding) else None
    return None


def why_not(device: torch.device, dtype: torch.dtype, rule: Rule, rounding: str) -> str:
    """Why :func:`kernel_for` has none, in words that end a sentence."""
    if device.type != "cpu":
        wanted = "`fused=True` requires all the params to be floating point Tensors on a CPU"  # torch's words
        return f"there is no kernel for {device.type}; {wanted}"
    if not has_numba():
        return "it needs numba (pip install numba)"
    return f"no kernel covers {rule!r} in {str(dtype).removeprefix('torch.')} with {rounding} rounding"
