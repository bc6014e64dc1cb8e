"""Fast executions of the update, equal to ``step.py``. Unsupported cases fall back to ``step.py``."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from functools import cache

import torch

from alphagrad.batch import Kernel
from alphagrad.kernels.coverage import knows
from alphagrad.rule import Rule

CPU_TYPES = (torch.float32, torch.bfloat16)
GPU_TYPES = (torch.float32, torch.bfloat16, torch.float16)


@cache
def has(package: str) -> bool:
    """Whether a package can be imported, at the first step that would use it; one that is broken is warned of."""
    if importlib.util.find_spec(package) is None:
        return False
    try:
        importlib.import_module(package)
    except Exception as error:  # whatever it raises where it does not fit its dependencies
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        warnings.warn(f"{package} cannot be imported ({told}); the plain step runs", stacklevel=2)
        return False
    return True


def kernel_for(
    device: torch.device, dtype: torch.dtype, rule: Rule, rounding: str, asked: bool | None
) -> Kernel | None:
    """The kernel that covers such a batch; None if there is none.

    The one for CUDA devices must be asked for: it has been tested in Triton's interpreter alone.

    Raises:
        RuntimeError: there is none, and it was asked for.
    """
    exact = knows(rule) and rounding == "nearest"
    if device.type == "cpu" and has("numba") and exact and dtype in CPU_TYPES:
        from alphagrad.kernels.cpu import KERNEL as ON_CPU

        return ON_CPU
    if device.type == "cuda" and asked and has("triton") and exact and dtype in GPU_TYPES:
        from alphagrad.kernels.gpu import KERNEL as ON_GPU

        return ON_GPU
    if asked:
        raise RuntimeError(f"fused=True: {why_not(device, dtype, rule, rounding)}; leave fused out")
    return None


def why_not(device: torch.device, dtype: torch.dtype, rule: Rule, rounding: str) -> str:
    """Why there is no kernel, in words that end a sentence."""
    needed = {"cpu": "numba", "cuda": "triton"}
    if device.type not in needed:
        wanted = "`fused=True` requires all the params to be floating point Tensors on a CPU or CUDA device"
        return f"there is no kernel for {device.type}; {wanted}"
    if not has(needed[device.type]):
        return f"it needs {needed[device.type]} (pip install {needed[device.type]})"
    return f"no kernel covers {rule!r} in {str(dtype).removeprefix('torch.')} with {rounding} rounding"
