"""``torch.compile`` with a cache that tells kinds of processor apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.compiler import config


def compiled(function: Callable[..., Any], options: dict[str, Any] | None = None) -> Callable[..., Any]:
    """``function`` under ``torch.compile``, as one graph of fixed shapes.

    torch's cache does not tell kinds of processor apart (2.14.1). Where machines share one
    (``TORCHINDUCTOR_CACHE_DIR``), loops of AVX512 ran under AVX2 and left out half of the numbers.
    """
    call = torch.compile(function, fullgraph=True, dynamic=False, options=options)
    kind = torch.backends.cpu.get_cpu_capability()

    def apart(*arguments: Any) -> Any:
        tag = config.cache_key_tag  # it is read when the call compiles
        config.cache_key_tag = tag + kind
        try:
            return call(*arguments)
        finally:
            config.cache_key_tag = tag

    return apart
