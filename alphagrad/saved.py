"""What a saved state must be to be loaded, and what torch's own loading would do to it."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import Optimizer

from alphagrad.gather import has_begun, run_dims
from alphagrad.rule import Rule
from alphagrad.settings import check_settings

SIZED = ("momentum_buffer", "compensation")
"""What is of its parameter's size; the rest is one number for each run."""
KINDS = {
    "skipped": torch.int32,
    "step": torch.float32,
    "alpha": torch.float32,
    "saturation": torch.float32,
    "begun": torch.bool,
}


class Restored:
    """One loading of a state: what comes before torch's part of it, and what after.

    Raises:
        ValueError: the state belongs to another rule, lacks a part of it, or a setting in it is out of range.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, dict[str, Any]] = {}
        self._places: dict[Any, int] = {}

    def prepare(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Checks the state that is about to be loaded; the optimizer keeps its own rules, and stays compiled or not."""
        groups, place = [], 0
        for own, saved in zip(optimizer.param_groups, state_dict["param_groups"], strict=False):
            text = saved.get("rule", own["rule"])
            if text != own["rule"] and not (isinstance(text, str) and says(text, own["rule"])):
                raise ValueError(f"rule: the state was saved under {text}, the optimizer has {own['rule']!r}")
            keep = {key: own[key] for key in ("rule", "compile", "fused", "foreach")}
            check_settings({**own, **saved, **keep})
            groups.append({**saved, **keep})
            if len(saved["params"]) == len(own["params"]):  # torch refuses the others
                for i, p in zip(saved["params"], own["params"], strict=True):
                    entry = state_dict["state"].get(i)
                    if entry:
                        self._kept[i], self._places[i] = completed(entry, p, own, f"parameter {i}"), place
                    place += 1
        groups += state_dict["param_groups"][len(groups) :]
        return {**state_dict, "param_groups": groups, "state": {**state_dict["state"], **self._kept}}

    def finish(self, optimizer: Optimizer) -> None:
        """Puts back what torch has cast to the parameters' types: counts and α must not be rounded."""
        params = [p for group in optimizer.param_groups for p in group["params"]]
        for i, entry in self._kept.items():
            p = params[self._places[i]]
            for key, value in entry.items():
                if isinstance(value, Tensor) and optimizer.state[p][key].dtype != value.dtype:
                    optimizer.state[p][key] = value.to(p.device)


def completed(entry: Mapping[str, Any], p: Tensor, group: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One parameter's state as its rule keeps it, with what an older version did not write.

    Raises:
        ValueError: it is not the rule's, or not of the parameter's shape.
    """
    rule = group["rule"]
    controlled = rule.alpha is not None and rule.alpha.controlled
    needed = {*(("alpha", "saturation", "step") if controlled else ()), *(("step",) if rule.counts_steps else ())}
    missing = sorted(needed - set(entry))
    if missing:
        raise ValueError(f"state: {name} has no {missing[0]!r}, which {rule!r} keeps; the state is another rule's")
    if "alpha" in entry and not controlled:
        raise ValueError(f"state: {name} has an 'alpha', which {rule!r} does not keep; the state is another rule's")
    runs = None if is_lazy(p) else run_dims(p, dict(group))
    result = {}
    for key, value in entry.items():
        if key in KINDS:
            value = torch.as_tensor(value, dtype=KINDS[key])
            if runs is not None and value.numel() != math.prod(runs):
                counts = f"{value.numel()} numbers, one a run, not {math.prod(runs)}"
                raise ValueError(f"state: {key!r} of {name} has {counts}")
            value = value if runs is None else value.reshape(runs)
        elif key in SIZED:
            if value is None:  # as torch.optim.SGD has it before its first step with momentum
                continue
            if runs is not None and tuple(value.shape) != tuple(p.shape):
                shapes = f"{tuple(value.shape)}, the parameter {tuple(p.shape)}"
                raise ValueError(f"state: {key!r} of {name} has the shape {shapes}")
        result[key] = value
    if "momentum_buffer" in result and "begun" not in result:
        result["begun"] = has_begun(result["momentum_buffer"], p, group["batch_dims"])
    return result


def says(text: str, rule: Rule) -> bool:
    """Whether ``text``, a rule's repr, means this rule; 10 is 10.0."""
    try:
        return meaning(ast.parse(text, mode="eval").body) == described(rule)
    except (SyntaxError, ValueError, TypeError):
        return False


def meaning(node: ast.expr) -> Any:
    """A repr's value as plain data; classes are named by name, numbers are floats."""
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func).rpartition(".")[2]
        if name.startswith(("float", "int")):  # NumPy's numbers
            return meaning(node.args[0])
        return name, {str(k.arg): meaning(k.value) for k in node.keywords}
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(meaning(item) for item in node.elts)
    return plainly(ast.literal_eval(node))


def described(value: Any) -> Any:
    """A rule, or a part of one, as :meth:`meaning` gives it."""
    if not is_dataclass(value):
        return tuple(map(described, value)) if isinstance(value, (tuple, list)) else plainly(value)
    return type(value).__name__, {f.name: described(getattr(value, f.name)) for f in fields(value) if f.repr}


def plainly(value: Any) -> Any:
    """Numbers as floats: an int and a float of one value are one setting."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else value
