"""Where tensors are kept and computed with."""

from __future__ import annotations

import torch

from alphagrad.common import ranks
from alphagrad.common.errors import ConfigError
from alphagrad.common.words import cut, squeezed


def device_of(name: str) -> torch.device:
    """The torch device; *auto* is CUDA where there is one, else the CPU. Under torchrun: this process's."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if ranks.count() > 1:
        if name not in ("cpu", "cuda"):
            raise ConfigError(f"device={name}: must be auto, cpu or cuda under torchrun; each process has its own GPU")
        name = f"cuda:{ranks.local()}" if name == "cuda" else name
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].partition("Expected one of")[0]
        told = f" ({squeezed(reason, 200)})" if reason else ""
        raise ConfigError(
            f"device={cut(name)}: must be auto, cpu, cuda, cuda:N or what else torch can use here{told}"
        ) from error
    return device
