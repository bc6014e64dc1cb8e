"""The settings of a parameter group: which values are allowed."""

from __future__ import annotations

from numbers import Real
from typing import Any

from torch import Tensor

from alphagrad.rule import Rule

NONFINITE = ("skip", "raise", "propagate")


def check_settings(s: dict[str, Any]) -> None:
    """Raises ``ValueError`` or ``TypeError`` naming the first setting that is out of range."""
    if not isinstance(s["rule"], Rule):
        raise TypeError(f"rule: expected a Rule, got {s['rule']!r}")
    if not isinstance(s["batch_dims"], int) or isinstance(s["batch_dims"], bool) or s["batch_dims"] < 0:
        raise ValueError(f"batch_dims: must be an integer ≥ 0, got {s['batch_dims']!r}")
    lr = s["lr"]
    if isinstance(lr, Tensor):
        if lr.dim() not in (0, s["batch_dims"]) and lr.shape != (1,):
            raise ValueError(f"lr: a tensor must hold one number, or one for each run, got shape {tuple(lr.shape)}")
        if not ((lr >= 0) & lr.isfinite()).all():
            raise ValueError(f"lr: must be finite and ≥ 0, got {lr!r}")
    elif not is_number(lr) or not 0 <= lr < float("inf"):
        raise ValueError(f"lr: must be finite and ≥ 0, got {lr!r}")
    for setting in ("weight_decay", "eps"):
        if not is_number(s[setting]) or not 0 <= s[setting] < float("inf"):
            raise ValueError(f"{setting}: must be finite and ≥ 0, got {s[setting]!r}")
    if not is_number(s["momentum"]) or not 0 <= s["momentum"] < 1:
        raise ValueError(f"momentum: must lie in [0, 1), got {s['momentum']!r}")
    if not is_number(s["dampening"]) or not 0 <= s["dampening"] < 1:
        raise ValueError(f"dampening: must lie in [0, 1), got {s['dampening']!r}")
    for setting in ("nesterov", "maximize", "foreach", "compile"):
        if not isinstance(s[setting], bool) and not (setting == "foreach" and s[setting] is None):
            raise ValueError(f"{setting}: must be true or false, got {s[setting]!r}")
    if s["nesterov"] and (s["momentum"] == 0 or s["dampening"] != 0):
        raise ValueError("nesterov: needs momentum > 0 and dampening = 0")
    if s["dampening"] and not s["momentum"]:
        raise ValueError(f"dampening: does nothing without momentum, got {s['dampening']!r}")
    if s["differentiable"]:
        raise ValueError("differentiable: AlphaGrad updates in place and cannot be differentiated, got True")
    if s["nonfinite"] not in NONFINITE:
        raise ValueError(f"nonfinite: must be one of {', '.join(NONFINITE)}, got {s['nonfinite']!r}")


def plain_numbers(settings: dict[str, Any]) -> dict[str, Any]:
    """NumPy's numbers as Python's: a state dict with others in it does not load with ``weights_only``."""
    numpy_like = {k for k, v in settings.items() if isinstance(v, Real) and not isinstance(v, (int, float))}
    return {k: float(v) if k in numpy_like else v for k, v in settings.items()}


def is_number(x: object) -> bool:
    """An int or a float, and not a bool."""
    return isinstance(x, (int, float)) and not isinstance(x, bool)
