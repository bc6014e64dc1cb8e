"""AlphaGrad: non-linear gradient normalisation, and a laboratory for its variants.

``from alphagrad import AlphaGrad, Rule, variants`` works in any training loop and imports torch alone.
Names load on first use, so that the command line starts without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alphagrad import instruments as instruments
    from alphagrad import variants as variants
    from alphagrad.in_backward import InBackward as InBackward
    from alphagrad.instruments.observe import signals as signals
    from alphagrad.optimizer import AlphaGrad as AlphaGrad
    from alphagrad.rule import Rule as Rule

__version__ = "0.1.0"
__all__ = ["AlphaGrad", "InBackward", "Rule", "instruments", "signals", "variants"]

_HOMES = {
    "AlphaGrad": "alphagrad.optimizer",
    "InBackward": "alphagrad.in_backward",
    "Rule": "alphagrad.rule",
    "signals": "alphagrad.instruments.observe",
}


def __getattr__(name: str) -> Any:
    if name in ("instruments", "variants"):
        return importlib.import_module(f"alphagrad.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'alphagrad' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
