"""The settings of a parameter group: which values are allowed."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from alphagrad.extent import is_sharded
from alphagrad.gather import run_dims
from alphagrad.rounding import ROUNDINGS
from alphagrad.rule import Rule
from alphagrad.values import LARGEST

NONFINITE = ("skip", "raise", "propagate")
MOMENTUM_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
NAMED_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in MOMENTUM_DTYPES}


def check_settings(s: dict[str, Any]) -> None:
    """Raises ``ValueError`` or ``TypeError`` naming the first setting that is out of range."""
    if not isinstance(s["rule"], Rule):
        raise TypeError(f"rule: expected a Rule, got {s['rule']!r}")
    if not isinstance(s["batch_dims"], int) or isinstance(s["batch_dims"], bool) or s["batch_dims"] < 0:
        raise ValueError(f"batch_dims: must be an integer ≥ 0, got {s['batch_dims']!r}")
    lr = s["lr"]
    if isinstance(lr, Tensor):
        if lr.dim() not in (0, s["batch_dims"]) and lr.shape != (1,):
            raise ValueError(
                f"lr: Tensor lr must be 1-element, or one number for each run, got shape {tuple(lr.shape)}"
            )
        if not ((lr >= 0) & lr.isfinite()).all():
            raise ValueError(f"lr: must be finite and ≥ 0, got {lr!r}")
    elif not is_number(lr) or not 0 <= lr <= LARGEST:
        raise ValueError(f"lr: must lie in [0, {LARGEST:g}], got {lr!r}")
    for setting in ("weight_decay", "eps"):
        if not is_number(s[setting]) or not 0 <= s[setting] < float("inf"):
            raise ValueError(f"{setting}: must be finite and ≥ 0, got {s[setting]!r}")
    if not is_number(s["momentum"]) or not 0 <= s["momentum"] < 1:
        raise ValueError(f"momentum: must lie in [0, 1), got {s['momentum']!r}")
    if not is_number(s["dampening"]) or not 0 <= s["dampening"] < 1:
        raise ValueError(f"dampening: must lie in [0, 1), got {s['dampening']!r}")
    for setting in ("nesterov", "maximize", "foreach", "fused", "compile"):
        if not isinstance(s[setting], bool) and not (setting in ("foreach", "fused") and s[setting] is None):
            raise ValueError(f"{setting}: must be true or false, got {s[setting]!r}")
    if s["fused"] and s["foreach"]:
        raise ValueError("fused: cannot be true where foreach is true")
    if s["nesterov"] and (s["momentum"] == 0 or s["dampening"] != 0):
        raise ValueError("nesterov: needs momentum > 0 and dampening = 0")
    if s["dampening"] and not s["momentum"]:
        raise ValueError(f"dampening: does nothing without momentum, got {s['dampening']!r}")
    if s["differentiable"]:
        raise ValueError("differentiable: AlphaGrad updates in place and cannot be differentiated, got True")
    if s["rounding"] not in ROUNDINGS:
        raise ValueError(f"rounding: must be one of {', '.join(ROUNDINGS)}, got {s['rounding']!r}")
    if s["momentum_dtype"] is not None and s["momentum_dtype"] not in MOMENTUM_DTYPES:
        raise ValueError(
            f"momentum_dtype: must be None or one of {', '.join(NAMED_DTYPES)}, got {s['momentum_dtype']!r}"
        )
    if s["nonfinite"] not in NONFINITE:
        raise ValueError(f"nonfinite: must be one of {', '.join(NONFINITE)}, got {s['nonfinite']!r}")


def plain_numbers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """NumPy's numbers as Python's: a state dict with others in it does not load with ``weights_only``. A dtype may be
    given by its name.
    """
    found = {key: plain(value) for key, value in settings.items()}
    dtype = found.get("momentum_dtype")
    return {**found, "momentum_dtype": NAMED_DTYPES.get(dtype, dtype)} if isinstance(dtype, str) else found


def plain(value: Any) -> Any:
    """A number of any library as Python's own; anything else as it is."""
    if type(value) in (bool, int, float) or isinstance(value, Tensor):
        return value
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def warn_of_misspellings(group: Mapping[str, Any], settings: Iterable[str]) -> None:
    """Warns of keys of a parameter group that look like a setting and are none; other keys are the caller's."""
    known = {"params", "param_names", "initial_lr", *SCHEDULERS, *settings}
    for key in set(group) - known:
        close = difflib.get_close_matches(str(key).lower(), settings, n=1, cutoff=0.8)
        if close:
            warnings.warn(f"{key}: no setting of AlphaGrad, and ignored; did you mean {close[0]}?", stacklevel=4)


SCHEDULERS = ("base_momentum", "max_momentum", "max_lr", "min_lr", "lr_scale", "lr_mult", "swa_lr")
"""Keys that torch's schedulers and timm leave in parameter groups; some look like settings."""


def check_group(groups: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """Checks the last group's tensors, called ``names``, and how they go with the others'.

    Raises:
        ValueError: naming what does not fit. Lazy parameters are looked at in the first step.
    """
    group = groups[-1]
    rule, batch_dims = group["rule"], group["batch_dims"]
    if rule.normalization.needs_names and group["params"] and "param_names" not in group:
        raise ValueError(
            f"params: {rule.normalization!r} finds a module's tensors by name; "
            "construct the optimizer from model.named_parameters()"
        )
    for name, p in zip(names, group["params"], strict=True):
        if is_lazy(p):
            continue
        if p.is_complex():
            raise ValueError(f"params: {name} is complex; AlphaGrad is defined for real parameters")
        if is_sharded(p) and batch_dims:
            raise ValueError(f"batch_dims: {name} is sharded; a stack of runs stays on one process")
        if is_sharded(p) and any(placement.is_partial() for placement in p.placements):
            raise ValueError(f"params: {name} is a sum over processes (Partial), not a parameter")
        if p.dim() < batch_dims:
            raise ValueError(f"batch_dims: {name} has {p.dim()} dimensions, batch_dims={batch_dims}")
        if group["rounding"] == "stochastic" and p.dtype is torch.float16:
            raise ValueError(f"rounding: stochastic is for bfloat16, and {name} is float16; use kahan")
    if rule.spans_tensors and within_zero():
        raise ValueError(
            f"rule: {rule!r} measures across tensors, of which ZeroRedundancyOptimizer gives each process "
            "only some; use a rule that works tensor by tensor (PerTensor, and an α of its own for each), or FSDP2"
        )
    stacks = {run_dims(p, g) for g in groups for p in g["params"] if not is_lazy(p)}
    if len(stacks) > 1:
        raise ValueError(f"batch_dims: all parameters must count the same runs, got {sorted(stacks)}")
    counts: list[tuple[str, tuple[int, ...]]] = [(setting, (count,)) for setting, count in rule.run_counts()]
    if isinstance(group["lr"], Tensor) and group["lr"].numel() != 1:
        counts.append(("lr", tuple(group["lr"].shape)))
    for setting, shape in counts:
        if stacks - {shape}:
            raise ValueError(f"{setting}: holds {shape} numbers, one a run, but the runs are {stacks.pop()}")


def within_zero() -> bool:
    """Whether ``ZeroRedundancyOptimizer`` is building this optimizer, on more than one process.

    It hands over some of the tensors as if they were all; only the call stack tells.
    """
    module = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
    frame = sys._getframe() if module is not None else None
    while frame is not None:
        caller = frame.f_locals.get("self")
        if module is not None and isinstance(caller, module.ZeroRedundancyOptimizer):
            return bool(caller.world_size > 1)
        frame = frame.f_back
    return False


def is_number(x: object) -> bool:
    """An int or a float, and not a bool."""
    return isinstance(x, (int, float)) and not isinstance(x, bool)
