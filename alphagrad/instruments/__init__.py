"""What an optimizer does to its gradients, tensor by tensor; works in any training loop, with any torch optimizer.

``with alphagrad.instruments.watch(optimizer) as w: ...`` and then ``print(w.table())``. Names load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alphagrad.instruments.noise import Noise as Noise
    from alphagrad.instruments.observe import signals as signals
    from alphagrad.instruments.watching import Watch as Watch
    from alphagrad.instruments.watching import watch as watch

__all__ = ["Noise", "Watch", "signals", "watch"]

_HOMES = {
    "Noise": "alphagrad.instruments.noise",
    "Watch": "alphagrad.instruments.watching",
    "signals": "alphagrad.instruments.observe",
    "watch": "alphagrad.instruments.watching",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'alphagrad.instruments' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
